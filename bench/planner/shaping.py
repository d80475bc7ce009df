"""A `ModelSpec` from layers, widths and heads: what the columns leave open is settled by the published parameter count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from bench.planner.table import Row, Unplannable, real, whole
from lablib.plan.params import count
from lablib.specs import MLA, ModelSpec, MoE

_NEAR = 0.02
"""Beyond this share of the published count, the feed-forward's width is taken to make it up."""
VOCABULARIES = (
    (r"deepseek", 129280), (r"mixtral|mistral|llama-?[12]\b|llama2", 32000), (r"llama-?[34]", 128256), (r"qwen", 151936),
    (r"gpt|megatron|mlm", 50304), (r"bloom", 250880),
)  # fmt: skip
"""By the model's name where the row has none; 50304 is GPT-2's 50257 padded to 128, as Megatron does."""
_TWO_MATRICES = re.compile(
    r"gpt|bloom|mpt|opt|falcon|nemotron|pythia|neox|megatron|mt-nlg|gopher|starcoder|proxy-dense"
)
_ALIBI = re.compile(r"bloom|mpt|alibi")
_FAMILIES = (
    (r"qwen-?3", "qwen3"), (r"qwen-?2", "qwen2"), (r"olmo-?[23]", "olmo2"), (r"gemma-?3", "gemma3"),
    (r"gemma-?2", "gemma2"), (r"gemma", "gemma"),
)  # fmt: skip
DEEPSEEK = {
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}
"""Latent attention of DeepSeek-V2 and -V3 (arXiv 2405.04434 section 3.1.2), which Kimi-K2 took over."""


def built(row: Row, name: str) -> tuple[ModelSpec, str]:
    """The model of a row that has at least layers and hidden, and what was assumed. Raises `Unplannable`."""
    try:
        common = _common(row, name)
    except ValueError as error:
        raise Unplannable(str(error)) from None
    stated = re.search(r"(\d+)experts", name)
    if stated and not row.get("n_experts"):
        row = {**row, "n_experts": stated.group(1)}
    total = real(row, "params_total")
    options = _sparse(row, name, common) if whole(row, "n_experts", 0) > 1 else _dense(row, name, common)
    model = _nearest(options, total, real(row, "params_active"))
    if total and abs(count(model).total / total - 1) > _NEAR:
        return _made_up(model, total)
    return model, ""


def _common(row: Row, name: str) -> dict[str, Any]:
    """What every option shares; heads that do not divide are mended."""
    hidden = whole(row, "hidden")
    if hidden < 8:
        raise ValueError(f"hidden={hidden} is no width")
    heads = whole(row, "n_heads", 0) or max(1, hidden // (128 if hidden >= 2048 and hidden % 128 == 0 else 64))
    kv = min(heads, whole(row, "n_kv_heads", 0) or heads)
    kv = next(n for n in range(kv, 0, -1) if heads % n == 0)
    vocab = whole(row, "vocab", 0) or next((size for key, size in VOCABULARIES if re.search(key, name)), 32000)
    made: dict[str, Any] = {
        "layers": whole(row, "n_layers"), "hidden": hidden, "heads": heads, "kv_heads": kv, "vocab": vocab,
        "max_seq_len": max(whole(row, "seq_len", 2048), 2048), **_window(row.get("attn", "")),
    }  # fmt: skip
    return made


def _window(attn: str) -> dict[str, int]:
    """ "gqa+swa4096(3/4 layers)": windows of 4,096 tokens, and every fourth layer global."""
    found = re.search(r"swa(\d+)(?:\((\d+)/(\d+))?", attn)
    if not found:
        return {}
    windowed, of = int(found.group(2) or 1), int(found.group(3) or 1)
    return {"sliding_window": int(found.group(1)), "window_every": max(2, round(of / (of - windowed))) if of > windowed else 0}  # fmt: skip


def _head_dims(row: Row, common: dict[str, Any], rope: bool) -> list[int]:
    """Features of a head: the row's own, else hidden / heads, else a usual size."""
    given, hidden, heads = whole(row, "head_dim", 0), common["hidden"], common["heads"]
    usual = [given] if given else [hidden // heads] if hidden % heads == 0 else []
    if not given:
        usual += [size for size in (128, 64, 256) if size not in usual]
    return [size for size in usual if size and not (rope and size % 2)] or [128]


def _dense(row: Row, name: str, common: dict[str, Any]) -> Iterator[ModelSpec]:
    """Options of a dense model: gated or not, tied or not, each size of a head. Best guesses first."""
    mats, tied = whole(row, "ffn_mats", 0), row.get("tied", "")
    plain = bool(_TWO_MATRICES.search(name))
    gates = [mats == 3] if mats else [not plain, plain]
    for gated in gates:
        for together in [tied == "1"] if tied else [plain, not plain]:
            for positions in _positions(row, name, gated, common):
                for size in _head_dims(row, common, positions == "rope"):
                    yield from _one(row, name, common, gated=gated, tied=together, positions=positions, head_dim=size)


def _positions(row: Row, name: str, gated: bool, common: dict[str, Any]) -> list[str]:
    """Learned positions only where a sequence fits in them; ALiBi and learned differ in their parameters alone."""
    if gated:
        return ["rope"]
    learned = row.get("learned_pos", "")
    if learned:
        return ["learned"] if 0 < whole(row, "learned_pos") >= common["max_seq_len"] else ["alibi" if _ALIBI.search(name) or int(float(learned)) else "rope"]  # fmt: skip
    if _ALIBI.search(name):
        return ["alibi", "learned"] if common["max_seq_len"] <= 2048 else ["alibi"]
    return ["learned", "rope"] if common["kv_heads"] == common["heads"] else ["rope"]


def _one(row: Row, name: str, common: dict[str, Any], gated: bool, tied: bool, positions: str, head_dim: int) -> Iterator[ModelSpec]:  # fmt: skip
    hidden = common["hidden"]
    ffn = whole(row, "ffn", 0) or (256 * round(hidden * 8 / 3 / 256) or hidden if gated else 4 * hidden)
    family = next((key for pattern, key in _FAMILIES if re.search(pattern, name)), "llama") if gated else "nemotron"
    extra: dict[str, Any] = {}
    if not gated and positions != "rope":
        family, extra = "gpt2", {"positions": positions, "attention_bias": False, "mlp_bias": False}
    sizes = {**common, "max_seq_len": whole(row, "learned_pos", 0) or 2048} if positions == "learned" else common
    yield from _valid({**sizes, "family": family, "ffn": ffn, "head_dim": head_dim, "tied_embeddings": tied, **extra})


def _sparse(row: Row, name: str, common: dict[str, Any]) -> Iterator[ModelSpec]:
    """Options of a mixture of experts: shared experts, leading dense layers and the experts' width."""
    total, ffn = real(row, "params_total"), whole(row, "ffn", 0) or common["hidden"]
    known = row.get("n_shared", "") != "" or not total
    shares = [whole(row, "n_shared", 0)] if known else [0, 1, 2]
    leads = [whole(row, "dense_layers", 0)] if row.get("dense_layers", "") or not total else [0, 1, 3]
    latent = _latent(row, name, common)
    for tied in [row["tied"] == "1"] if row.get("tied") else [False]:
        for shared in shares:
            for lead in (n for n in leads if n < common["layers"]):
                for size in _head_dims(row, common, True)[:1] if latent else _head_dims(row, common, True):
                    shape = {**common, "tied_embeddings": tied, "ffn": ffn, "head_dim": size}
                    yield from _experts(row, name, shape, latent, shared, lead)


def _latent(row: Row, name: str, common: dict[str, Any]) -> MLA | None:
    """Multi-head latent attention, where the row or its name says so and the model is wide enough for its ranks."""
    attn = row.get("attn", "")
    if not attn.startswith("mla") and not (re.search(r"deepseek-?v[23]|kimi", name) and common["hidden"] >= 4096):
        return None
    if not (ranks := dict(re.findall(r"(q|kv|rope|nope|v)(\d+)", attn))):
        return MLA(**DEEPSEEK)
    names = {"q": "q_lora_rank", "kv": "kv_lora_rank", "rope": "qk_rope_head_dim", "nope": "qk_nope_head_dim", "v": "v_head_dim"}  # fmt: skip
    return MLA(**{**DEEPSEEK, **{names[key]: int(value) for key, value in ranks.items()}})


def _experts(row: Row, name: str, shape: dict[str, Any], latent: MLA | None, shared: int, lead: int) -> Iterator[ModelSpec]:  # fmt: skip
    experts, total = whole(row, "n_experts"), real(row, "params_total")
    top = min(experts, max(1, whole(row, "top_k", 2)))
    width = whole(row, "moe_ffn", 0) or _expert_width(name, shape["ffn"], latent)
    family = "deepseek_v3" if latent else "glm4_moe" if shared or lead else "qwen3_moe"

    def make(width: int) -> Iterator[ModelSpec]:
        moe = MoE(experts=experts, top_k=top, expert_ffn=max(1, width), shared_experts=shared, dense_layers=lead)
        given = {**shape, "family": family, "moe": moe}
        if latent:
            given = {**given, "mla": latent, "head_dim": 0, "kv_heads": shape["heads"]}
        yield from _valid(given)

    for model in make(width):
        if total and not whole(row, "moe_ffn", 0):
            layers = model.layers - lead
            step = 3 * model.hidden * layers * (experts + shared)
            yield from make(round(width + (total - count(model).total) / step))
        yield model


def _expert_width(name: str, ffn: int, latent: MLA | None) -> int:
    """An expert's width where the row gives none. Two-matrix experts (GPT) are planned as gated ones of two thirds."""
    if latent:
        return min(2048, ffn)
    return round(ffn * 2 / 3) if _TWO_MATRICES.search(name) else ffn


def _valid(given: dict[str, Any]) -> Iterator[ModelSpec]:
    """The model, unless its family forbids the combination."""
    try:
        yield ModelSpec(**given)
    except ValueError:
        return


def _nearest(options: Iterable[ModelSpec], total: float | None, active: float | None) -> ModelSpec:
    """The option whose counts come nearest the published ones; the first where none is published."""
    best, least = None, float("inf")
    for model in options:
        counted = count(model)
        apart = abs(counted.total / total - 1) if total else 0.0
        if active and model.moe:
            apart += 0.5 * abs(counted.active / active - 1)
        if apart < least - 1e-5:
            best, least = model, apart
    if best is None:
        raise Unplannable("no combination of its widths and heads makes a model")
    return best


def _made_up(model: ModelSpec, total: float) -> tuple[ModelSpec, str]:
    """The model with a feed-forward of another width, where the published count asks for it."""
    missing = total - count(model).total
    if model.moe:
        layers = (model.layers - model.moe.dense_layers) * (model.moe.experts + model.moe.shared_experts)
        width = model.moe.expert_ffn + round(missing / (3 * model.hidden * layers))
        moe = model.moe.replace(expert_ffn=max(1, width))
        family = "qwen3_moe" if model.family == "mixtral" else model.family
        return model.replace(moe=moe, family=family), f"experts {width} wide, to make up the published parameters"
    width = model.ffn + round(missing / ((3 if model.gated else 2) * model.hidden * model.layers))
    if width < 1:
        return model, f"counts {count(model).total:.3g} parameters where {total:.3g} are published"
    return model.replace(ffn=width), f"feed-forward {width} wide, to make up the published parameters"
