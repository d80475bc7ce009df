"""What each family of decoders fixes: its norms, biases, positions and parts, one row a family.

Read from transformers' modelling files of the same name, and checked against their parameter counts in
``tests/plan/test_params.py``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Family = Literal[
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "gpt2", "nemotron",
    "qwen3_moe", "mixtral", "glm4_moe", "deepseek_v3", "bamba", "jamba", "granitemoehybrid", "rwkv",
]  # fmt: skip
Positions = Literal["rope", "learned", "alibi", "none"]


class Traits(NamedTuple):
    """The defaults and the limits of a family."""

    parts: tuple[str, ...] = ()
    """Which of moe, mla and ssm a member has."""
    optional: tuple[str, ...] = ()
    """Which of these it may lack."""
    gated: bool = True
    positions: Positions = "rope"
    turned: float = 1.0
    """Share of a head's features that rotary positions turn."""
    tied: bool = False
    bias: Literal["none", "free", "always"] = "free"
    """Whether attention's projections have biases; "free" leaves it to the model."""
    output_bias: bool = True
    """Whether those biases include the output projection's."""
    mlp_bias: bool = False
    """The default of `ModelSpec.mlp_bias`; only where True may it be set."""
    norms: int = 2
    """Norms over the hidden width in a layer."""
    norm_vectors: int = 1
    """1 for RMSNorm, 2 for LayerNorm (weight and bias)."""
    qk_norm: bool = False
    qk_norm_free: bool = False
    """Whether a member may differ from `qk_norm`."""
    qk_norm_wide: bool = False
    """Query and key norms span all heads rather than one."""
    windows: Literal["none", "all", "mixed"] = "none"
    """Sliding windows that transformers builds: in every layer, or with global layers between."""
    shared: bool = False
    """Whether its experts may have shared ones, dense layers and groups beside them."""
    spaced: bool = False
    """Whether only every n-th layer may have experts."""
    mamba: Literal[1, 2] = 2
    """Generation of its Mamba layers."""
    recurrent: bool = False
    """Its layers mix time by RWKV's recurrence (arXiv 2305.13048) instead of attention."""


FAMILIES: dict[str, Traits] = {
    "llama": Traits(),
    "mistral": Traits(bias="none", windows="all"),
    "qwen2": Traits(bias="always", output_bias=False),
    "qwen3": Traits(qk_norm=True),
    "gemma": Traits(tied=True),
    "gemma2": Traits(tied=True, norms=4, windows="mixed"),
    "gemma3": Traits(tied=True, norms=4, qk_norm=True, windows="mixed"),
    "olmo2": Traits(qk_norm=True, qk_norm_wide=True),
    "gpt2": Traits(gated=False, positions="learned", tied=True, mlp_bias=True, norm_vectors=2),
    "nemotron": Traits(gated=False, turned=0.5, norm_vectors=2),
    "qwen3_moe": Traits(("moe",), qk_norm=True, spaced=True),
    "mixtral": Traits(("moe",), bias="none", windows="all"),
    "glm4_moe": Traits(("moe",), turned=0.5, output_bias=False, qk_norm_free=True, shared=True),
    "deepseek_v3": Traits(("moe", "mla"), shared=True),
    "bamba": Traits(("ssm",), turned=0.5),
    "jamba": Traits(("ssm", "moe"), optional=("moe",), positions="none", bias="none", spaced=True, mamba=1),
    "granitemoehybrid": Traits(("ssm", "moe"), optional=("moe",), positions="none", shared=True),
    "rwkv": Traits(gated=False, positions="none", bias="none", norm_vectors=2, recurrent=True),
}
ABSENT = {
    "retnet": "transformers has no RetNet; its nearest kin there is family='rwkv', a recurrence with decay, or family='bamba' with "
    "one head_dim × state matrix a head as state (ssm.attention_layers=() leaves attention out)",
    "rwkv5": "transformers has RWKV-4 alone; use family='rwkv'",
    "rwkv6": "transformers has RWKV-4 alone; use family='rwkv'",
    "rwkv7": "transformers has RWKV-4 alone; use family='rwkv'",
    "zamba": "a ModelSpec cannot say one attention block whose weights many layers share, over twice the hidden width; use family='jamba', Mamba-1 with attention layers of their own",
    "zamba2": "a ModelSpec cannot say attention blocks whose weights many layers share, over twice the hidden width, with an adapter each; use family='bamba' or 'granitemoehybrid', Mamba-2 with attention layers of their own",
}  # fmt: skip
"""Architectures that people ask for by name and that cannot be a family, and why; what to use instead."""


def members(part: str) -> list[str]:
    """The families that have a part ("moe", "mla" or "ssm")."""
    return [name for name, traits in FAMILIES.items() if part in traits.parts]
