"""Write a model as one plain Hugging Face folder: config, safetensors, tokenizer, nothing that needs the lab to load."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer
from transformers.utils import logging

from lablib.data.tokenizer import copy, require, tokenizer_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SEPARATOR = "<|endoftext|>"
"""Ends a document in pretraining."""


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a local folder, with no code from it and no network."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def save_model(model: PreTrainedModel, tokenizer: Path, target: Path, is_main: bool = True) -> None:
    """Write `target` in one step: gathered weights in one safetensors file (more above 50 GB) and `tokenizer`'s files.

    Every rank of a sharded model calls it; rank 0 writes. What lay at `target` is replaced only by a complete folder.
    Raises `LabError` for a model that learned from another tokenizer.
    """
    freeze(model, tokenizer)
    aside = target.with_name(f".{target.name}.writing")
    set_special_tokens(model, load_tokenizer(tokenizer))
    logging.disable_progress_bar()
    model.save_pretrained(aside, is_main_process=is_main)
    if is_main:
        copy(tokenizer, aside)
        replace_folder(aside, target)


def freeze(model: PreTrainedModel, tokenizer: Path) -> None:
    """Write the tokenizer's hash into the model's config; one that is there already must be the same. Raises `LabError`."""
    frozen = getattr(model.config, "tokenizer_hash", None)
    require(frozen, tokenizer, f"the {type(model).__name__}")
    model.config.tokenizer_hash = frozen or tokenizer_hash(tokenizer)


def set_special_tokens(model: PreTrainedModel, tokenizer: Any) -> None:
    """Generation ends at the tokenizer's end of turn and at the end of a document, and pads with its pad token."""
    ends = {tokenizer.eos_token_id, tokenizer.get_vocab().get(SEPARATOR)} - {None}
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.eos_token_id = sorted(ends) or None


def replace_folder(aside: Path, target: Path) -> None:
    """Put the finished folder `aside` in the place of `target`."""
    for file in aside.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
