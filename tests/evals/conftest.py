"""The tiny chat model of the post-training tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "posttrain"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny base model (no chat template)."""
    from tiny_chat import make_tiny

    return make_tiny(tmp_path_factory.mktemp("tiny") / "model")
