"""What most tests of training begin with: a folder for a module's runs, and prepared data in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import prepare_data

from lablib.specs import Ref


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the module's runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(root: Path) -> Ref:
    """The data of a preparation in `root`."""
    return prepare_data(root)
