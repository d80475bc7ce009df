"""Small models of all five families, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from lablib.specs import MLA, SSM, ModelSpec, MoE

FAMILIES = ("llama", "qwen3", "qwen3_moe", "deepseek_v3", "bamba")


@st.composite
def models(draw: st.DrawFn, families: tuple[str, ...] = FAMILIES) -> ModelSpec:
    """Any small model that transformers can build."""
    family = draw(st.sampled_from(families))
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    head_dim = draw(st.sampled_from([4, 8, 12, 16]))
    heads = kv_heads * group
    hidden = heads * head_dim if family in ("llama", "bamba") else 4 * draw(st.integers(2, 16))
    return ModelSpec(
        family=family,
        layers=draw(st.integers(1, 4)),
        hidden=hidden,
        heads=heads,
        kv_heads=heads if family == "deepseek_v3" else kv_heads,
        head_dim=0 if family == "deepseek_v3" else head_dim,
        ffn=draw(st.integers(1, 60)),
        vocab=draw(st.integers(8, 300)),
        tied_embeddings=draw(st.booleans()),
        attention_bias=draw(st.booleans()),
        max_seq_len=draw(st.sampled_from([64, 4096])),
        rope_theta=draw(st.sampled_from([10000.0, 500000.0])),
        moe=draw(_experts(family)) if family in ("qwen3_moe", "deepseek_v3") else None,
        mla=draw(_latent()) if family == "deepseek_v3" else None,
        ssm=draw(_mamba(hidden)) if family == "bamba" else None,
    )


@st.composite
def _experts(draw: st.DrawFn, family: str) -> MoE:
    groups = draw(st.sampled_from([1, 2])) if family == "deepseek_v3" else 1
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
        expert_ffn=draw(st.integers(1, 20)),
        norm_topk=draw(st.booleans()),
        **(own if family == "deepseek_v3" else {}),
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
def _mamba(draw: st.DrawFn, hidden: int) -> SSM:
    heads = hidden * draw(st.sampled_from([1, 2])) // 4
    return SSM(
        heads=heads,
        head_dim=4,
        state=draw(st.sampled_from([4, 8])),
        groups=draw(st.sampled_from([n for n in (1, 2, 3) if heads % n == 0])),
        chunk=16,
        conv=draw(st.sampled_from([2, 4])),
        attention_layers=draw(st.sampled_from([(), (0,)])),
    )
