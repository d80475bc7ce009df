"""One browser for all tests of the face."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import browsing
import made

from lablib.runs import Run


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A real browser, started once."""
    with browsing.browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Data, pretraining and SFT, finished, and a run that failed with hostile words. Read only."""
    root = tmp_path_factory.mktemp("runs")
    return [*made.chain(root), made.failed(root)]
