"""Class names to label-text embeddings (LTE), the generator's input (section 3.2 of the paper).

`embed` makes them and runs on its own, before `distill`: it is the only part that may use the
network. `prepare` is what `distill` does with them: whitening, and a look at classes that no
generator could tell apart. They are stored as the encoder gives them.
"""

import argparse
import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from nayer_core.contract.errors import ErrorCode, SpecError, UploadError
from nayer_core.contract.events import Emit, Phase, PhaseEvent, WarningEvent
from nayer_core.contract.spec import TextEncoderSpec
from nayer_core.label_embeddings.encoder_weights import EncoderUnavailable, find_clip, find_minilm

LTE_FILE = "lte.safetensors"
CLIP_ARCHITECTURE = "ViT-B-32"
CLIP_DIM, SBERT_DIM = 512, 384
GAUSSIAN_DIM = CLIP_DIM
_MOST_ONE_HOT = 10_000  # classes; their square in floats is 400 MB
_BATCH = 256  # texts encoded at once

_Warning = tuple[str, str]  # (code, message)


@dataclass(frozen=True)
class LabelTextEmbeddings:
    """What an encoder made of the labels.

    Attributes:
        lte: (K, dim) float32, as the encoder gives them.
        encoder: which one it was.
        weights: revision or SHA-256 of its weights; empty where it has none.
        fallback_from: the encoder that was wanted and could not be had.
        warnings: (code, message) for the client.
    """

    lte: Tensor
    encoder: str
    weights: str
    fallback_from: str | None
    warnings: tuple[_Warning, ...]


def embedding_dim(encoder: str, classes: int) -> int:
    """Tell the size of the vectors that `embed` will make; of `auto` the larger one's."""
    return {"one_hot": classes, "gaussian": GAUSSIAN_DIM, "sbert": SBERT_DIM}.get(encoder, CLIP_DIM)


def embed(encoder: str, prompt: str, labels: Sequence[str]) -> LabelTextEmbeddings:
    """Turn class names into one vector each.

    Args:
        encoder: `open_clip`, `sbert`, `one_hot`, `gaussian`, or `auto`: the first of the former
            two whose weights can be had.
        prompt: text with {label} or {index}.
        labels: K class names.

    Raises:
        EncoderUnavailable: the encoder's weights cannot be had.
        SpecError: `invalid_spec`, for more classes than one-hot vectors are made for.
    """
    if encoder == "one_hot":
        return LabelTextEmbeddings(_one_hot(len(labels)), encoder, "", None, ())
    if encoder == "gaussian":
        return LabelTextEmbeddings(_gaussian(labels), encoder, "", None, ())
    texts, warnings = label_texts(prompt, labels)
    fallback_from = None
    if encoder in ("auto", "open_clip"):
        try:
            lte, weights = _open_clip(texts)
            return LabelTextEmbeddings(lte, "open_clip", weights, None, warnings)
        except EncoderUnavailable as error:
            if encoder == "open_clip":
                raise
            fallback_from = "open_clip"
            reason = f"{error.message} The sentence encoder MiniLM is used in its place."
            warnings = (*warnings, ("text_encoder_fallback", reason))
    lte, weights = _sbert(texts)
    return LabelTextEmbeddings(lte, "sbert", weights, fallback_from, warnings)


def label_texts(prompt: str, labels: Sequence[str]) -> tuple[list[str], tuple[_Warning, ...]]:
    """Put each label into the prompt; `_` and `-` become spaces, and equal texts get the index.

    Encoders do not see case, so `Crane` and `crane` count as equal.

    Args:
        prompt: text with {label} or {index}.
        labels: K class names.

    Returns:
        K different texts, and a warning where some had to be told apart.
    """
    texts = [_fill_in(prompt, index, label) for index, label in enumerate(labels)]
    counts = Counter(text.casefold() for text in texts)
    repeated = [index for index, text in enumerate(texts) if counts[text.casefold()] > 1]
    for index in repeated:
        texts[index] = f"{texts[index]} {index}"
    if not repeated:
        return texts, ()
    names = ", ".join(repr(labels[index]) for index in repeated[:5])
    message = f"{len(repeated)} labels give the same text as another ({names}); their index was added."
    return texts, (("duplicate_label_texts", message),)


def _fill_in(prompt: str, index: int, label: str) -> str:
    values = {"{label}": re.sub(r"[_-]", " ", label), "{index}": str(index)}
    filled = re.sub(r"\{label\}|\{index\}", lambda place: values[place[0]], prompt)
    return " ".join(filled.split())


def prepare(lte: Tensor, *, whiten: bool) -> tuple[Tensor, tuple[_Warning, ...]]:
    """Make stored embeddings the generator's input.

    Args:
        lte: (K, dim) as stored.
        whiten: decorrelate them over the classes.

    Returns:
        (K, dim) float32, and warnings for the client.

    Raises:
        UploadError: `embeddings_invalid`, where two classes have the same vector or one is not finite.
    """
    lte = lte.float()
    if not bool(torch.isfinite(lte).all()):
        raise UploadError(
            ErrorCode.EMBEDDINGS_INVALID,
            "The label-text embeddings hold values that are not finite.",
            "Give finite vectors.",
        )
    same = _same_rows(lte)
    if same is not None:
        raise UploadError(
            ErrorCode.EMBEDDINGS_INVALID,
            f"Classes {same[0]} and {same[1]} have the same embedding, so no image can be made for either.",
            "Give every class a vector of its own; very long labels are cut off by the encoder.",
        )
    return (whitened(lte), ()) if whiten else (lte, ())


def _same_rows(lte: Tensor) -> tuple[int, int] | None:
    coarse = torch.round(lte / lte.abs().max().clamp_min(1e-12) * 1e4)  # rounding differs by batch
    _, group, counts = torch.unique(coarse, dim=0, return_inverse=True, return_counts=True)
    if int(counts.max()) == 1:
        return None
    first, second, *_ = (group == counts.argmax()).nonzero().flatten().tolist()
    return first, second


def whitened(lte: Tensor) -> Tensor:
    """Decorrelate embeddings over the classes, moving them as little as possible.

    With up to `dim` classes the rows become orthogonal, each of norm sqrt(dim): the orthogonal
    frame nearest to the given rows (their polar factor). With more classes that cannot be, and the
    columns become uncorrelated with mean 0 and variance 1 (ZCA), rows of that norm on average.

    Args:
        lte: (K, dim) float32.

    Returns:
        (K, dim) float32.
    """
    classes, dim = lte.shape
    rows = lte.double()
    if classes > dim:
        rows = rows - rows.mean(dim=0)
    left_vectors, _, right_vectors = torch.linalg.svd(rows, full_matrices=False)
    frame: Tensor = left_vectors @ right_vectors
    return (frame * math.sqrt(max(classes, dim))).float()


def _one_hot(classes: int) -> Tensor:
    if classes > _MOST_ONE_HOT:
        raise SpecError(
            ErrorCode.INVALID_SPEC,
            f"One-hot vectors of {classes} classes are too large; {_MOST_ONE_HOT} is the limit.",
            "Choose text_encoder 'gaussian'.",
        )
    return torch.eye(classes)


def _gaussian(labels: Sequence[str]) -> Tensor:
    """Draw one N(0, 1) vector for each label, from the label alone: the same on every machine."""
    rows = []
    for label in labels:
        seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big", signed=True)
        rows.append(torch.randn(GAUSSIAN_DIM, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows)


def _open_clip(texts: list[str]) -> tuple[Tensor, str]:
    weights = find_clip()
    import open_clip

    try:
        # OpenAI's weights were trained with QuickGELU, which a plain file does not say.
        network = open_clip.create_model(
            CLIP_ARCHITECTURE, pretrained=str(weights.path), force_quick_gelu=True, require_pretrained=True
        ).eval()
    except (RuntimeError, OSError, ValueError, KeyError, UnpicklingError, SafetensorError) as error:
        raise EncoderUnavailable(
            f"{weights.path} does not hold the weights of CLIP ViT-B/32.",
            "Have the operator mend NAYER_CLIP_WEIGHTS, or choose text_encoder 'sbert'.",
            retryable=False,
        ) from error
    tokenizer = open_clip.get_tokenizer(CLIP_ARCHITECTURE)
    with torch.no_grad():
        rows = [network.encode_text(tokenizer(texts[i : i + _BATCH])) for i in range(0, len(texts), _BATCH)]
    return torch.cat(rows).float(), weights.identity


def _sbert(texts: list[str]) -> tuple[Tensor, str]:
    weights = find_minilm()
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(str(weights.path), device="cpu", local_files_only=True)
    lte = network.encode(texts, batch_size=_BATCH, convert_to_tensor=True, show_progress_bar=False)
    return lte.float().cpu(), weights.identity


class _Request(BaseModel):
    """What `embed` needs of a JobSpec or a ResolvedSpec."""

    labels: tuple[str, ...]
    text_encoder: TextEncoderSpec = TextEncoderSpec()


def run(args: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    """Write `lte.safetensors` into `args.out` for the labels in `args.spec`; the command `embed`.

    Raises:
        NayerError: as `embed`; `invalid_spec` for a document without labels.
    """
    try:
        request = _Request.model_validate_json(args.spec.read_bytes())
    except ValidationError as error:
        raise SpecError(
            ErrorCode.INVALID_SPEC,
            f"{args.spec.name} has no usable labels and text encoder ({error.error_count()} errors).",
            "Give the document of POST /jobs.",
        ) from error
    if request.text_encoder.name == "file":
        raise SpecError(
            ErrorCode.INVALID_SPEC,
            "text_encoder 'file' takes the embeddings that were uploaded; there is nothing to encode.",
            "Upload them as 'embeddings', or choose another text encoder.",
        )
    emit(PhaseEvent(phase=Phase.EMBED))
    embeddings = embed(request.text_encoder.name, request.text_encoder.prompt, request.labels)
    for code, message in embeddings.warnings:
        emit(WarningEvent(code=code, message=message))
    args.out.mkdir(parents=True, exist_ok=True)
    save_file({"lte": embeddings.lte.contiguous()}, args.out / LTE_FILE)
    return {
        "text_encoder": embeddings.encoder,
        "weights": embeddings.weights,
        "dim": embeddings.lte.shape[1],
        "fallback_from": embeddings.fallback_from,
    }
