"""What became of which cell: a plugin of pytest that gathers the marks `cell` and writes them as JSON.

python -m pytest -p tests.chaos.reporting --chaos-report FILE ...
"""

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-report", type=Path, help="where to write what became of which cell")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--chaos-report")
    if path is not None:
        config.pluginmanager.register(Report(path))


class Report:
    """Gathers the cells of all tests that are collected, and how those that ran ended.

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
                told = {"cell": name, "layer": layer, "test": item.nodeid, "outcome": "not run"}
                self.cells.setdefault(item.nodeid, []).append(told)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        failed = report.failed
        if failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)
        if report.when == "call":
            self.figures += report.user_properties
        for told in self.cells.get(report.nodeid, []):
            if failed:
                told["outcome"] = "failed"
            elif report.when == "call" and told["outcome"] == "not run":
                told["outcome"] = report.outcome

    def pytest_sessionfinish(self) -> None:
        cells = [told for found in self.cells.values() for told in found]
        report = {"cells": cells, "figures": self.figures, "failed": self.failed}
        self.path.write_text(json.dumps(report))
