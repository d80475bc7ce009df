"""A tokenizer's folder, its hash, and the check that ids mean the same text on both sides.

A model's embedding rows are bound to its tokenizer's ids, so a tokenizer is frozen when the first model learns from it.
`tokenizer_hash` is written into the manifest of the data and the config of the model, and `require` compares.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lablib.data.tokenizer.special import CHAT_TEMPLATE, PAD, SEPARATOR, TURN_END
from lablib.specs import LabError, digest, write_atomic

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
MAX_LENGTH = 1_000_000_000
"""The tokenizer itself sets no limit; the model's config does."""


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a Hugging Face tokenizer folder that `AutoTokenizer` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / FILES[0], tokenizer.to_str(pretty=True))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
        "chat_template": CHAT_TEMPLATE,
        "eos_token": TURN_END,
        "pad_token": PAD,
        "bos_token": None,
        "unk_token": None,
    }
    write_atomic(folder / "tokenizer_config.json", json.dumps(config, indent=1))
    write_atomic(folder / "chat_template.jinja", CHAT_TEMPLATE)


def load(folder: str | Path) -> Tokenizer:
    """The tokenizer of a folder, set so that it never turns text into special tokens, nor into others that its vocabulary did
    not learn, such as Qwen3's ``<tool_call>``. Gemma's ``<table>`` was learnt, and stays. Raises `LabError`."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(_text(folder))
    except Exception as error:  # the library raises nothing narrower
        raise _damaged(folder, error) from None
    learnt = tokenizer.get_vocab(with_added_tokens=False)
    added = [token for token in tokenizer.get_added_tokens_decoder().values() if token.content not in learnt]
    for token in added:
        token.special = True
    tokenizer.add_special_tokens(added)
    tokenizer.encode_special_tokens = True
    return tokenizer


def copy(source: Path, target: Path) -> None:
    """Copy the tokenizer's files, and nothing else, byte for byte."""
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def document(folder: str | Path) -> dict[str, Any]:
    """``tokenizer.json`` of a folder. Raises `LabError` where it is missing or damaged."""
    try:
        found: dict[str, Any] = json.loads(_text(folder))
    except ValueError as error:
        raise _damaged(folder, error) from None
    return found


def _damaged(folder: str | Path, error: Exception) -> LabError:
    return LabError(
        f"{Path(folder) / FILES[0]} cannot be read: {error}; put the right file back, or prepare the data again"
    )


def _text(folder: str | Path) -> str:
    path = Path(folder) / FILES[0]
    if not path.is_file():
        raise LabError(f"There is no tokenizer in {folder} ({FILES[0]} is missing); prepare the data again")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(folder, error) from None


def tokenizer_hash(folder: str | Path) -> str:
    """16 hex digits of everything that decides which ids a text gets; templates and the form of the file play no part.

    Raises `LabError` where there is no tokenizer.
    """
    found = document(folder)
    model = {key: value for key, value in found["model"].items() if value not in (None, False)}
    model["merges"] = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges", ())]
    added = {item["content"]: item["id"] for item in found.get("added_tokens") or ()}
    return digest([model, added, found.get("normalizer"), found.get("pre_tokenizer")])


def require(expected: str | None, folder: str | Path, owner: str) -> None:
    """Stop unless the tokenizer in `folder` is the one that `owner` was made with; None (an older `owner`) is not checked.

    Raises `LabError` with both hashes.
    """
    if expected is None or (found := tokenizer_hash(folder)) == expected:
        return
    raise LabError(
        f"{owner} was made with tokenizer {expected}, but the one in {folder} is {found}: the same ids would stand for "
        f"other text. Put the right tokenizer back, or prepare the data with the model's own: Prepare(tokenizer=run.model)"
    )


def end_and_pad(tokenizer: Tokenizer, folder: str | Path) -> tuple[int, int]:
    """Ids that end a document and fill a window. A tokenizer from elsewhere fills with its separator where it has no
    ``<|pad|>``: filling is never learnt from. Raises `LabError` where it has no separator.
    """
    end = tokenizer.token_to_id(SEPARATOR)
    if end is None:
        raise LabError(f"the tokenizer in {folder} has no {SEPARATOR} to end documents with; add it, or train one")
    pad = tokenizer.token_to_id(PAD)
    return end, end if pad is None else pad
