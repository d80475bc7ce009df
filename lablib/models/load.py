"""Load a model and its tokenizer from a folder: safetensors only, no code from the folder, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM

from lablib.data.tokenizer import require
from lablib.models.folder import freeze, load_tokenizer, replace_folder
from lablib.models.pretrained import resolve
from lablib.runs import Recorder
from lablib.specs import Ref

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def input_model(run: Recorder, source: Ref | str) -> Path:
    """The folder of a recipe's model, verified and frozen in the run's manifest. Raises `LabError`."""
    return run.input(source if isinstance(source, Ref) else resolve(source))


def load_model(path: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model of a folder, on the accelerator where there is one."""
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def load_pair(path: Path, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, Any]:
    """(model, tokenizer) of a folder. Raises `LabError` where the tokenizer is not the one that the model learned from."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    require(config.get("tokenizer_hash"), path, f"model {path}")
    return load_model(path, dtype), load_tokenizer(path)


def save_pair(model: PreTrainedModel, tokenizer: Any, target: Path) -> Path:
    """Write model and tokenizer as one plain folder, in one step; the tokenizer's ends become the model's. Raises `LabError`
    for a tokenizer that the model did not learn from."""
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    aside = target.with_name(f".{target.name}.writing")
    tokenizer.save_pretrained(aside)
    freeze(model, aside)
    model.save_pretrained(aside)
    replace_folder(aside, target)
    return target
