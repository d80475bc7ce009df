"""`ModelSpec` to and from transformers configs, one table of names a family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lablib.specs.errors import LabError
from lablib.specs.families import ABSENT, FAMILIES
from lablib.specs.hf_positions import positions, rope_settings
from lablib.specs.model import MLA, SSM, ModelSpec, MoE

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_COMMON = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "tied_embeddings": "tie_word_embeddings",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "init_std": "initializer_range",
    "attention_bias": "attention_bias",
}
_GPT2 = {
    "layers": "n_layer",
    "hidden": "n_embd",
    "heads": "n_head",
    "ffn": "n_inner",
    "vocab": "vocab_size",
    "tied_embeddings": "tie_word_embeddings",
    "max_seq_len": "n_positions",
    "norm_eps": "layer_norm_epsilon",
    "init_std": "initializer_range",
}
_RWKV = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "tied_embeddings": "tie_word_embeddings",
    "max_seq_len": "context_length",
    "norm_eps": "layer_norm_epsilon",
}
_MODEL_TYPES = {"gemma3": "gemma3_text"}
"""What transformers calls a family where it has another name for the text model."""
_SSM = {
    "heads": "mamba_n_heads",
    "head_dim": "mamba_d_head",
    "state": "mamba_d_state",
    "groups": "mamba_n_groups",
    "conv": "mamba_d_conv",
    "chunk": "mamba_chunk_size",
}
_JAMBA = {"state": "mamba_d_state", "conv": "mamba_d_conv", "step_rank": "mamba_dt_rank"}
_MLA = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_DEEPSEEK_MOE = {
    "experts": "n_routed_experts",
    "top_k": "num_experts_per_tok",
    "expert_ffn": "moe_intermediate_size",
    "shared_experts": "n_shared_experts",
    "dense_layers": "first_k_dense_replace",
    "groups": "n_group",
    "top_groups": "topk_group",
    "norm_topk": "norm_topk_prob",
}
_QWEN_MOE = {
    "top_k": "num_experts_per_tok",
    "expert_ffn": "moe_intermediate_size",
    "norm_topk": "norm_topk_prob",
    "every": "decoder_sparse_step",
}
_JAMBA_MOE = {"experts": "num_experts", "top_k": "num_experts_per_tok", "expert_ffn": "intermediate_size", "every": "expert_layer_period"}  # fmt: skip
_GRANITE_MOE = {"experts": "num_local_experts", "top_k": "num_experts_per_tok", "expert_ffn": "intermediate_size"}
_PLAIN_HEADS = ("qwen2", "olmo2", "bamba", "jamba", "granitemoehybrid")
"""Families whose heads transformers makes hidden / heads wide, whatever a config says."""


def from_hf(source: Any) -> ModelSpec:
    """See `ModelSpec.from_hf`."""
    if isinstance(source, ModelSpec):
        return source
    if isinstance(source, str | Path) and not Path(source).exists():
        from lablib.specs.catalog import catalog

        return catalog.models[str(source)]
    config = _read(source)
    kind = config.get("model_type")
    family = next((ours for ours in FAMILIES if _MODEL_TYPES.get(ours, ours) == kind), None)
    if kind in ABSENT:
        raise LabError(f"model_type={kind!r}: {ABSENT[kind]}")
    if family is None:
        raise LabError(f"model_type={kind!r}: the lab plans {', '.join(_MODEL_TYPES.get(f, f) for f in FAMILIES)}; describe the nearest one as a ModelSpec")  # fmt: skip
    _refuse_what_cannot_be_said(config)
    try:
        return _said(config, family)
    except KeyError as error:
        raise LabError(f"config.json of model_type={kind!r} has no {error}; add it, or describe the model as a ModelSpec") from None  # fmt: skip


def _said(config: dict[str, Any], family: str) -> ModelSpec:
    names = _names(family)
    fields = {ours: config[theirs] for ours, theirs in names.items() if config.get(theirs) is not None}
    if family == "gpt2":
        fields.setdefault("ffn", 4 * config["n_embd"])
    if family == "rwkv":
        fields |= {"heads": 1, "ffn": fields.get("ffn", 4 * config["hidden_size"])}
    theta, scaling = positions(config)
    return ModelSpec(
        family=family,
        **fields,
        **_windows(config, family),
        head_dim=_head_dim(config),
        rope_theta=theta,
        rope_scaling=scaling,
        moe=_moe(config),
        mla=MLA(**{name: config.get(name) for name in _MLA}) if family == "deepseek_v3" else None,
        ssm=_ssm(config),
    )


def _names(family: str) -> dict[str, str]:
    """Our fields and transformers' names of them."""
    if family in ("gpt2", "rwkv"):
        return _GPT2 if family == "gpt2" else _RWKV
    names = {**_COMMON, "norm_eps": "norm_eps" if family == "nemotron" else "rms_norm_eps"}
    if family == "granitemoehybrid":
        names["ffn"] = "shared_intermediate_size"
    if FAMILIES[family].bias != "free":
        names.pop("attention_bias")
    return {**names, "qk_norm": "use_qk_norm"} if FAMILIES[family].qk_norm_free else names


def _windows(config: dict[str, Any], family: str) -> dict[str, int]:
    """`sliding_window` and `window_every`; raises `LabError` for global layers at uneven distances."""
    window, kind = config.get("sliding_window"), FAMILIES[family].windows
    if window is None or kind == "none":
        return {}
    if kind == "all":
        return {"sliding_window": window}
    layers = config["num_hidden_layers"]
    every = config.get("sliding_window_pattern") or (2 if family == "gemma2" else 6)
    kinds = config.get("layer_types") or layer_types(layers, window, every)
    wide = [i + 1 for i, name in enumerate(kinds) if name == "full_attention"]
    if len(wide) == layers:
        return {}
    every = wide[0] if wide else 0
    if list(kinds) != layer_types(layers, window, every):
        raise LabError(f"layer_types has global layers {wide}: a ModelSpec says every n-th; describe the nearest one")
    return {"sliding_window": window, "window_every": every}


def layer_types(layers: int, window: int | None, every: int) -> list[str]:
    """transformers' name of each layer's attention."""
    wide = [window is None or (every > 0 and (i + 1) % every == 0) for i in range(layers)]
    return ["full_attention" if full else "sliding_attention" for full in wide]


def _read(source: Any) -> dict[str, Any]:
    if isinstance(source, dict):
        return source
    if hasattr(source, "to_dict"):
        return dict(source.to_dict())
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise LabError(f"There is no {path}; a model folder holds a config.json")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _refuse_what_cannot_be_said(config: dict[str, Any]) -> None:
    for name, plain in (
        ("mlp_bias", False),
        ("use_sliding_window", False),
        ("mlp_only_layers", []),
        ("mamba_conv_bias", True),
        ("mamba_proj_bias", False),
        (
            "position_embedding_type",
            "nope" if config["model_type"] == "granitemoehybrid" else config.get("position_embedding_type"),
        ),
        ("expert_layer_offset", config.get("expert_layer_period", 1) - 1),
        *_multipliers(config),
    ):
        value = config.get(name)
        if value is not None and value != plain:
            raise LabError(f"{name}={value!r}: a ModelSpec has no such setting yet; the plan would be wrong in silence")


def _multipliers(config: dict[str, Any]) -> list[tuple[str, float]]:
    """Granite's factors, and what they are in a model without them."""
    if config["model_type"] != "granitemoehybrid":
        return []
    head_dim = config["hidden_size"] / config["num_attention_heads"]
    ones = ("embedding_multiplier", "residual_multiplier", "logits_scaling")
    return [*((name, 1.0) for name in ones), ("attention_multiplier", head_dim**-0.5)]


def _head_dim(config: dict[str, Any]) -> int:
    if config["model_type"] == "deepseek_v3":
        return int(config["qk_nope_head_dim"] + config["qk_rope_head_dim"])
    if config["model_type"] == "rwkv":
        return int(config.get("attention_hidden_size") or config["hidden_size"])
    return int(config.get("head_dim") or 0)


def _moe(config: dict[str, Any]) -> MoE | None:
    if config["model_type"] in ("deepseek_v3", "glm4_moe"):
        return MoE(**{ours: config[theirs] for ours, theirs in _DEEPSEEK_MOE.items()})
    if config["model_type"] == "qwen3_moe":
        experts = config.get("num_local_experts") or config.get("num_experts")
        given = {ours: config[theirs] for ours, theirs in _QWEN_MOE.items() if theirs in config}
        return MoE(experts=experts, **given)
    if config["model_type"] == "jamba" and (config.get("num_experts") or config.get("num_local_experts", 1)) > 1:
        named = {"num_experts": config.get("num_local_experts"), **config}
        return MoE(norm_topk=False, **{ours: named[theirs] for ours, theirs in _JAMBA_MOE.items()})
    if config["model_type"] == "granitemoehybrid" and config["num_local_experts"]:
        shared, rest = divmod(config["shared_intermediate_size"], config["intermediate_size"])
        if rest:
            raise LabError(f"shared_intermediate_size={config['shared_intermediate_size']} is no multiple of intermediate_size={config['intermediate_size']}: a ModelSpec has shared experts of the others' width; describe the nearest one")  # fmt: skip
        return MoE(shared_experts=shared, **{ours: config[theirs] for ours, theirs in _GRANITE_MOE.items()})
    if config["model_type"] == "mixtral":
        return MoE(
            experts=config["num_local_experts"],
            top_k=config["num_experts_per_tok"],
            expert_ffn=config["intermediate_size"],
        )
    return None


def _ssm(config: dict[str, Any]) -> SSM | None:
    family = config["model_type"]
    if "ssm" not in FAMILIES.get(family, FAMILIES["llama"]).parts:
        return None
    if family == "jamba":
        period, offset = config["attn_layer_period"], config["attn_layer_offset"]
        wide = tuple(i for i in range(config["num_hidden_layers"]) if i % period == offset)
        inner = config["mamba_expand"] * config["hidden_size"]
        return SSM(attention_layers=wide, heads=inner, head_dim=1, **{ours: config[theirs] for ours, theirs in _JAMBA.items()})  # fmt: skip
    attention = config.get("attn_layer_indices")
    if attention is None:
        kinds = config.get("layer_types") or config.get("layers_block_type") or []
        attention = [i for i, kind in enumerate(kinds) if kind in ("attention", "full_attention")]
    return SSM(attention_layers=tuple(attention), **{ours: config[theirs] for ours, theirs in _SSM.items()})


def to_hf(model: ModelSpec) -> PretrainedConfig:
    """See `ModelSpec.to_hf`. Raises `LabError` for what transformers cannot build though the lab can plan it."""
    from transformers import AutoConfig

    _refuse_what_cannot_be_built(model)
    settings = {theirs: getattr(model, ours) for ours, theirs in _names(model.family).items()}
    if (
        model.family != "rwkv"
    ):  # transformers leaves a padding token's row at zero, and Bamba's, Jamba's and Gemma's is 0
        settings["pad_token_id"] = None
    if model.family not in ("bamba", "jamba", "granitemoehybrid", "deepseek_v3", "gpt2", "rwkv"):
        settings["head_dim"] = model.head_dim
    if model.family == "gpt2":
        settings |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # transformers' default is GPT-2's 0.1
    elif model.positions == "rope":
        settings |= rope_settings(model)
    return AutoConfig.for_model(_MODEL_TYPES.get(model.family, model.family), **(settings | _special(model)))


def _refuse_what_cannot_be_built(model: ModelSpec) -> None:
    plain = model.hidden == model.heads * model.head_dim
    gpt2 = {
        "gated": not model.gated,
        "positions": model.positions == "learned",
        "attention_bias": model.attention_bias,
        "mlp_bias": model.mlp_bias,
        "kv_heads": model.kv_heads == model.heads,
        "head_dim": plain,
    }
    windows = model.traits.windows
    wrong = [name for name, same in gpt2.items() if model.family == "gpt2" and not same]
    wrong += ["sliding_window"] if model.sliding_window is not None and windows == "none" else []
    wrong += ["window_every"] if model.window_every and windows != "mixed" else []
    wrong += ["head_dim"] if model.family in _PLAIN_HEADS and not plain else []
    if model.family == "rwkv":  # its initialisation divides by layers - 1, and asks for no width
        wrong += ["layers"] if model.layers == 1 else []
        wrong += ["init_std"] if model.init_std != ModelSpec.model_fields["init_std"].default else []
    if model.family in ("gemma2", "gemma3") and model.hidden % model.heads:
        wrong.append("heads")
    if wrong:
        said = ", ".join(f"{name}={getattr(model, name)!r}" for name in wrong)
        raise LabError(f"transformers' {model.family} has no {said}: this model can be planned, not built; change it to run it")  # fmt: skip


def _special(model: ModelSpec) -> dict[str, Any]:
    if model.family == "deepseek_v3" and model.mla and model.moe:
        return {
            **model.mla.model_dump(),
            **{theirs: getattr(model.moe, ours) for ours, theirs in _DEEPSEEK_MOE.items()},
        }
    if model.family == "glm4_moe" and model.moe:
        return {"num_nextn_predict_layers": 0, **{theirs: getattr(model.moe, ours) for ours, theirs in _DEEPSEEK_MOE.items()}}  # fmt: skip
    if model.family == "mixtral" and model.moe:
        own = {"num_local_experts": model.moe.experts, "num_experts_per_tok": model.moe.top_k}
        return {**own, "sliding_window": model.sliding_window}
    if model.family == "mistral":
        return {"sliding_window": model.sliding_window}
    if model.family in ("gemma2", "gemma3"):
        kinds = layer_types(model.layers, model.sliding_window, model.window_every)
        return {
            "sliding_window": model.sliding_window or model.max_seq_len,
            "layer_types": kinds,
        }  # the mask needs a number
    if model.family == "qwen3_moe" and model.moe:
        return {
            "num_experts": model.moe.experts,
            **{theirs: getattr(model.moe, ours) for ours, theirs in _QWEN_MOE.items()},
        }
    if model.family == "rwkv":
        # `rescale_every` would change the weights in place at every evaluation, for the sake of fp16.
        return {"attention_hidden_size": model.heads * model.head_dim, "rescale_every": 0}
    return _hybrid(model, model.ssm) if model.ssm else {}


def _hybrid(model: ModelSpec, ssm: SSM) -> dict[str, Any]:
    """The settings of Mamba layers, where attention lies between them, and experts beside them."""
    settings: dict[str, Any] = {"mamba_expand": ssm.heads * ssm.head_dim // model.hidden}
    settings |= {theirs: getattr(ssm, ours) for ours, theirs in (_JAMBA if model.family == "jamba" else _SSM).items()}
    if model.family == "bamba":
        return settings | {"attn_layer_indices": list(ssm.attention_layers)}
    if model.family == "jamba":
        period, offset = spacing(ssm.attention_layers, model.layers)
        none = {"num_experts": 1, "expert_layer_period": 1, "expert_layer_offset": 0}
        experts = {theirs: getattr(model.moe, ours) for ours, theirs in _JAMBA_MOE.items()} if model.moe else none
        every = model.moe.every if model.moe else 1
        return settings | experts | {"expert_layer_offset": every - 1, "attn_layer_period": period, "attn_layer_offset": offset}  # fmt: skip
    wide = set(ssm.attention_layers)
    kinds = ["full_attention" if i in wide else "linear_attention" for i in range(model.layers)]
    experts = {theirs: getattr(model.moe, ours) for ours, theirs in _GRANITE_MOE.items()} if model.moe else {"num_local_experts": 0}  # fmt: skip
    return settings | experts | {"layer_types": kinds, "attention_multiplier": model.head_dim**-0.5}


def spacing(wide: tuple[int, ...], layers: int) -> tuple[int, int]:
    """(period, offset) of the attention layers `wide` of `layers`, as Jamba's config says them. Raises `LabError` for uneven
    distances."""
    places = sorted(set(wide))
    offset = min(places, default=layers)
    period = places[1] - offset if len(places) > 1 else max(layers, offset + 1)
    if places != [i for i in range(layers) if i % period == offset]:
        raise LabError(f"ssm.attention_layers={wide}: transformers' jamba has attention in every n-th layer, as (4, 12, 20, 28); this model can be planned, not built; change it to run it")  # fmt: skip
    return period, offset
