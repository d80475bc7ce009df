"""Human two-party chat: 7,168 conversations from the `chitchat-dataset` package (MIT)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lablib.data.packages import Package, members
from lablib.data.sources.pinned import Pinned

CHITCHAT = Package(
    "chitchat-dataset",
    "0.9.0",
    "chitchat_dataset-0.9.0-py3-none-any.whl",
    "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
    8_105_664,
    "MIT",
)
FEWEST_MESSAGES = 4
"""Shorter conversations are greetings without an answer (3,018 of 7,168)."""


def read_chats(package: Package) -> Iterator[tuple[str, str]]:
    """Each conversation as lines ``A: …``, ``B: …`` in order of speaking."""
    for _, data in members(package.path, r"^chitchat_dataset/dataset\.json$"):
        for key, chat in sorted(json.loads(data).items()):
            lines = list(_lines(chat))
            if len(lines) >= FEWEST_MESSAGES:
                yield key, "\n".join(lines)


def _lines(chat: dict[str, Any]) -> Iterator[str]:
    speakers: dict[str, str] = {}
    for message in (message for turn in chat["messages"] for message in turn):
        name = speakers.setdefault(message["sender"], "ABCDEFGH"[min(len(speakers), 7)])
        yield f"{name}: {message['text'].strip()}"


DIALOGUE = Pinned("dialogue", (CHITCHAT,), read_chats)
