"""The evaluation set and the embeddings, sound and hostile."""

import io
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_safetensors

from nayer_core.contract.errors import ErrorCode, UploadError
from nayer_core.uploads import conversion, side_files
from tests.support.hostile_files import duplicate_names

IMAGES = np.arange(5 * 8 * 9 * 3, dtype=np.int64).reshape(5, 8, 9, 3).astype(np.uint8)
LABELS = np.array([0, 1, 2, 1, 0])


def npz(save=np.savez, **arrays):
    out = io.BytesIO()
    save(out, **arrays)
    return out.getvalue()


def convert_evaluation(contents, tmp_path, channels=3):
    upload, output = tmp_path / "upload.npz", tmp_path / "evaluation.safetensors"
    upload.write_bytes(contents)
    conversion.convert_evaluation(upload, output, input_size=(channels, 8, 9), num_classes=3)
    return load_file(output)


def convert_embeddings(contents, tmp_path):
    upload, output = tmp_path / "upload", tmp_path / "lte.safetensors"
    upload.write_bytes(contents)
    conversion.convert_embeddings(upload, output, num_classes=3)
    return load_file(output)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_images_and_labels_come_out_as_they_went_in(save, dtype, tmp_path):
    converted = convert_evaluation(
        npz(save, images=IMAGES, labels=LABELS.astype(dtype), other=LABELS), tmp_path
    )
    assert converted.keys() == {"images", "labels"}
    assert np.array_equal(converted["images"].numpy(), IMAGES)
    assert converted["labels"].dtype == torch.int64
    assert converted["labels"].tolist() == LABELS.tolist()


def test_gray_images_may_lack_the_axis_of_channels_and_lie_in_column_order(tmp_path):
    gray = np.asfortranarray(IMAGES[..., 0])
    converted = convert_evaluation(npz(images=gray, labels=LABELS), tmp_path, channels=1)
    assert np.array_equal(converted["images"].numpy(), gray[..., np.newaxis])


def lying_header():
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 9, 3)}
    )
    return with_member("images.npy", out.getvalue() + bytes(10))


def with_member(name, contents, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr(name, contents)
        labels = io.BytesIO()
        np.save(labels, LABELS)
        archive.writestr("labels.npy", labels.getvalue())
    return out.getvalue()


def flipped():
    contents = bytearray(npz(images=IMAGES, labels=LABELS))
    contents[contents.index(IMAGES.tobytes()) + 3] ^= 1
    return bytes(contents)


CODE_FOR_A_HEADER = b"\x93NUMPY\x01\x00\x1a\x00__import__('os').abort()  \n"
BAD_EVALUATIONS = {
    "empty": lambda: b"",
    "no zip": lambda: b"\x93NUMPY" + bytes(99),
    "half": lambda: npz(images=IMAGES, labels=LABELS)[:400],
    "bad crc": flipped,
    "no labels": lambda: npz(images=IMAGES),
    "float images": lambda: npz(images=IMAGES.astype(np.float32), labels=LABELS),
    "channels first": lambda: npz(images=IMAGES.transpose(0, 3, 1, 2), labels=LABELS),
    "other size": lambda: npz(images=IMAGES[:, :7], labels=LABELS),
    "gray for colour": lambda: npz(images=IMAGES[..., 0], labels=LABELS),
    "fewer labels": lambda: npz(images=IMAGES, labels=LABELS[:4]),
    "float labels": lambda: npz(images=IMAGES, labels=LABELS.astype(np.float64)),
    "label too high": lambda: npz(images=IMAGES, labels=LABELS + 1),
    "label negative": lambda: npz(images=IMAGES, labels=LABELS - 1),
    "no images": lambda: npz(images=IMAGES[:0], labels=LABELS[:0]),
    "objects": lambda: npz(images=IMAGES, labels=np.array([0, 1, 2, 1, None])),
    "shape of 10^12": lying_header,
    "header is code": lambda: with_member("images.npy", CODE_FOR_A_HEADER),
    "npy of version 9": lambda: with_member("images.npy", b"\x93NUMPY\x09\x00\x1a\x00"),
    "inflates to too much": lambda: with_member("images.npy", bytes(2 << 20), zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("case", BAD_EVALUATIONS)
def test_a_bad_evaluation_set_is_refused_with_a_hint(case, tmp_path, monkeypatch):
    monkeypatch.setattr(side_files, "MAX_EVALUATION_BYTES", 1 << 20)
    with pytest.raises(UploadError) as raised:
        convert_evaluation(BAD_EVALUATIONS[case](), tmp_path)
    assert raised.value.code == ErrorCode.EVALUATION_INVALID
    assert "savez" in raised.value.hint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_embeddings_come_out_as_float32(dtype, tmp_path):
    vectors = torch.arange(12.0).reshape(3, 4)
    converted = convert_embeddings(save_safetensors({"any": vectors.to(dtype)}), tmp_path)
    assert torch.equal(converted["lte"], vectors)


BAD_EMBEDDINGS = {
    "empty": lambda: b"",
    "pickle": lambda: b"\x80\x02}.",
    "duplicate names": duplicate_names,
    "two tensors": lambda: save_safetensors({"a": torch.ones(3, 4), "b": torch.ones(3, 4)}),
    "four rows": lambda: save_safetensors({"a": torch.ones(4, 4)}),
    "one dimension": lambda: save_safetensors({"a": torch.ones(3)}),
    "too many columns": lambda: save_safetensors({"a": torch.ones(3, 8193)}),
    "one column": lambda: save_safetensors({"a": torch.ones(3, 1)}),
    "integers": lambda: save_safetensors({"a": torch.ones(3, 4, dtype=torch.int64)}),
    "nan": lambda: save_safetensors({"a": torch.full((3, 4), float("nan"))}),
    "cut": lambda: save_safetensors({"a": torch.ones(3, 4)})[:-1],
}


@pytest.mark.parametrize("case", BAD_EMBEDDINGS)
def test_bad_embeddings_are_refused_with_a_hint(case, tmp_path):
    with pytest.raises(UploadError) as raised:
        convert_embeddings(BAD_EMBEDDINGS[case](), tmp_path)
    assert raised.value.code == ErrorCode.EMBEDDINGS_INVALID
    assert "safetensors" in raised.value.hint
