"""A tiny chat model on disk: two layers, 64 wide, byte-level BPE with ChatML tokens. Seconds to train, real in every part."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_chat import make_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny base model (no chat template), the same for every test."""
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model")
