"""Export: the folder gives the logits it should, and anything else is refused."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lablib.models import export
from lablib.models.build import build_model
from lablib.models.folder import save_model
from lablib.runs import Recorder, Run
from lablib.specs import Export, LabError, ModelSpec

MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, kv_heads=2, ffn=160, vocab=300)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    ids = {"<|endoftext|>": 0, "<|im_end|>": 1, "<|pad|>": 2}
    ids |= {letter: number + 3 for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=ids, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def source(tmp_path: Path, tokenizer: Path) -> Path:
    save_model(build_model(MODEL, 0), tokenizer, tmp_path / "source")
    return tmp_path / "source"


def exported(tmp_path: Path, source: Path, dtype: str) -> Run:
    wanted = Export(model=str(source), dtype=dtype)
    run = Recorder.create(tmp_path / "runs", wanted)
    export.export_model(wanted, run)
    return Run.open(run.path)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=torch.arange(20)[None], use_cache=False).logits


def test_saved_folder_gives_the_same_logits(source: Path) -> None:
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(source)), logits(build_model(MODEL, 0).eval()))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_round_trip(tmp_path: Path, source: Path, dtype: str) -> None:
    run = exported(tmp_path, source, dtype)
    found, kind = load_file(run.artefact_path("model") / "model.safetensors"), export.DTYPES[dtype]
    wanted = build_model(MODEL, 0).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key].to(kind)) for key in wanted)
    change = run.manifest["notes"]["export"]["largest_logit_change_from_fp32"]
    assert change == 0 if dtype == "fp32" else 0 < change < 0.05
    assert AutoTokenizer.from_pretrained(run.artefact_path("model"))("a b").input_ids


def test_generation_ends_where_the_tokenizer_says(source: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(source)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == ([0, 1], 2)
    assert model.config.use_cache


def test_planted_damage_is_caught(tmp_path: Path, source: Path) -> None:
    real = export.save_model

    def damaging(model: torch.nn.Module, tokenizer: Path, target: Path) -> None:
        with torch.no_grad():
            model.lm_head.weight[0] += 1
            real(model, tokenizer, target)
            model.lm_head.weight[0] -= 1

    with patch.object(export, "save_model", damaging), pytest.raises(LabError, match="does not give the logits"):
        exported(tmp_path, source, "bf16")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(LabError, match="neither a model folder"):
        exported(tmp_path, tokenizer, "bf16")


def test_a_pickled_model_is_refused(tmp_path: Path, source: Path) -> None:
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        exported(tmp_path, source, "bf16")
