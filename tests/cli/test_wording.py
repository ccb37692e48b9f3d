"""Messages of the service in the words of the command line: options, one line a fault, commands to type."""

import ast
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli import wording
from nayer import ApiError, DownloadCorruptError, ServiceUnreachableError
from nayer.errors import raise_for_problem
from nayer_core.contract.spec import JobSpec


def explanation(code: str, *errors: dict[str, str], detail: str = "", hint: str = "") -> tuple[str, str]:
    """Message and hint on the command line of a problem that the service answers."""
    document: dict[str, Any] = {"code": code, "detail": detail, "hint": hint, "errors": list(errors)}
    with pytest.raises(ApiError) as raised:
        raise_for_problem(httpx.Response(422, json=document))
    return wording.explain(raised.value)


def test_every_field_of_a_spec_has_an_option() -> None:
    for name in JobSpec.model_fields.keys() - {"method"}:  # there is one
        assert wording.option(f"/{name}").startswith(("--", "NAYER_")), name


@pytest.mark.parametrize(
    ("pointer", "option"),
    [
        ("/teacher/normalization", "--mean and --std"),
        ("/teacher/normalization/std/2", "--std, entry 2"),
        ("/teacher/input_size", "--input-size"),
        ("/labels/17", "--labels, entry 17"),
        ("/config/epochs", "--set epochs=..."),
        ("/student", "--student"),
        ("/metadata/team", "--metadata team=..."),
        ("/webhook/events/0", "/webhook/events/0 in the file of --spec"),
        ("/teacher/surprise", "/teacher/surprise in the file of --spec"),
        ("limit", "limit"),
        ("", "the request"),
    ],
)
def test_a_pointer_is_an_option(pointer: str, option: str) -> None:
    assert wording.option(pointer) == option


def test_each_fault_has_one_line_with_its_option() -> None:
    fault = {"code": "missing", "detail": "Field required"}
    message, hint = explanation(
        "invalid_spec",
        {"pointer": "/teacher/input_size", **fault},
        {"pointer": "/teacher/normalization", **fault},
        detail="/teacher/input_size: Field required (and 1 more)",
        hint="errors[] points at each field; the schema is at /schema.",
    )
    assert message == "--input-size: is missing\n--mean and --std: is missing"
    assert hint == "`nayer submit --help` describes each option."


def test_an_unknown_architecture_comes_with_the_command_that_lists_them() -> None:
    detail = "there is no architecture named 'timm/MobileNet_v9'; the nearest are mobilenet_v2"
    message, hint = explanation(
        "unknown_architecture",
        {"pointer": "/student/architecture", "code": "unknown_architecture", "detail": detail},
        hint="The names are listed at /architectures.",
    )
    assert message == f"--student: {detail}"
    assert "`nayer architectures QUERY`" in hint
    assert "`nayer architectures mobilenet`" in hint


def test_a_problem_without_fields_keeps_its_message() -> None:
    words = ("There is no job x.", "Jobs are listed at /jobs.")
    assert explanation("job_not_found", detail=words[0], hint=words[1]) == words


def test_an_unreachable_service_comes_with_the_command_and_the_option() -> None:
    message, hint = wording.explain(ServiceUnreachableError("http://here", "refused"))
    assert message == "Nothing answers at http://here (refused)."
    assert "`nayer serve`" in hint
    assert "--url" in hint


def test_other_errors_keep_their_message() -> None:
    assert wording.explain(DownloadCorruptError("download_corrupt", "a", "b")) == ("a", "b")


@pytest.mark.parametrize(
    ("sentence", "translation"),
    [
        ("Give teacher.architecture: timm/resnet18", "Give --architecture timm/resnet18"),
        (
            "Name the one that was trained: teacher.architecture: a/b or teacher.architecture: c/d",
            "Name the one that was trained: --architecture a/b or --architecture c/d",
        ),
        ("Give teacher.input_size: [1, 28, 28]", "Give --input-size 1,28,28"),
        ("check teacher.normalization and input_size.", "check --mean, --std and --input-size."),
        (
            "Set config.synthesis_batch_size to 16 and config.student_batch_size to 8: both fit. Or set"
            ' on_out_of_memory to "halve".',
            "Give --set synthesis_batch_size=16 and --set student_batch_size=8: both fit. Or give"
            " --on-out-of-memory halve.",
        ),
        ("Lower config.bank_capacity:", "Lower --set bank_capacity=...:"),
        ("Raise max_runtime_seconds,", "Raise --max-runtime,"),
        ("choose text_encoder 'sbert'.", "choose --text-encoder sbert."),
        ("Send it as the part 'embeddings'", "Send it with --embeddings"),
        (
            "Train one of the networks of GET /architectures,",
            "Train one of the networks of `nayer architectures`,",
        ),
    ],
)
def test_fields_in_a_hint_become_options(sentence: str, translation: str) -> None:
    assert wording.in_options(sentence) == translation


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ('sd = torch.load("teacher.pt", map_location="cpu")', 'torch.load("my net.pth", map_location'),
        (
            'sd = load_file("teacher.safetensors"); save_file(sd, "new_teacher.safetensors")',
            'load_file("my net',
        ),
        ('pickle.load(open("teacher.pkl", "rb")), "teacher.pt")', 'open("my net.pth", "rb")), "teacher.pt")'),
        ('old = zipfile.ZipFile("teacher.pt")', 'zipfile.ZipFile("my net.pth")'),
    ],
)
def test_a_line_of_python_reads_the_file_that_was_sent(line: str, changed: str) -> None:
    assert changed in wording.with_file(line, Path("my net.pth"))


def test_the_name_of_a_file_is_a_python_literal() -> None:
    path = Path('a"b\\c é.pt')
    line = wording.with_file('torch.load("teacher.pt")', path)
    assert ast.literal_eval(line.removeprefix("torch.load(").removesuffix(")")) == str(path)


def test_a_line_of_python_is_not_changed() -> None:
    line = 'import torch; sd = torch.load("teacher.pt", map_location="cpu")["state_dict"]'
    assert wording.in_options(line) == line


def test_an_agreement_is_told_with_its_interval_or_with_the_reason_why_it_is_unknown() -> None:
    known = {"value": 0.934, "low": 0.86, "high": 0.97, "basis": "estimated: from synthetic images"}
    sentence = "agreement with the teacher: 93% (86% to 97%), estimated: from synthetic images"
    assert wording.agreement({"estimated_agreement": known}) == sentence
    unknown = {"value": None, "low": None, "high": None, "basis": "unknown: images of 96 x 96 pixels"}
    sentence = "agreement with the teacher: unknown: images of 96 x 96 pixels"
    assert wording.agreement({"estimated_agreement": unknown}) == sentence
