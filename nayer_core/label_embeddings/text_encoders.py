"""Class names to label-text embeddings (LTE), the generator's input (section 3.2 of the paper).

`embed` makes the embeddings and runs as a command of its own, before `distill`: it is the only part that
may use the network. They are stored as the encoder gives them. `prepare` checks that no two classes have the
same embedding and whitens them; `distill` calls it.
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

LABEL_EMBEDDINGS_FILE = "lte.safetensors"
CLIP_ARCHITECTURE = "ViT-B-32"
CLIP_DIM, SBERT_DIM = 512, 384
GAUSSIAN_DIM = CLIP_DIM
_MOST_ONE_HOT = 10_000  # classes; their square in floats is 400 MB
_BATCH = 256  # texts encoded at once

_Warning = tuple[str, str]  # (code, message)


@dataclass(frozen=True)
class LabelEmbeddings:
    """One vector for each class name, and where they come from.

    Attributes:
        label_embeddings: (K, dim) float32, as the encoder gives them.
        encoder: which one it was.
        weights: revision or SHA-256 of its weights; empty where it has none.
        fallback_from: the encoder that was requested and is not available; None without a fallback.
        warnings: (code, message) for the client.
    """

    label_embeddings: Tensor
    encoder: str
    weights: str
    fallback_from: str | None
    warnings: tuple[_Warning, ...]


def embedding_dim(encoder: str, classes: int) -> int:
    """Return the size of the vectors that `embed` will make; for `auto` the larger of the two."""
    return {"one_hot": classes, "gaussian": GAUSSIAN_DIM, "sbert": SBERT_DIM}.get(encoder, CLIP_DIM)


def embed(encoder: str, prompt: str, class_names: Sequence[str]) -> LabelEmbeddings:
    """Turn class names into one vector each.

    Args:
        encoder: `open_clip`, `sbert`, `one_hot`, `gaussian`, or `auto`: the first of the former
            two whose weights are available.
        prompt: text with {label} or {index}.
        class_names: K of them.

    Raises:
        EncoderUnavailable: the encoder's weights are not available.
        SpecError: `invalid_spec`, for more classes than one-hot vectors are made for.
    """
    if encoder == "one_hot":
        return LabelEmbeddings(_one_hot(len(class_names)), encoder, "", None, ())
    if encoder == "gaussian":
        return LabelEmbeddings(_gaussian(class_names), encoder, "", None, ())
    texts, warnings = class_texts(prompt, class_names)
    fallback_from = None
    if encoder in ("auto", "open_clip"):
        try:
            label_embeddings, weights = _open_clip(texts)
            return LabelEmbeddings(label_embeddings, "open_clip", weights, None, warnings)
        except EncoderUnavailable as error:
            if encoder == "open_clip":
                raise
            fallback_from = "open_clip"
            reason = f"{error.message} The sentence encoder MiniLM is used in its place."
            warnings = (*warnings, ("text_encoder_fallback", reason))
    label_embeddings, weights = _sbert(texts)
    return LabelEmbeddings(label_embeddings, "sbert", weights, fallback_from, warnings)


def class_texts(prompt: str, class_names: Sequence[str]) -> tuple[list[str], tuple[_Warning, ...]]:
    """Put each class name into the prompt; `_` and `-` become spaces, and equal texts get the index.

    Encoders do not see case, so `Crane` and `crane` count as equal.

    Args:
        prompt: text with {label} or {index}.
        class_names: K of them.

    Returns:
        K different texts, and a warning where an index was added to some.
    """
    texts = [_fill_in(prompt, index, class_name) for index, class_name in enumerate(class_names)]
    counts = Counter(text.casefold() for text in texts)
    repeated = [index for index, text in enumerate(texts) if counts[text.casefold()] > 1]
    for index in repeated:
        texts[index] = f"{texts[index]} {index}"
    if not repeated:
        return texts, ()
    names = ", ".join(repr(class_names[index]) for index in repeated[:5])
    message = f"{len(repeated)} labels give the same text as another ({names}); their index was added."
    return texts, (("duplicate_label_texts", message),)


def _fill_in(prompt: str, index: int, class_name: str) -> str:
    values = {"{label}": re.sub(r"[_-]", " ", class_name), "{index}": str(index)}
    filled = re.sub(r"\{label\}|\{index\}", lambda place: values[place[0]], prompt)
    return " ".join(filled.split())


def prepare(label_embeddings: Tensor, *, whiten: bool) -> tuple[Tensor, tuple[_Warning, ...]]:
    """Check stored embeddings and, on request, whiten them.

    Args:
        label_embeddings: (K, dim) as stored.
        whiten: decorrelate them over the classes.

    Returns:
        (K, dim) float32, and warnings for the client.

    Raises:
        UploadError: `embeddings_invalid`, where two classes have the same vector or one is not finite.
    """
    label_embeddings = label_embeddings.float()
    if not bool(torch.isfinite(label_embeddings).all()):
        raise UploadError(
            ErrorCode.EMBEDDINGS_INVALID,
            "The label-text embeddings hold values that are not finite.",
            "Give finite vectors.",
        )
    same = _same_rows(label_embeddings)
    if same is not None:
        raise UploadError(
            ErrorCode.EMBEDDINGS_INVALID,
            f"Classes {same[0]} and {same[1]} have the same embedding, so no image can be made for either.",
            "Give every class a vector of its own; very long labels are cut off by the encoder.",
        )
    return (whitened(label_embeddings), ()) if whiten else (label_embeddings, ())


def _same_rows(label_embeddings: Tensor) -> tuple[int, int] | None:
    coarse = torch.round(
        label_embeddings / label_embeddings.abs().max().clamp_min(1e-12) * 1e4
    )  # rounding differs by batch
    _, group, counts = torch.unique(coarse, dim=0, return_inverse=True, return_counts=True)
    if int(counts.max()) == 1:
        return None
    first, second, *_ = (group == counts.argmax()).nonzero().flatten().tolist()
    return first, second


def whitened(label_embeddings: Tensor) -> Tensor:
    """Decorrelate embeddings over the classes, moving them as little as possible.

    With up to `dim` classes the rows become orthogonal, each of norm sqrt(dim): the orthogonal
    frame nearest to the given rows (their polar factor). More classes than `dim` cannot be orthogonal:
    then the columns become uncorrelated with mean 0 and variance 1 (ZCA), and rows have that norm on average.

    Args:
        label_embeddings: (K, dim) float32.

    Returns:
        (K, dim) float32.
    """
    classes, dim = label_embeddings.shape
    rows = label_embeddings.double()
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


def _gaussian(class_names: Sequence[str]) -> Tensor:
    """Draw one N(0, 1) vector for each class name, from the name alone: the same on every machine."""
    rows = []
    for class_name in class_names:
        seed = int.from_bytes(hashlib.sha256(class_name.encode()).digest()[:8], "big", signed=True)
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
            "Have the operator correct NAYER_CLIP_WEIGHTS, or choose text_encoder 'sbert'.",
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
    label_embeddings = network.encode(
        texts, batch_size=_BATCH, convert_to_tensor=True, show_progress_bar=False
    )
    return label_embeddings.float().cpu(), weights.identity


class _Request(BaseModel):
    """The fields of a JobSpec or a ResolvedSpec that `embed` reads."""

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
    result = embed(request.text_encoder.name, request.text_encoder.prompt, request.labels)
    for code, message in result.warnings:
        emit(WarningEvent(code=code, message=message))
    args.out.mkdir(parents=True, exist_ok=True)
    save_file({"lte": result.label_embeddings.contiguous()}, args.out / LABEL_EMBEDDINGS_FILE)
    return {
        "text_encoder": result.encoder,
        "weights": result.weights,
        "dim": result.label_embeddings.shape[1],
        "fallback_from": result.fallback_from,
    }
