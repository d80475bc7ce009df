"""What bytes each token stands for: bits per byte and new embedding rows need to know."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lablib.data.tokenizer.folder import document
from lablib.specs import LabError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def letters() -> dict[str, int]:
    """GPT-2's alphabet: a printable character for each byte (openai/gpt-2, `encoder.py`, `bytes_to_unicode`)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


def spellings(folder: str | Path) -> dict[int, bytes]:
    """Id → UTF-8 bytes of every token that stands for text; special tokens are left out.

    Byte-level tokenizers of any algorithm and SentencePiece's with byte fallback are known; raises `LabError` for others.
    """
    found = document(folder)
    added = {item["id"] for item in found.get("added_tokens") or ()}
    model, steps = found["model"], _steps(found.get("decoder"))
    rows = model["vocab"] if isinstance(model["vocab"], list) else model["vocab"].items()
    numbered = enumerate(token for token, _ in rows) if isinstance(model["vocab"], list) else ((n, t) for t, n in rows)
    if "ByteLevel" in steps:
        inside = model.get("continuing_subword_prefix") or "" if model["type"] == "WordPiece" else ""
        table = letters()
        return {n: bytes(table[c] for c in token.removeprefix(inside)) for n, token in numbered if n not in added}
    if "ByteFallback" in steps:
        return {number: _pieced(token) for number, token in numbered if number not in added}
    raise LabError(
        f"{folder}: its decoder ({', '.join(steps) or 'none'}) is neither byte-level nor with byte fallback, so nobody can "
        "tell which bytes a token stands for; use a tokenizer of the lab's Prepare"
    )


def lengths(folder: str | Path, vocab: int) -> NDArray[np.int64]:
    """(vocab,): bytes of text that each id stands for; special and unused ids stand for none. Raises `LabError`."""
    found = np.zeros(vocab, dtype=np.int64)
    for number, spelled in spellings(folder).items():
        found[number] = len(spelled)
    return found


def _steps(decoder: dict[str, Any] | None) -> list[str]:
    parts = (decoder or {}).get("decoders") or [decoder or {}]
    return [part["type"] for part in parts if "type" in part]


def _pieced(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
