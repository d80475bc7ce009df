"""Where a pretraining run's tokens and tokenizer come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from lablib.runs import Recorder
from lablib.specs import LabError, Prepare, Pretrain, Ref
from lablib.train.distributed import World


@dataclass(frozen=True)
class Source:
    """Two folders: token shards and the tokenizer that made them."""

    data: Path
    tokenizer: Path


def find_source(recipe: Pretrain, run: Recorder, world: World) -> Source | None:
    """The recipe's data, verified by checksum on rank 0; a corpus' name is first prepared inside this run.

    None where the run was asked to stop while it prepared.

    Raises `LabError` where the input is missing, or where the model's vocabulary is smaller than the tokenizer's.
    """
    data, tokenizer = world.from_main(lambda: _find(recipe, run))
    if not Path(data).is_dir():
        return None
    source = Source(Path(data), Path(tokenizer))
    size = len(_vocabulary(source.tokenizer))
    if size > recipe.model.vocab:
        raise LabError(f"model.vocab={recipe.model.vocab} is smaller than the tokenizer's {size} tokens; set model.vocab to {size} or more")  # fmt: skip
    return source


def _find(recipe: Pretrain, run: Recorder) -> tuple[str, str]:
    if isinstance(recipe.data, Ref):
        return str(run.input(recipe.data)), str(run.input(recipe.data.replace(artefact="tokenizer")))
    if not (run.path / "data" / "manifest.json").is_file():
        from lablib.data.prepare import prepare

        run.enter("preparing data")
        prepare(Prepare(corpus=recipe.data, mixture=recipe.mixture, vocab=recipe.model.vocab, seed=recipe.seed), run)
    return str(run.path / "data"), str(run.path / "tokenizer")


def _vocabulary(tokenizer: Path) -> dict[str, int]:
    document = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    added = {item["content"]: item["id"] for item in document.get("added_tokens", [])}
    return {**document["model"]["vocab"], **added}


def token_bytes(tokenizer: Path, vocab: int) -> torch.Tensor:
    """Bytes of text that each token id stands for, int64 (vocab,); special and unused ids stand for none.

    A byte-level tokenizer writes each byte of a token as one character (GPT-2's alphabet), so a token's length is its bytes.
    Raises `LabError` for a tokenizer of another kind.
    """
    document = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    if (document.get("decoder") or {}).get("type") != "ByteLevel":
        raise LabError(
            f"{tokenizer} is not a byte-level tokenizer, so bits per byte cannot be told; use the lab's Prepare"
        )
    special = {item["id"] for item in document.get("added_tokens", [])}
    lengths = torch.zeros(vocab, dtype=torch.int64)
    for token, number in document["model"]["vocab"].items():
        lengths[number] = 0 if number in special else len(token)
    return lengths
