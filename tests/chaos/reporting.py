"""A pytest plugin that collects the marks `cell` and writes the outcome of each cell as JSON.

python -m pytest -p tests.chaos.reporting --chaos-report FILE ...
"""

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-report", type=Path, help="where to write the outcome of each cell")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--chaos-report")
    if path is not None:
        config.pluginmanager.register(Report(path))


class Report:
    """Collects the cells of all tests, and the outcomes of those that ran.

    Args:
        path: the file written at the end: {"cells": [{"cell", "layer", "test", "outcome"}],
            "figures": [[name, value]], "failed": [test]}.
    """

    def __init__(self, path: Path):
        self.path = path
        self.cells: dict[str, list[dict[str, Any]]] = {}
        self.figures: list[tuple[str, object]] = []
        self.failed: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("cell"):
                name, layer = mark.args
                entry = {"cell": name, "layer": layer, "test": item.nodeid, "outcome": "not run"}
                self.cells.setdefault(item.nodeid, []).append(entry)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        failed = report.failed
        if failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)
        if report.when == "call":
            self.figures += report.user_properties
        for entry in self.cells.get(report.nodeid, []):
            if failed:
                entry["outcome"] = "failed"
            elif report.when == "call" and entry["outcome"] == "not run":
                entry["outcome"] = report.outcome

    def pytest_sessionfinish(self) -> None:
        cells = [entry for entries in self.cells.values() for entry in entries]
        report = {"cells": cells, "figures": self.figures, "failed": self.failed}
        self.path.write_text(json.dumps(report))
