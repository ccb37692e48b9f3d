"""A running service for a module of tests, and a teacher so small that its jobs take seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nayer_core.networks.registry import build
from tests.support.serving import Serving, start_serving


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    service = start_serving(tmp_path_factory.mktemp("serving"))
    yield service
    service.stop()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(build("wrn_10_1", num_classes=3, input_size=(1, 8, 8)).state_dict(), path)
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("cat\ndog\nbird\n")
    return path
