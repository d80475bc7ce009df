"""Rotary positions to and from transformers' configs: its kinds that a `ModelSpec` carries, the others refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lablib.specs.errors import LabError
from lablib.specs.families import FAMILIES, Traits
from lablib.specs.rope import RopeScaling

if TYPE_CHECKING:
    from lablib.specs.model import ModelSpec

_LONG = ("factor", "original_max_position_embeddings")
_OWN: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": _LONG,
    "yarn": (*_LONG, "mscale", "mscale_all_dim"),
    "llama3": (*_LONG, "low_freq_factor", "high_freq_factor"),
}
"""The settings of each kind that a `RopeScaling` carries."""
_USUAL = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
"""What others must be where they are given at all: transformers' defaults for YaRN."""
_LOCAL = {"rope_theta": 10000.0, "rope_type": "default"}
"""Gemma 3's windowed layers."""


class PositionsError(LabError):
    """A config's rotary positions are of a kind that a `ModelSpec` does not carry."""


def positions(config: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """The base and the stretch of a config's rotary positions (of global layers), under both of the names that transformers has
    had for them. The length that "linear" counts from, which transformers does not ask for, is taken from where `to_hf` writes it;
    other programs' configs lack it, and the longest length over the factor stands for it. Raises `PositionsError` for a
    kind or a setting that a `ModelSpec` does not carry."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = dict(given.get("full_attention") or given)
    kind = rope.pop("rope_type", None) or rope.get("type") or "default"
    theta = rope.pop("rope_theta", None) or config.get("rope_theta") or 10000.0
    if kind not in _OWN:
        raise PositionsError(f"rope_type={kind!r}: a ModelSpec carries {', '.join(_OWN)}; describe the nearest one as a ModelSpec")  # fmt: skip
    _refuse_others(config, given, rope, kind)
    if kind == "default":
        return float(theta), None
    if not rope.get("factor"):
        raise PositionsError(f"rope_type={kind!r} has no factor; add it to rope_parameters in the model's config.json")
    whole = config["max_position_embeddings"]
    original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    guess = round(whole / rope["factor"]) if kind == "linear" else whole
    more = {name: rope[name] for name in _OWN[kind][2:] if rope.get(name) is not None}
    return float(theta), RopeScaling(kind=kind, factor=rope["factor"], original=original or guess, **more)


def _refuse_others(config: dict[str, Any], given: dict[str, Any], rope: dict[str, Any], kind: str) -> None:
    family = config.get("model_type")
    usual = {**_USUAL, "partial_rotary_factor": FAMILIES.get(str(family), Traits()).turned, "type": kind}
    told = {"partial_rotary_factor": config.get("partial_rotary_factor"), **rope}
    wrong = {
        name: value for name, value in told.items() if name not in _OWN[kind] and value not in (None, usual.get(name))
    }
    if family == "gemma3_text":
        local = {"rope_theta": config.get("rope_local_base_freq"), **(given.get("sliding_attention") or {})}
        wrong |= {f"sliding_attention.{name}": value for name, value in local.items() if value not in (None, _LOCAL.get(name))}  # fmt: skip
    for name, value in wrong.items():
        raise PositionsError(f"rope_parameters.{name}={value!r}: a ModelSpec has no such setting yet; the model would be another in silence")  # fmt: skip


def rope_settings(model: ModelSpec) -> dict[str, Any]:
    """The settings of a transformers config that say the positions of `model`."""
    settings: dict[str, Any] = {"rope_parameters": _rope_parameters(model)}
    if model.rope_scaling and model.rope_scaling.kind == "linear":
        settings["original_max_position_embeddings"] = model.rope_scaling.original
    return settings


def _rope_parameters(model: ModelSpec) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_theta": model.rope_theta, "rope_type": "default"}
    if scaling := model.rope_scaling:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        rope |= {"original_max_position_embeddings": scaling.original} if scaling.kind != "linear" else {}
        more = ((name, getattr(scaling, name)) for name in _OWN[scaling.kind][2:])
        rope |= {name: value for name, value in more if value is not None}
    if model.traits.turned < 1:
        rope["partial_rotary_factor"] = model.traits.turned
    return {"full_attention": rope, "sliding_attention": dict(_LOCAL)} if model.family == "gemma3" else rope
