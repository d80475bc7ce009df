"""Small models of every family, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from lablib.specs import MLA, SSM, ModelSpec, MoE

FAMILIES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "gpt2", "nemotron",
    "qwen3_moe", "mixtral", "glm4_moe", "deepseek_v3", "bamba", "jamba", "granitemoehybrid", "rwkv",
)  # fmt: skip
HYBRID = ("bamba", "jamba", "granitemoehybrid")
PLAIN = ("llama", "gpt2", "qwen2", "olmo2", *HYBRID)
"""Families whose heads fill the hidden width in transformers."""
FREE_BIAS = ("llama", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "nemotron", "qwen3_moe", "glm4_moe", "deepseek_v3", "bamba", "granitemoehybrid")  # fmt: skip


@st.composite
def models(draw: st.DrawFn, families: tuple[str, ...] = FAMILIES) -> ModelSpec:
    """Any small model that transformers can build."""
    family = draw(st.sampled_from(families))
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    head_dim = draw(st.sampled_from([4, 8, 12, 16]))
    kv_heads, group = (1, 1) if family == "rwkv" else (kv_heads, group)
    heads = kv_heads * group
    hidden = heads * head_dim if family in PLAIN else 4 * heads * draw(st.integers(1, 8))
    if family in ("gpt2", "deepseek_v3", "rwkv"):
        kv_heads = heads
    layers, ffn = draw(st.integers(2 if family == "rwkv" else 1, 4)), draw(st.integers(1, 60))
    sparse = family in ("qwen3_moe", "mixtral", "glm4_moe", "deepseek_v3")
    sparse = sparse or (family in ("jamba", "granitemoehybrid") and draw(st.booleans()))
    moe = draw(_experts(family, ffn, layers)) if sparse else None
    if moe and family == "granitemoehybrid":
        ffn = moe.expert_ffn * moe.shared_experts
    own: dict[str, object] = {"attention_bias": draw(st.booleans())} if family in FREE_BIAS else {}
    if family == "glm4_moe":
        own["qk_norm"] = draw(st.booleans())
    if family not in ("gpt2", "jamba", "granitemoehybrid", "rwkv"):
        own["rope_theta"] = draw(st.sampled_from([10000.0, 500000.0]))
    return ModelSpec(
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=0 if family == "deepseek_v3" else head_dim,
        ffn=ffn,
        vocab=draw(st.integers(8, 300)),
        tied_embeddings=draw(st.booleans()),
        max_seq_len=draw(st.sampled_from([64, 4096])),
        moe=moe,
        mla=draw(_latent()) if family == "deepseek_v3" else None,
        ssm=draw(_mamba(family, hidden, layers)) if family in HYBRID else None,
        **draw(_windows(family, layers)),
        **own,
    )


@st.composite
def _windows(draw: st.DrawFn, family: str, layers: int) -> dict[str, int]:
    if family not in ("mistral", "mixtral", "gemma2", "gemma3") or not draw(st.booleans()):
        return {}
    every = draw(st.integers(2, layers)) if family.startswith("gemma") and layers > 1 and draw(st.booleans()) else 0
    return {"sliding_window": draw(st.integers(1, 40)), "window_every": every}


@st.composite
def _experts(draw: st.DrawFn, family: str, ffn: int, layers: int) -> MoE:
    shared = family in ("deepseek_v3", "glm4_moe")
    spaced = family in ("qwen3_moe", "jamba")
    groups = draw(st.sampled_from([1, 2])) if shared else 1
    experts = groups * draw(st.integers(2, 4))
    own = {
        "groups": groups,
        "top_groups": groups,
        "shared_experts": draw(st.integers(1, 2)),
        "dense_layers": draw(st.integers(0, 1)),
    }
    return MoE(
        experts=experts,
        top_k=draw(st.integers(1, experts)),
        expert_ffn=ffn if family in ("mixtral", "jamba") else draw(st.integers(1, 20)),
        norm_topk=family in ("mixtral", "granitemoehybrid") or (family != "jamba" and draw(st.booleans())),
        every=draw(st.integers(1, layers)) if spaced else 1,
        **({"shared_experts": draw(st.integers(1, 2))} if family == "granitemoehybrid" else own if shared else {}),
    )


@st.composite
def _latent(draw: st.DrawFn) -> MLA:
    return MLA(
        q_lora_rank=draw(st.sampled_from([None, 4, 10])),
        kv_lora_rank=draw(st.integers(1, 12)),
        qk_nope_head_dim=draw(st.sampled_from([4, 6])),
        qk_rope_head_dim=draw(st.sampled_from([2, 4])),
        v_head_dim=draw(st.sampled_from([3, 8])),
    )


@st.composite
def _mamba(draw: st.DrawFn, family: str, hidden: int, layers: int) -> SSM:
    inner = hidden * draw(st.sampled_from([1, 2]))
    if family == "jamba":
        period = draw(st.integers(1, layers + 1))
        wide = tuple(range(draw(st.integers(0, period - 1)), layers, period))
        rank, state, conv = draw(st.integers(1, 6)), draw(st.integers(1, 8)), draw(st.sampled_from([2, 4]))
        return SSM(heads=inner, head_dim=1, state=state, conv=conv, step_rank=rank, attention_layers=wide)
    heads = inner // 4
    return SSM(
        heads=heads,
        head_dim=4,
        state=draw(st.sampled_from([4, 8])),
        groups=draw(st.sampled_from([n for n in (1, 2, 3) if heads % n == 0])),
        chunk=16,
        conv=draw(st.sampled_from([2, 4])),
        attention_layers=draw(st.sampled_from([(), (0,)])),
    )
