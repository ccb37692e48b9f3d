"""The tiers of tests (`tests/tiers.py`) are what CONTRIBUTING.md and the Makefile say they are."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.tiers import PLACES, SERVER_FIXTURES

ROOT = Path(__file__).parents[1]

# A fixture that starts a server calls one of these; all are defined in tests/support or cli.
_STARTS_A_SERVER = re.compile(r"\bEmbedded\w+\(|\bPopen\(|\bstart_serving\(|\brunning_stack\(|\bFleet\(")


def markers_of_pyproject() -> set[str]:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    return {re.split(r"[:(]", line)[0] for line in options["markers"]}


def test_the_markers_of_the_guide_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    selected = set(re.findall(r"-m pytest .*-m '?(\w+)", text))
    assert rows == {"unit", *PLACES, "chaos"}
    assert rows | selected <= markers_of_pyproject()


def test_each_place_of_a_tier_exists() -> None:
    for place in (place for places in PLACES.values() for place in places):
        file, _, function = place.partition("::")
        path = ROOT / "tests" / file
        assert path.exists(), place
        assert not function or re.search(rf"^def {function}\(", path.read_text(), re.MULTILINE), place


def test_every_test_has_one_tier(request: pytest.FixtureRequest) -> None:
    tiers = {"unit", "chaos", *PLACES}
    for item in request.session.items:
        assert len(tiers & {mark.name for mark in item.iter_markers()}) == 1, item.nodeid


def test_no_unit_test_asks_for_a_server(request: pytest.FixtureRequest) -> None:
    """Its fixtures are read too, so that one with a new name is noticed."""
    for item in request.session.items:
        if item.get_closest_marker("unit") is None or not isinstance(item, pytest.Function):
            continue
        assert not SERVER_FIXTURES & set(item.fixturenames), item.nodeid
        for definitions in item._fixtureinfo.name2fixturedefs.values():
            used = definitions[-1].func.__code__.co_names
            called = " ".join(f"{name}(" for name in used)
            assert not _STARTS_A_SERVER.search(called), f"{item.nodeid} uses {definitions[-1].argname}"


def test_the_target_of_make_selects_the_unit_tests() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^test-unit: .*\n\t.* -m pytest -m unit$", makefile, re.MULTILINE)
    assert re.search(r"^test: .*\n\t.* -m pytest$", makefile, re.MULTILINE)


def test_a_unit_test_cannot_start_a_program() -> None:
    with pytest.raises(pytest.fail.Exception, match="is a unit test"):
        subprocess.run(["/bin/true"], check=True)
