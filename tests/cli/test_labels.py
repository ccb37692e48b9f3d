"""Class names from files of many forms: read correctly, or refused."""

from pathlib import Path

import pytest

from cli.errors import RequestError
from cli.labels import read_labels

CAT_DOG = ["cat", "dog"]


def write(folder: Path, content: str | bytes, suffix: str = ".txt") -> Path:
    path = folder / f"labels{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(RequestError) as raised:
        read_labels(path)
    assert raised.value.code == "labels_unreadable"
    assert raised.value.hint
    return raised.value.message


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("cat\ndog\n", id="lines"),
        pytest.param("\ufeffcat\r\n\r\n dog \r\n", id="byte order mark, CRLF, blanks"),
        pytest.param("cat\rdog", id="line ends of old Macs"),
        pytest.param("cat\ndog\n".encode("utf-16"), id="UTF-16 with a mark"),
        pytest.param("\ufeffcat\ndog".encode("utf-16-be"), id="UTF-16, big-endian"),
        pytest.param('["cat", "dog"]', id="JSON list"),
        pytest.param("['cat', 'dog',]", id="Python list"),
        pytest.param("classes = ('cat',\n           'dog')\n", id="Python tuple with a name"),
        pytest.param("{0: 'cat',\n 1: 'dog'}\n", id="Python dict"),
        pytest.param('{"1": "dog", "0": "cat"}', id="JSON object of indices, out of order"),
        pytest.param('{"0": ["n02121808", "cat"], "1": ["n02084071", "dog"]}', id="class index"),
        pytest.param('{"cat": 0, "dog": 1}', id="class to index"),
        pytest.param('{"id2label": {"0": "cat", "1": "dog"}, "model_type": "vit"}', id="config of the hub"),
        pytest.param('{"architecture": "resnet18", "label_names": ["cat", "dog"]}', id="config of timm"),
        pytest.param("0 cat\n1 dog", id="numbered from 0"),
        pytest.param("1: dog\n0: cat", id="numbered, out of order"),
        pytest.param("1. cat\n2. dog", id="numbered from 1"),
        pytest.param("0\tcat\n1\tdog", id="numbered with tabs"),
        pytest.param("cat 0\ndog 1", id="numbers behind"),
        pytest.param("cat: 0\ndog: 1", id="YAML of numbers"),
        pytest.param("- cat\n- 'dog'\n", id="YAML list"),
        pytest.param("---\nnames:\n  - cat\n  - dog\n", id="YAML list with a key"),
        pytest.param("names:\n  0: cat\n  1: dog\n", id="YAML mapping"),
        pytest.param("index,name\n0,cat\n1,dog\n", id="CSV with a heading"),
        pytest.param("name;index\ncat;0\ndog;1\n", id="CSV, names first"),
        pytest.param("'cat',\n'dog',\n", id="quoted lines"),
        pytest.param("n02121808 cat\nn02084071 dog\n", id="WordNet ids"),
        pytest.param("cat, dog", id="one line with commas"),
    ],
)
def test_usual_forms_give_the_class_names(content: str | bytes, tmp_path: Path) -> None:
    assert read_labels(write(tmp_path, content)).names == CAT_DOG


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param('{"a": 1', "neither", id="broken JSON"),
        pytest.param('["cat", 3]', "entry 1 of the list, 3,", id="a number in a list"),
        pytest.param('["cat", "", "dog"]', "entry 1 of the list, '',", id="an empty name in a list"),
        pytest.param('[["cat"], ["dog"]]', "entry 0", id="lists in a list"),
        pytest.param('[{"id": 0, "name": "cat"}]', "entry 0", id="objects in a list"),
        pytest.param('{"1": "dog", "2": "cat"}', "not 0 to 1", id="indices from 1"),
        pytest.param('{"0": "cat", "0": "dog"}', "twice", id="a key twice"),
        pytest.param('{"0": "cat", "00": "dog"}', "not 0 to 1", id="an index in two spellings"),
        pytest.param("[cat, dog]", "neither", id="YAML list in brackets"),
        pytest.param("names: ['cat', 'dog']", "does not look like", id="YAML list behind a key"),
        pytest.param("path: a\nnc: 2\nnames:\n - cat\n - dog", "does not look like", id="YAML of a data set"),
        pytest.param("names:\ncat\ndog", "looks like YAML", id="a key without a list"),
        pytest.param("label\ncat\ndog", "heading", id="a heading"),
        pytest.param("id,name,count\n0,cat,5\n1,dog,7", "table of 3 columns", id="a table of three columns"),
        pytest.param("cat, black\ndog, brown", "table of 2 columns", id="a comma in every line"),
        pytest.param("5 cat\n7 dog\n9 bird", "neither 0 to 2 nor 1 to 3", id="numbers with gaps"),
        pytest.param("# animals\ncat\ndog", "the line '# animals'", id="a comment"),
        pytest.param("<labels>\n<label>cat</label>", "the line '<labels>'", id="XML"),
        pytest.param("item {\n  name: 'cat'\n}", "the line 'item {'", id="a text of protobuf"),
        pytest.param("cat\n{1: 'dog',", 'the line "{1', id="a line of a dict"),
        pytest.param("", "empty", id="nothing"),
        pytest.param("cat\nKühe".encode("cp1252"), "line 2 has the byte 0xfc", id="Windows-1252"),
        pytest.param("cat\ndog".encode("utf-16-le"), "zero bytes", id="UTF-16 without a mark"),
        pytest.param(b"PK\x03\x04\x00\xff", "UTF-8", id="an archive"),
    ],
)
def test_a_text_that_looks_like_another_form_is_refused(
    content: str | bytes, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path, content)
    assert reason in refusal(path)
    assert str(path) in refusal(path)


@pytest.mark.parametrize(
    "names",
    [
        ["0", "1", "2"],
        ["1 euro", "2 euro", "5 euro"],
        ["tench, Tinca tinca", "goldfish", "shark, great, white"],
        ["jack-o'-lantern", "(background)", "90's car", "C++", "R&B / soul", "U.S. mail"],
        ["münchen", "猫", "🐕", "a\u2028b"],
        ["model 3", "model 5", "model s"],
    ],
)
def test_unusual_names_are_read_one_a_line(names: list[str], tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "\n".join(names)))
    assert labels.names == names
    assert labels.form is None


def test_a_json_list_takes_names_of_any_form(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, '["{cat}", "# dog", "label", "3 birds,"]'))
    assert labels.names == ["{cat}", "# dog", "label", "3 birds,"]


def test_the_heading_of_a_table_of_one_column_is_no_name(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "label\ncat\ndog\n", suffix=".csv"))
    assert labels.names == CAT_DOG
    assert "heading" in str(labels)


def test_a_thousand_lines_of_a_dict_are_a_thousand_labels(tmp_path: Path) -> None:
    """The form of the well-known list of ImageNet's classes: one entry a line."""
    entries = [f"{index}: 'name {index}, other name'" for index in range(1000)]
    labels = read_labels(write(tmp_path, "{" + ",\n ".join(entries) + "}"))
    assert len(labels.names) == 1000
    assert labels.names[999] == "name 999, other name"
    assert str(labels) == (
        "1000 labels read from an object of Python: 'name 0, other name' to 'name 999, other name'"
    )


@pytest.mark.parametrize(
    "line", ["{index}: {name}", "{index} {name}", "{index}\t{name}", '"{index}": "{name}",', "{name} {index}"]
)
def test_numbered_labels_may_repeat_as_imagenets_do(line: str, tmp_path: Path) -> None:
    names = [f"class {chr(97 + index // 26)}{chr(97 + index % 26)}" for index in range(60)]
    names[7] = names[31] = "crane"
    names[8] = names[40] = "maillot"
    lines = [line.format(index=index, name=name) for index, name in enumerate(names)]
    text = "{" + "\n".join(lines) + "}" if line.startswith('"') else "\n".join(lines)
    assert read_labels(write(tmp_path, text)).names == names
