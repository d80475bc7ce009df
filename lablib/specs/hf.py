"""`ModelSpec` to and from transformers configs, one table of names a family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lablib.specs.errors import LabError
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
    family = config.get("model_type")
    if family not in ("llama", "qwen3", "qwen3_moe", "deepseek_v3", "bamba"):
        raise LabError(
            f"model_type={family!r}: the lab plans llama, qwen3, qwen3_moe, deepseek_v3 and bamba; describe the nearest one as a ModelSpec"
        )
    _refuse_what_cannot_be_said(config)
    fields = {ours: config[theirs] for ours, theirs in _COMMON.items() if config.get(theirs) is not None}
    rope = config.get("rope_parameters") or {}
    return ModelSpec(
        family=family,
        **fields,
        head_dim=_head_dim(config),
        rope_theta=rope.get("rope_theta") or config.get("rope_theta") or 10000.0,
        moe=_moe(config),
        mla=MLA(**{name: config.get(name) for name in _MLA}) if family == "deepseek_v3" else None,
        ssm=_ssm(config),
    )


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
    if config["model_type"] == "deepseek_v3":
        return MoE(**{ours: config[theirs] for ours, theirs in _DEEPSEEK_MOE.items()})
    if config["model_type"] == "qwen3_moe":
        experts = config.get("num_local_experts") or config.get("num_experts")
        return MoE(experts=experts, **{ours: config[theirs] for ours, theirs in _QWEN_MOE.items()})
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
    """See `ModelSpec.to_hf`."""
    from transformers import AutoConfig

    settings = {theirs: getattr(model, ours) for ours, theirs in _COMMON.items()}
    if model.family == "bamba":
        settings.pop("head_dim", None)
    elif model.family != "deepseek_v3":
        settings["head_dim"] = model.head_dim
    rope = {"rope_theta": model.rope_theta, "rope_type": "default"}
    if model.family == "bamba":
        rope["partial_rotary_factor"] = 0.5
    return AutoConfig.for_model(model.family, **settings, rope_parameters=rope, **_special(model))


def _special(model: ModelSpec) -> dict[str, Any]:
    if model.family == "deepseek_v3" and model.mla and model.moe:
        return {
            **model.mla.model_dump(),
            **{theirs: getattr(model.moe, ours) for ours, theirs in _DEEPSEEK_MOE.items()},
        }
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
