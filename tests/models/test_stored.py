"""A model folder read into a laid-out model: what transformers reads, in every family and way of storing, or an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_seeded import FAMILIES, spec
from transformers import AutoModelForCausalLM

from lablib.models.build import build_model, give_memory, initialise_derived
from lablib.models.seeded import skeleton
from lablib.models.stored import pour
from lablib.specs import LabError, ModelSpec


def poured(wanted: ModelSpec, folder: Path) -> Any:
    """On one process, from memory that holds no numbers."""
    model = skeleton(wanted)
    give_memory(model, "cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(float("nan"))
    initialise_derived(model, wanted)
    pour(model, skeleton(wanted), folder)
    return model


def same(one: Any, other: Any) -> bool:
    """Parameters and buffers, bit for bit."""
    found, wanted = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (one, other))
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def peer(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_transformers_reads(family: str, tmp_path: Path) -> None:
    """The experts lie apart in the folder, and one stack a layer in the model."""
    build_model(spec(family), 5).save_pretrained(tmp_path)
    assert same(poured(spec(family), tmp_path), peer(tmp_path))


def test_several_files_in_bf16_of_a_tied_model(tmp_path: Path) -> None:
    tied = spec("llama").replace(tied_embeddings=True)
    build_model(tied, 5).to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    found = poured(tied, tmp_path)
    assert same(found, peer(tmp_path)) and found.lm_head.weight is found.model.embed_tokens.weight


def test_experts_that_lie_stacked(tmp_path: Path) -> None:
    """As a merge of checkpoints leaves them."""
    model = build_model(spec("qwen3_moe"), 5)
    model.config.save_pretrained(tmp_path)
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert same(poured(spec("qwen3_moe"), tmp_path), model) and same(model, peer(tmp_path))


def test_names_of_the_decoder_alone(tmp_path: Path) -> None:
    """GPT-2's own files have no ``transformer.``, and hold its causal mask."""
    model = build_model(spec("gpt2"), 5)
    names = {
        name.removeprefix("transformer."): one for name, one in model.state_dict().items() if name != "lm_head.weight"
    }
    model.config.save_pretrained(tmp_path)
    save_file({**names, "h.0.attn.bias": torch.ones(4)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert same(poured(spec("gpt2"), tmp_path), model) and same(model, peer(tmp_path))


def test_a_head_that_a_tied_model_would_lose_is_an_error(tmp_path: Path) -> None:
    tied = spec("llama").replace(tied_embeddings=True)
    build_model(tied, 5).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    head = tensors["model.embed_tokens.weight"].clone()
    save_file({**tensors, "lm_head.weight": head}, file, metadata={"format": "pt"})
    assert same(poured(tied, tmp_path), build_model(tied, 5))
    head[-1, -1] += 1
    save_file({**tensors, "lm_head.weight": head}, file, metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lm_head\.weight is another matrix than model\.embed_tokens\.weight.*tied_embeddings"
    ):
        poured(tied, tmp_path)


_EXPERT = "model.layers.1.mlp.experts.2.up_proj.weight"
_WRONG = {
    "missing: model.norm.weight": lambda t: t.pop("model.norm.weight"),
    "unexpected: model.layers.2.mlp.gate.weight": lambda t: t.update({"model.layers.2.mlp.gate.weight": torch.ones(4, 64)}),
    r"lm_head.weight: \(199, 64\) there, \(200, 64\) in the model": lambda t: t.update({"lm_head.weight": torch.ones(199, 64)}),
    "its experts are not alike": lambda t: t.pop(_EXPERT),
    "not alike": lambda t: t.update({_EXPERT: torch.ones(47, 64)}),
    r"down_proj: \(5, 64, 48\) there, \(4, 64, 48\)": lambda t: t.update(
        {f"model.layers.0.mlp.experts.4.{name}_proj.weight": torch.ones(shape) for name, shape in
         {"down": (64, 48), "up": (48, 64), "gate": (48, 64)}.items()}
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", _WRONG)
def test_another_shape_is_an_error(message: str, tmp_path: Path) -> None:
    build_model(spec("qwen3_moe"), 5).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    _WRONG[message](tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        poured(spec("qwen3_moe"), tmp_path)


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LabError, match="only safetensors are read"):
        poured(spec("llama"), tmp_path)


def test_files_that_the_index_does_not_name_are_left(tmp_path: Path) -> None:
    """As beside Mistral's weights lie the same under other names."""
    build_model(spec("llama"), 5).save_pretrained(tmp_path, max_shard_size="100KB")
    shutil.copy(next(tmp_path.glob("model-*")), tmp_path / "consolidated.safetensors")
    assert "consolidated.safetensors" not in json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"].values()  # fmt: skip
    assert same(poured(spec("llama"), tmp_path), peer(tmp_path))
