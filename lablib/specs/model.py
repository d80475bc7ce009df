"""`ModelSpec`: the shape of a decoder-only language model, in the field's own terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from lablib.specs.base import Spec
from lablib.specs.families import ABSENT, FAMILIES, Family, Positions, Traits, members
from lablib.specs.rope import RopeScaling
from lablib.specs.units import Count

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class MoE(Spec):
    """A mixture-of-experts feed-forward: `top_k` of `experts` run for each token, plus the shared ones."""

    experts: int = Field(gt=0)
    top_k: int = Field(gt=0)
    expert_ffn: int = Field(gt=0)
    """Width of one expert."""
    shared_experts: int = Field(default=0, ge=0)
    dense_layers: int = Field(default=0, ge=0)
    """Leading layers that keep a dense feed-forward (DeepSeek-V3: 3)."""
    every: int = Field(default=1, gt=0)
    """Layers every, 2·every, … have experts, the others a dense feed-forward (Jamba: 2)."""
    groups: int = Field(default=1, gt=0)
    """Expert groups for device-limited routing; the router may pick from `top_groups` of them."""
    top_groups: int = Field(default=1, gt=0)
    norm_topk: bool = True
    """Whether the chosen experts' weights are normalised to sum to one."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(f"top_k={self.top_k} is more than experts={self.experts}; lower top_k")
        if self.experts % self.groups or self.top_groups > self.groups:
            raise ValueError(
                f"groups={self.groups} must divide experts={self.experts} and be at least top_groups={self.top_groups}"
            )
        return self


class MLA(Spec):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 §2.1): low-rank queries, keys and values."""

    q_lora_rank: int | None = None
    kv_lora_rank: int = Field(gt=0)
    qk_nope_head_dim: int = Field(gt=0)
    qk_rope_head_dim: int = Field(gt=0)
    v_head_dim: int = Field(gt=0)


class SSM(Spec):
    """Mamba layers between attention layers; inner width is `heads` × `head_dim`.

    Mamba-2 (arXiv 2405.21060) has one decay a head; Mamba-1 (arXiv 2312.00752) one a channel and number of its state: there
    `head_dim` is 1, and `step_rank` the width from which each channel's step is made.
    """

    heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    state: int = Field(gt=0)
    groups: int = Field(default=1, gt=0)
    conv: int = Field(default=4, gt=0)
    chunk: int = Field(default=256, gt=0)
    attention_layers: tuple[int, ...] = ()
    """Indices of the layers that are attention; all others are Mamba."""
    step_rank: int = Field(default=0, ge=0)
    """Mamba-1's rank of Δ (hidden / 16 in its paper); 0 in Mamba-2."""


class ModelSpec(Spec):
    """A decoder-only transformer (or Mamba hybrid, or RWKV). Widths are in features, counts in units.

    `heads` must be a multiple of `kv_heads` (grouped-query attention, arXiv 2305.13245). What a family fixes
    (`lablib.specs.families`) is filled in. A "gpt2" may be any GPT-like model (other positions, grouped queries, no
    biases, an untied head): it is planned exactly, and built only where transformers' GPT-2 can say it. An "rwkv" has no
    attention and one head, whose `head_dim` is the width of its time mixing.
    """

    family: Family = "llama"
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(default=0, ge=0)
    """Key/value heads; 0 means as many as `heads` (multi-head attention)."""
    head_dim: int = Field(default=0, ge=0)
    """Features of one head; 0 means hidden / heads."""
    ffn: int = Field(gt=0)
    vocab: Count
    tied_embeddings: bool = False
    max_seq_len: Count = 4096
    rope_theta: float = Field(default=10000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    """Positions beyond those of pretraining; None: as `rope_theta` alone has them."""
    norm_eps: float = Field(default=1e-6, gt=0)
    init_std: float = Field(default=0.02, gt=0)
    attention_bias: bool = False
    """Biases on attention's projections (qwen2: always, and not on the output; gpt2: by default)."""
    mlp_bias: bool = False
    """Biases on the feed-forward's matrices (gpt2 only, by default)."""
    gated: bool = True
    """Three feed-forward matrices (SwiGLU, arXiv 2002.05202); False: two, as in GPT and Nemotron."""
    positions: Positions = "rope"
    qk_norm: bool = False
    """Norms on queries and keys."""
    sliding_window: int | None = Field(default=None, gt=0)
    """Tokens that a windowed layer attends to, the present one included; None: every layer attends to all."""
    window_every: int = Field(default=0, ge=0)
    """0: every layer is windowed; n: every n-th layer is global."""
    moe: MoE | None = None
    mla: MLA | None = None
    ssm: SSM | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        family = str(data.get("family", "llama"))
        if family in ABSENT:
            raise ValueError(f"family={family!r}: {ABSENT[family]}")
        filled = {**_fixed(family), **data}
        if FAMILIES.get(family, Traits()).recurrent:
            filled.setdefault("heads", 1)
        heads, hidden = filled.get("heads"), filled.get("hidden")
        if not filled.get("kv_heads") and isinstance(heads, int):
            filled["kv_heads"] = heads
        mla = filled.get("mla")
        if not filled.get("head_dim") and isinstance(mla, MLA | dict):
            mla = mla if isinstance(mla, MLA) else MLA(**mla)
            filled["head_dim"] = mla.qk_nope_head_dim + mla.qk_rope_head_dim
        if not filled.get("head_dim") and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
            if hidden % heads:
                raise ValueError(f"hidden={hidden} is not a multiple of heads={heads}; change one or give head_dim")
            filled["head_dim"] = hidden // heads
        return filled

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} must be a multiple of kv_heads={self.kv_heads}")
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even: rotary embeddings turn pairs of features")
        if self.rope_scaling and self.positions != "rope":
            raise ValueError(f"rope_scaling: family={self.family!r} has no rotary positions to stretch")
        for part in ("moe", "mla", "ssm"):
            has, family = getattr(self, part) is not None, members(part)
            if has != (self.family in family) and (has or part not in self.traits.optional):
                raise ValueError(
                    f"{part} is {'set' if has else 'missing'} for family={self.family!r}; it belongs to {' and '.join(family)}"
                )
        self._check_family()
        self._check_windows()
        self._check_parts()
        return self

    @property
    def traits(self) -> Traits:
        """What the family fixes."""
        return FAMILIES[self.family]

    @property
    def recurrent(self) -> bool:
        """Whether some layers carry a state along the sequence (Mamba, RWKV) instead of attending."""
        return self.ssm is not None or self.traits.recurrent

    def _check_family(self) -> None:
        """What the family does not leave free."""
        traits = self.traits
        fixed = [] if self.family == "gpt2" else ["gated", "positions"]
        fixed += [] if traits.qk_norm_free else ["qk_norm"]
        for name in fixed:
            if getattr(self, name) != getattr(traits, name):
                raise ValueError(f"{name}={getattr(self, name)!r}: family={self.family!r} always has {getattr(traits, name)!r}; leave it out")  # fmt: skip
        if traits.bias != "free" and self.attention_bias != (traits.bias == "always"):
            often = "always" if traits.bias == "always" else "never"
            raise ValueError(f"attention_bias={self.attention_bias}: family={self.family!r} {often} has biases on attention; leave it out")  # fmt: skip
        if traits.recurrent and self.heads != 1:
            raise ValueError(f"heads={self.heads}: family={self.family!r} mixes time channel by channel; leave it out, and give head_dim where time is mixed in another width than hidden")  # fmt: skip
        if self.mlp_bias and not traits.mlp_bias:
            raise ValueError(f"mlp_bias=True: family={self.family!r} has none; use family='gpt2' to plan one")

    def _check_windows(self) -> None:
        if self.sliding_window is None and self.window_every:
            raise ValueError(f"window_every={self.window_every} needs a sliding_window; give one or leave it out")
        if self.window_every == 1:
            raise ValueError("window_every=1 makes every layer global; leave sliding_window out")

    def _check_parts(self) -> None:
        """What a family's parts must agree on with the rest; each of these transformers would refuse or ignore."""
        if self.ssm and self.ssm.heads * self.ssm.head_dim % self.hidden:
            raise ValueError(f"ssm.heads×ssm.head_dim={self.ssm.heads * self.ssm.head_dim} must be a multiple of hidden={self.hidden}")  # fmt: skip
        if self.mla and self.head_dim != self.mla.qk_nope_head_dim + self.mla.qk_rope_head_dim:
            raise ValueError(f"head_dim={self.head_dim} must be mla.qk_nope_head_dim+qk_rope_head_dim={self.mla.qk_nope_head_dim + self.mla.qk_rope_head_dim}; leave it out")  # fmt: skip
        if self.ssm and any(not 0 <= i < self.layers for i in self.ssm.attention_layers):
            raise ValueError(
                f"ssm.attention_layers={self.ssm.attention_layers} must lie between 0 and layers-1={self.layers - 1}"
            )
        if self.ssm:
            self._check_scan(self.ssm)
        if self.moe:
            self._check_experts(self.moe)

    def _check_scan(self, ssm: SSM) -> None:
        if self.traits.mamba == 1 and (not ssm.step_rank or ssm.head_dim != 1 or ssm.groups != 1):
            raise ValueError(f"ssm: family={self.family!r} has Mamba-1 layers; set head_dim=1, heads to the inner width, step_rank (hidden / 16 is usual) and leave groups out")  # fmt: skip
        if self.traits.mamba == 2 and ssm.step_rank:
            raise ValueError(f"ssm.step_rank={ssm.step_rank}: family={self.family!r} has Mamba-2 layers, whose steps have no rank; leave it out")  # fmt: skip

    def _check_experts(self, moe: MoE) -> None:
        if moe.dense_layers > self.layers:
            raise ValueError(f"moe.dense_layers={moe.dense_layers} is more than layers={self.layers}")
        if not self.traits.shared and (moe.shared_experts or moe.dense_layers or moe.groups > 1):
            raise ValueError(f"{self.family} has no shared experts, dense layers or expert groups; leave them out, or use deepseek_v3 or glm4_moe")  # fmt: skip
        if moe.every > 1 and (not self.traits.spaced or self.layers < moe.every):
            raise ValueError(f"moe.every={moe.every}: {'no layer is left with experts' if self.traits.spaced else f'all layers of family={self.family!r} have experts'}; lower it, or use jamba or qwen3_moe")  # fmt: skip
        if self.family == "jamba" and (self.ffn != moe.expert_ffn or moe.norm_topk):
            raise ValueError(f"jamba's ffn={self.ffn} is its moe.expert_ffn={moe.expert_ffn}, and norm_topk is always False")  # fmt: skip
        if self.family == "granitemoehybrid" and (self.ffn != moe.expert_ffn * moe.shared_experts or moe.dense_layers or moe.groups > 1 or not moe.norm_topk):  # fmt: skip
            raise ValueError(f"granitemoehybrid's ffn={self.ffn} is the width of its shared experts, moe.expert_ffn×moe.shared_experts={moe.expert_ffn * moe.shared_experts}; it has no dense_layers or groups, and norm_topk is always True")  # fmt: skip
        if self.family == "mixtral" and (self.ffn != moe.expert_ffn or not moe.norm_topk):
            raise ValueError(f"mixtral's ffn={self.ffn} is its moe.expert_ffn={moe.expert_ffn}, and norm_topk is always True")  # fmt: skip

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed; another `family` brings its own traits where this one's were usual."""
        if changes.get("family", self.family) == self.family:
            return super().replace(**changes)
        usual = {name for name, value in _fixed(self.family).items() if getattr(self, name) == value}
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in usual}
        return type(self)(**{**fields, **changes})

    def reaching(self, seq_len: int) -> Self:
        """This model, with positions for sequences of `seq_len` tokens where it has fewer."""
        return self if self.max_seq_len >= seq_len else self.replace(max_seq_len=seq_len)

    def widened(self, hidden: int) -> Self:
        """This model at another width: heads of the same size, everything else in proportion. A narrow model keeps at least one
        head, key/value head and so on."""

        def to(size: int) -> int:
            return max(1, size * hidden // self.hidden)

        moe = self.moe and self.moe.replace(expert_ffn=to(self.moe.expert_ffn))
        return self.replace(hidden=hidden, heads=to(self.heads), kv_heads=to(self.kv_heads), ffn=to(self.ffn), moe=moe)

    @classmethod
    def from_hf(cls, source: Any) -> ModelSpec:
        """From a transformers config, its dict, a folder or config.json, or a name in the catalogue.

        Raises `LabError` for an architecture or a setting that a ModelSpec cannot say.
        """
        from lablib.specs.hf import from_hf

        return from_hf(source)

    def to_hf(self) -> PretrainedConfig:
        """The transformers config of the same model (imports transformers)."""
        from lablib.specs.hf import to_hf

        return to_hf(self)


def _fixed(family: str) -> dict[str, Any]:
    """What a member of the family has where nothing else is said."""
    traits = FAMILIES.get(family, Traits())
    return {
        "gated": traits.gated,
        "positions": traits.positions,
        "tied_embeddings": traits.tied,
        "attention_bias": traits.bias == "always" or traits.mlp_bias,
        "mlp_bias": traits.mlp_bias,
        "qk_norm": traits.qk_norm,
    }
