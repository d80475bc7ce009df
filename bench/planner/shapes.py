"""From a row's columns to a `ModelSpec`: the catalogue's model, else the shape that comes nearest the published count."""

from __future__ import annotations

import csv
import re
from functools import lru_cache
from pathlib import Path

from bench.planner import shaping
from bench.planner.table import Row, Unplannable, real, whole, with_archs
from lablib.plan.params import count
from lablib.specs import ModelSpec, catalog

AGREES = 0.02
"""A shape is a row's model where the parameter counts differ by no more than this share."""
_COLUMNS = (
    "model", "arch", "name", "params_total", "params_active", "n_layers", "hidden", "n_heads", "n_kv_heads", "head_dim", "ffn",
    "vocab", "n_experts", "top_k", "moe_ffn", "n_shared", "dense_layers", "ffn_mats", "tied", "learned_pos", "attn", "seq_len",
)  # fmt: skip
DENSE = (
    (0.15e9, 12, 768, 12, 12), (0.5e9, 24, 1024, 16, 16), (1.2e9, 16, 2048, 32, 8), (3.2e9, 28, 3072, 24, 8),
    (8e9, 32, 4096, 32, 8), (13e9, 40, 5120, 40, 40), (20e9, 44, 6144, 48, 8), (32e9, 64, 5120, 40, 8), (70e9, 80, 8192, 64, 8),
    (175e9, 96, 12288, 96, 96), (405e9, 126, 16384, 128, 8), (1000e9, 128, 25600, 160, 160),
)  # fmt: skip
"""(parameters, layers, hidden, heads, kv_heads) of GPT-2, Pythia, Llama-3.2/3/2, GPT-NeoX, Qwen2.5, Llama-3, GPT-3, Llama-3.1 and
Megatron-1T: a row with a size alone takes the nearest depth and width (in logarithm) and a feed-forward that makes up its count."""
SPARSE = (
    (7e9, 1.3e9, 16, 2048, 16, 16, 64, 8, 0), (30e9, 3.3e9, 48, 2048, 32, 4, 128, 8, 0), (47e9, 13e9, 32, 4096, 32, 8, 8, 2, 0),
    (107e9, 13e9, 46, 4096, 96, 8, 128, 8, 1), (109e9, 17e9, 48, 5120, 40, 8, 16, 1, 1), (141e9, 39e9, 56, 6144, 48, 8, 8, 2, 0),
    (235e9, 22e9, 94, 4096, 64, 4, 128, 8, 0), (671e9, 37e9, 61, 7168, 128, 128, 256, 8, 1), (1026e9, 33e9, 61, 7168, 64, 64, 384, 8, 1),
)  # fmt: skip
"""(total, active, layers, hidden, heads, kv_heads, experts, top_k, shared) of OLMoE, Qwen3-30B-A3B, Mixtral-8x7B, GLM-4.5-Air,
Llama-4-Scout, Mixtral-8x22B, Qwen3-235B-A22B, DeepSeek-V3 and Kimi-K2."""


def model_of(row: Row, archs: list[Row] | None = None) -> ModelSpec:
    """The row's model. Raises `Unplannable` where neither a shape nor a size can be made out."""
    return shape_of(row, archs)[0]


def shape_of(row: Row, archs: list[Row] | None = None) -> tuple[ModelSpec, str]:
    """The row's model, and what had to be assumed of it ("" where nothing).

    `archs` are the rows of archs.csv, unless `with_archs` already joined them on. Raises `Unplannable`.
    """
    joined = with_archs([row], archs)[0] if archs else row
    key = tuple(joined.get(name) or joined.get(f"arch.{name}") or "" for name in _COLUMNS)
    try:
        return _shape(key)
    except (ValueError, ArithmeticError) as error:
        raise Unplannable(f"its columns make no model: {str(error).splitlines()[0]}") from None


@lru_cache(maxsize=4096)
def _shape(values: tuple[str, ...]) -> tuple[ModelSpec, str]:
    row = dict(zip(_COLUMNS, values, strict=True))
    name = slug(row["model"] or row["arch"] or row["name"])
    seq, total = whole(row, "seq_len", 2048), real(row, "params_total") or None
    for key in (slug(row["arch"]), name):
        if key in catalog.models and _same(catalog.models[key], row, total):
            return _longer(catalog.models[key], seq), ""
    if real(row, "n_layers") and real(row, "hidden"):
        return shaping.built(row, name)
    return _named(row, name) or _typical(row, name)


def slug(name: str) -> str:
    """A model's name as the catalogue spells it: "Llama 3 8B" is llama-3-8b."""
    return re.sub(r"[\s_]+", "-", name.strip().lower()).removeprefix("mlm-ci:")


def _same(model: ModelSpec, row: Row, total: float | None) -> bool:
    layers = real(row, "n_layers")
    if layers and layers != model.layers:
        return False
    return total is None or abs(count(model).total / total - 1) <= AGREES


def _longer(model: ModelSpec, seq: int) -> ModelSpec:
    if seq <= model.max_seq_len:
        return model
    if model.positions == "learned":
        return model.replace(positions="alibi", max_seq_len=seq)
    return model.replace(max_seq_len=seq)


@lru_cache(maxsize=1)
def _shapes() -> dict[str, Row]:
    text = Path(__file__).with_name("shapes.csv").read_text(encoding="utf-8")
    return {row["model"]: row for row in csv.DictReader(text.splitlines())}


def _named(row: Row, name: str) -> tuple[ModelSpec, str] | None:
    """A published model that the row names without its architecture (shapes.csv)."""
    plain = _bare(name)
    found = next((shape for key, shape in _shapes().items() if plain.startswith(_bare(key))), None)
    if not found:
        return None
    model, _ = shaping.built({**dict.fromkeys(_COLUMNS, ""), **found, "seq_len": row["seq_len"]}, slug(found["model"]))
    return model, f"architecture after {found['source']}"


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.replace("(enc-dec)", ""))


def _typical(row: Row, name: str) -> tuple[ModelSpec, str]:
    """A model of the row's size where nothing else is known of it."""
    total, active = real(row, "params_total"), real(row, "params_active")
    if not total:
        total, active = sizes(name)
    if not total:
        raise Unplannable(f"neither an architecture nor a size is known of {name or 'the model'}")
    active = active or total
    guess: dict[str, object] = {"params_total": total, "params_active": active}
    if active < 0.9 * total:
        nearest = min(SPARSE, key=lambda m: _apart(m[0], total) + _apart(m[1], active))
        names: tuple[str, ...] = ("n_layers", "hidden", "n_heads", "n_kv_heads", "n_experts", "top_k", "n_shared")
        guess.update(zip(names, nearest[2:], strict=True))
    else:
        guess.update(zip(("n_layers", "hidden", "n_heads", "n_kv_heads"), min(DENSE, key=lambda m: _apart(m[0], total))[1:], strict=True))  # fmt: skip
    filled = {**row, **{key: f"{value}" for key, value in guess.items()}, "tied": "0", "ffn_mats": "3"}
    filled["head_dim"] = str(whole(filled, "hidden") // whole(filled, "n_heads"))
    model, _ = shaping.built(filled, name)
    return model, f"typical shape of {total / 1e9:.3g}B parameters: {model.layers} layers of {model.hidden}"


def _apart(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def sizes(name: str) -> tuple[float | None, float | None]:
    """(total, active) parameters that a name states: "qwen3-30b-a3b", "bloomz-7b1", "pythia-70m", "mixtral-8x7b"."""
    active = re.search(r"a(\d+(?:\.\d+)?)b(?![a-z])", name)
    rest = name.replace(active.group(0), " ") if active else name
    experts = re.search(r"(\d+)x(\d+(?:\.\d+)?)b(?![a-z])", rest)
    if experts:
        return float(experts.group(1)) * float(experts.group(2)) * 0.83e9, float(experts.group(2)) * 1.8e9
    found = re.findall(r"(?<![\d.])(\d+(?:\.\d+)?)(b|m)(\d?)(?![a-z\d])", rest)
    if not found:
        return None, None
    number, unit, tenth = found[-1]
    total = (float(number) + (float(tenth) / 10 if tenth else 0)) * (1e9 if unit == "b" else 1e6)
    return total, float(active.group(1)) * 1e9 if active else None
