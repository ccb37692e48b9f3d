"""Class names to vectors: the texts, each encoder, the fallback, whitening, and the command."""

import argparse
import json
import socket
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from nayer_core.contract.errors import ErrorCode, NayerError, SpecError, UploadError
from nayer_core.contract.events import Event, PhaseEvent, WarningEvent
from nayer_core.label_embeddings import encoder_weights, text_encoders
from nayer_core.label_embeddings.text_encoders import class_texts, embed, prepare, whitened
from nayer_core.networks.weights import read_weights, save_weights

PROMPT = "a photo of a {label}"


@pytest.fixture
def no_clip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has no CLIP and may not ask for it."""
    monkeypatch.delenv("NAYER_CLIP_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def small_clip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> open_clip.CLIP:
    """A real CLIP of open_clip's, made small, its weights in the file that the operator names."""
    tower = {"width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
    config = {
        "embed_dim": 24,
        "vision_cfg": vision,
        "text_cfg": {"context_length": 77, "vocab_size": 49408, **tower},
    }
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    monkeypatch.setattr(text_encoders, "CLIP_ARCHITECTURE", "tiny-clip")
    network = open_clip.create_model("tiny-clip", force_quick_gelu=True).eval()
    save_weights(network, tmp_path / "clip.safetensors")
    monkeypatch.setenv("NAYER_CLIP_WEIGHTS", str(tmp_path / "clip.safetensors"))
    return network


def test_labels_are_put_into_the_prompt():
    texts, warnings = class_texts("{index}: a photo of a {label}", ["night_crane", "x-ray {index}"])
    assert texts == ["0: a photo of a night crane", "1: a photo of a x ray {index}"]
    assert warnings == ()


def test_equal_texts_get_their_index_and_a_warning():
    texts, warnings = class_texts(PROMPT, ["Crane", "crane", "dog", "night_owl", "night-owl"])
    assert texts == [
        f"a photo of a {end}" for end in ("Crane 0", "crane 1", "dog", "night owl 3", "night owl 4")
    ]
    ((code, message),) = warnings
    assert code == "duplicate_label_texts"
    assert message.startswith("4 labels")


def test_minilm_gives_similar_words_similar_vectors(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise AssertionError("the sentence encoder must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    embedded = embed("sbert", "{label}", ["cat", "dog", "truck"])
    assert (embedded.label_embeddings.shape, embedded.label_embeddings.dtype) == ((3, 384), torch.float32)
    assert embedded.weights.startswith("sha256:53aa5117")
    cat, dog, truck = embedded.label_embeddings
    assert float(cat @ dog) == pytest.approx(0.661, abs=0.005)
    assert float(cat @ truck) == pytest.approx(0.448, abs=0.005)


def test_other_weights_of_minilm_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoder_weights, "_MINILM_SHA256", "0" * 64)
    with pytest.raises(NayerError, match="text_encoder_unavailable"):
        embed("sbert", PROMPT, ["cat", "dog"])


def test_clip_reads_the_operators_file_as_openai_trained_it(small_clip: open_clip.CLIP):
    embedded = embed("auto", PROMPT, ["cat", "dog"])
    assert (embedded.encoder, embedded.fallback_from, embedded.warnings) == ("open_clip", None, ())
    assert embedded.weights.startswith("sha256:")
    tokens = open_clip.get_tokenizer("tiny-clip")(["a photo of a cat", "a photo of a dog"])
    torch.testing.assert_close(embedded.label_embeddings, small_clip.encode_text(tokens))


@pytest.mark.parametrize("content", [None, b"no weights at all", b""])
def test_an_unusable_file_of_the_operator_is_reported(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    path = tmp_path / "clip.safetensors"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("NAYER_CLIP_WEIGHTS", str(path))
    with pytest.raises(NayerError) as excinfo:
        embed("open_clip", PROMPT, ["cat", "dog"])
    assert excinfo.value.code == ErrorCode.TEXT_ENCODER_UNAVAILABLE
    assert str(path) in excinfo.value.message
    assert not excinfo.value.retryable


def test_without_clip_the_sentence_encoder_answers_and_says_so(no_clip: None):
    embedded = embed("auto", PROMPT, ["cat", "dog"])
    assert (embedded.encoder, embedded.fallback_from) == ("sbert", "open_clip")
    assert [code for code, _ in embedded.warnings] == ["text_encoder_fallback"]


def test_clip_that_was_asked_for_by_name_is_not_replaced(no_clip: None):
    with pytest.raises(NayerError) as excinfo:
        embed("open_clip", PROMPT, ["cat", "dog"])
    assert excinfo.value.code == ErrorCode.TEXT_ENCODER_UNAVAILABLE
    assert not excinfo.value.retryable


def test_a_hub_that_does_not_answer_is_asked_once(no_clip: None, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(encoder_weights, "_HUB_SECONDS", 0.2)
        with pytest.raises(NayerError) as excinfo:
            encoder_weights.run(argparse.Namespace(), lambda _: None)
    assert excinfo.value.retryable
    assert "does not answer" in excinfo.value.message


def test_one_hot_vectors():
    assert torch.equal(embed("one_hot", PROMPT, ["a", "b", "c"]).label_embeddings, torch.eye(3))
    with pytest.raises(SpecError, match="10000 is the limit"):
        embed("one_hot", PROMPT, [str(index) for index in range(10_001)])


def test_gaussian_vectors_follow_from_the_label_alone():
    label_embeddings = embed("gaussian", PROMPT, ["cat", "dog", "truck"]).label_embeddings
    assert label_embeddings.shape == (3, 512)
    assert torch.equal(
        embed("gaussian", "{label}", ["truck", "cat"]).label_embeddings, label_embeddings[[2, 0]]
    )
    assert abs(float(label_embeddings.mean())) < 0.1
    assert abs(float(label_embeddings.std()) - 1) < 0.1
    # Known numbers: another machine or version must draw the same.
    torch.testing.assert_close(
        label_embeddings[0, :3], torch.tensor([-0.57685530, 0.42584544, -1.63384092]), rtol=0, atol=1e-6
    )


@settings(deadline=None, max_examples=30)
@given(classes=st.integers(2, 40), dim=st.integers(2, 40), seed=st.integers(0, 99))
def test_whitened_rows_are_decorrelated(classes: int, dim: int, seed: int):
    rng = torch.Generator().manual_seed(seed)
    common = 5 * torch.randn(dim, generator=rng)  # texts begin alike, so vectors point alike
    white = whitened(common + torch.randn(classes, dim, generator=rng))
    if classes <= dim:
        torch.testing.assert_close(white @ white.T, dim * torch.eye(classes), atol=1e-3, rtol=0)
    else:
        torch.testing.assert_close(white.mean(0), torch.zeros(dim), atol=1e-3, rtol=0)
        torch.testing.assert_close(white.T @ white / classes, torch.eye(dim), atol=1e-2, rtol=0)


def test_whitening_leaves_a_frame_as_it_is():
    frame = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0][:4]
    torch.testing.assert_close(whitened(3 * frame), frame * 6**0.5)


def test_embeddings_are_prepared():
    label_embeddings = torch.randn(5, 8, dtype=torch.float16)
    plain, warnings = prepare(label_embeddings, whiten=False)
    assert (plain.dtype, warnings) == (torch.float32, ())
    assert torch.equal(plain, label_embeddings.float())
    assert torch.equal(prepare(label_embeddings, whiten=True)[0], whitened(label_embeddings.float()))


@pytest.mark.parametrize(("value", "words"), [(None, "Classes 1 and 3"), (float("nan"), "not finite")])
def test_embeddings_that_cannot_serve_are_refused(value: float | None, words: str):
    label_embeddings = torch.randn(5, 8)
    label_embeddings[3] = label_embeddings[1] if value is None else value
    with pytest.raises(UploadError, match=words) as excinfo:
        prepare(label_embeddings, whiten=True)
    assert excinfo.value.code == ErrorCode.EMBEDDINGS_INVALID


def _run(spec: object, out: Path) -> tuple[dict[str, object], list[Event]]:
    out.mkdir(exist_ok=True)
    (out / "spec.json").write_text(json.dumps(spec))
    events: list[Event] = []
    return text_encoders.run(argparse.Namespace(spec=out / "spec.json", out=out), events.append), events


def test_the_command_writes_the_file(tmp_path: Path):
    result, events = _run(
        {"labels": ["cat", "dog"], "text_encoder": {"name": "gaussian"}, "seed": 3}, tmp_path
    )
    assert result == {"text_encoder": "gaussian", "weights": "", "dim": 512, "fallback_from": None}
    assert [type(event) for event in events] == [PhaseEvent]
    assert torch.equal(
        read_weights(tmp_path / "lte.safetensors")["lte"],
        embed("gaussian", "", ["cat", "dog"]).label_embeddings,
    )


def test_the_command_reports_its_warnings(no_clip: None, tmp_path: Path):
    result, events = _run({"labels": ["a b", "a_b"]}, tmp_path)
    assert result["fallback_from"] == "open_clip"
    warned = [event.code for event in events if isinstance(event, WarningEvent)]
    assert warned == ["duplicate_label_texts", "text_encoder_fallback"]


@pytest.mark.parametrize(
    "spec", [{}, [], {"labels": "cat"}, {"labels": ["a"], "text_encoder": {"name": "file"}}]
)
def test_the_command_refuses_what_it_cannot_encode(spec: object, tmp_path: Path):
    with pytest.raises(SpecError) as excinfo:
        _run(spec, tmp_path)
    assert excinfo.value.code == ErrorCode.INVALID_SPEC
