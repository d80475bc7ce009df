"""`ModelSpec` to and from transformers configs, one table of names a family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lablib.specs.errors import LabError
from lablib.specs.families import FAMILIES
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
_QWEN_MOE = {"top_k": "num_experts_per_tok", "expert_ffn": "moe_intermediate_size", "norm_topk": "norm_topk_prob"}


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
    if family is None:
        raise LabError(f"model_type={kind!r}: the lab plans {', '.join(_MODEL_TYPES.get(f, f) for f in FAMILIES)}; describe the nearest one as a ModelSpec")  # fmt: skip
    _refuse_what_cannot_be_said(config)
    names = _names(family)
    fields = {ours: config[theirs] for ours, theirs in names.items() if config.get(theirs) is not None}
    if family == "gpt2":
        fields.setdefault("ffn", 4 * config["n_embd"])
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
    if family == "gpt2":
        return _GPT2
    names = {**_COMMON, "norm_eps": "norm_eps" if family == "nemotron" else "rms_norm_eps"}
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
        ("decoder_sparse_step", 1),
        ("mlp_only_layers", []),
    ):
        value = config.get(name)
        if value is not None and value != plain:
            raise LabError(f"{name}={value!r}: a ModelSpec has no such setting yet; the plan would be wrong in silence")


def _head_dim(config: dict[str, Any]) -> int:
    if config["model_type"] == "deepseek_v3":
        return int(config["qk_nope_head_dim"] + config["qk_rope_head_dim"])
    return int(config.get("head_dim") or 0)


def _moe(config: dict[str, Any]) -> MoE | None:
    if config["model_type"] in ("deepseek_v3", "glm4_moe"):
        return MoE(**{ours: config[theirs] for ours, theirs in _DEEPSEEK_MOE.items()})
    if config["model_type"] == "qwen3_moe":
        experts = config.get("num_local_experts") or config.get("num_experts")
        return MoE(experts=experts, **{ours: config[theirs] for ours, theirs in _QWEN_MOE.items()})
    if config["model_type"] == "mixtral":
        return MoE(
            experts=config["num_local_experts"],
            top_k=config["num_experts_per_tok"],
            expert_ffn=config["intermediate_size"],
        )
    return None


def _ssm(config: dict[str, Any]) -> SSM | None:
    if config["model_type"] != "bamba":
        return None
    attention = config.get("attn_layer_indices")
    if attention is None:
        kinds = config.get("layer_types") or config.get("layers_block_type") or []
        attention = [i for i, kind in enumerate(kinds) if "attention" in kind]
    return SSM(attention_layers=tuple(attention), **{ours: config[theirs] for ours, theirs in _SSM.items()})


def to_hf(model: ModelSpec) -> PretrainedConfig:
    """See `ModelSpec.to_hf`. Raises `LabError` for what transformers cannot build though the lab can plan it."""
    from transformers import AutoConfig

    _refuse_what_cannot_be_built(model)
    settings = {theirs: getattr(model, ours) for ours, theirs in _names(model.family).items()}
    if model.family not in ("bamba", "deepseek_v3", "gpt2"):
        settings["head_dim"] = model.head_dim
    if model.family == "gpt2":
        settings |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # transformers' default is GPT-2's 0.1
    else:
        settings |= rope_settings(model)
    return AutoConfig.for_model(_MODEL_TYPES.get(model.family, model.family), **settings, **_special(model))


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
    wrong += ["head_dim"] if model.family in ("qwen2", "olmo2") and not plain else []
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
    if model.family == "bamba" and model.ssm:
        ours = {theirs: getattr(model.ssm, name) for name, theirs in _SSM.items()}
        expand = model.ssm.heads * model.ssm.head_dim / model.hidden
        return {
            **ours,
            "mamba_expand": expand if expand % 1 else int(expand),
            "attn_layer_indices": list(model.ssm.attention_layers),
        }
    return {}
