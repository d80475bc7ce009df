"""The anatomy of a model: every weight matrix and every vector, once. Parameters and FLOPs are both read off it.

Names are transformers' own, so that adapters can be counted by their targets. Checked exactly against transformers'
meta-device count for every family in ``tests/plan/test_params.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from lablib.specs import ModelSpec
from lablib.specs.model import SSM


class Matrix(NamedTuple):
    """A weight of `rows` (inputs) × `cols` (outputs) features, present `copies` times in the whole model."""

    part: str
    """embedding, attention, ffn, experts, router, ssm or head."""
    name: str
    rows: int
    cols: int
    copies: int
    active: int
    """Copies that one token is multiplied by; an embedding is looked up, so none."""

    @property
    def size(self) -> int:
        """Parameters of all copies."""
        return self.rows * self.cols * self.copies


class Vector(NamedTuple):
    """Parameters without a matmul (norms, biases, convolutions): `size` features in `copies` places."""

    part: str
    name: str
    size: int
    copies: int


class Layers(NamedTuple):
    """How many layers have each kind of block."""

    attention: int
    ssm: int
    dense: int
    moe: int
    recurrent: int = 0


def layers(model: ModelSpec) -> Layers:
    """Counts of each kind of block; a layer has one mixer (attention, SSM or RWKV's recurrence) and one feed-forward."""
    if model.traits.recurrent:
        return Layers(0, 0, model.layers, 0, model.layers)
    attention = len(set(model.ssm.attention_layers)) if model.ssm else model.layers
    moe = (model.layers - model.moe.dense_layers) // model.moe.every if model.moe else 0
    return Layers(attention, model.layers - attention, model.layers - moe, moe)


def windowed_layers(model: ModelSpec) -> int:
    """Attention layers with a sliding window; with `window_every` = n, layers n, 2n, … are global."""
    if model.sliding_window is None:
        return 0
    attention = layers(model).attention
    return attention - (attention // model.window_every if model.window_every else 0)


@lru_cache(maxsize=512)
def matrices(model: ModelSpec) -> tuple[Matrix, ...]:
    """Every weight matrix of the model."""
    return tuple(_matrices(model))


@lru_cache(maxsize=512)
def vectors(model: ModelSpec) -> tuple[Vector, ...]:
    """Every parameter that is not a matrix."""
    return tuple(_vectors(model))


def _matrices(model: ModelSpec) -> Iterator[Matrix]:
    h, n = model.hidden, layers(model)
    yield Matrix("embedding", "embed_tokens", model.vocab, h, 1, 0)
    if model.positions == "learned":
        yield Matrix("embedding", "embed_positions", model.max_seq_len, h, 1, 0)
    yield from _latent_attention(model, n.attention) if model.mla else _attention(model, n.attention)
    if n.dense:
        yield from _feed_forward(model, model.ffn, n.dense)
    if model.moe:
        yield from _experts(model, n.moe)
    if model.ssm:
        yield from _mamba(model, model.ssm, n.ssm)
    if n.recurrent:
        yield from _time_mixing(model, n.recurrent)
    yield Matrix("head", "lm_head", h, model.vocab, 0 if model.tied_embeddings else 1, 1)


def _mamba(model: ModelSpec, ssm: SSM, n: int) -> Iterator[Matrix]:
    """Mamba-2 projects gate, x, B, C and steps at once (arXiv 2405.21060 §7); Mamba-1 makes B, C and steps from x after its
    convolution (arXiv 2312.00752 §3.4)."""
    h, inner, rank = model.hidden, ssm_inner(model), ssm.step_rank
    yield Matrix("ssm", "in_proj", h, inner + (inner if rank else ssm_conv(model) + ssm.heads), n, n)
    if rank:
        yield Matrix("ssm", "x_proj", inner, rank + 2 * ssm.state, n, n)
        yield Matrix("ssm", "dt_proj", rank, inner, n, n)
    yield Matrix("ssm", "out_proj", inner, h, n, n)


def mixing(model: ModelSpec) -> int:
    """Width of RWKV's time mixing."""
    return model.heads * model.head_dim if model.traits.recurrent else 0


def _time_mixing(model: ModelSpec, n: int) -> Iterator[Matrix]:
    """RWKV-4's mixing over time, and the gate of its mixing over channels (arXiv 2305.13048 §3.1)."""
    for name in ("key", "value", "receptance"):
        yield Matrix("attention", name, model.hidden, mixing(model), n, n)
    yield Matrix("attention", "output", mixing(model), model.hidden, n, n)
    yield Matrix("ffn", "receptance", model.hidden, model.hidden, n, n)


def _feed_forward(model: ModelSpec, width: int, n: int) -> Iterator[Matrix]:
    """Two matrices, or three where a gate multiplies the first (arXiv 2002.05202)."""
    if model.traits.recurrent:
        yield Matrix("ffn", "key", model.hidden, width, n, n)
        yield Matrix("ffn", "value", width, model.hidden, n, n)
        return
    if model.gated:
        yield Matrix("ffn", "gate_proj", model.hidden, width, n, n)
    yield Matrix("ffn", "up_proj", model.hidden, width, n, n)
    yield Matrix("ffn", "down_proj", width, model.hidden, n, n)


def _attention(model: ModelSpec, n: int) -> Iterator[Matrix]:
    h, d = model.hidden, model.head_dim
    yield Matrix("attention", "q_proj", h, model.heads * d, n, n)
    yield Matrix("attention", "k_proj", h, model.kv_heads * d, n, n)
    yield Matrix("attention", "v_proj", h, model.kv_heads * d, n, n)
    yield Matrix("attention", "o_proj", model.heads * d, h, n, n)


def _latent_attention(model: ModelSpec, n: int) -> Iterator[Matrix]:
    """Multi-head latent attention, arXiv 2405.04434 §2.1."""
    mla, h, heads = model.mla, model.hidden, model.heads
    assert mla is not None
    q_dim = mla.qk_nope_head_dim + mla.qk_rope_head_dim
    if mla.q_lora_rank is None:
        yield Matrix("attention", "q_proj", h, heads * q_dim, n, n)
    else:
        yield Matrix("attention", "q_a_proj", h, mla.q_lora_rank, n, n)
        yield Matrix("attention", "q_b_proj", mla.q_lora_rank, heads * q_dim, n, n)
    yield Matrix("attention", "kv_a_proj_with_mqa", h, mla.kv_lora_rank + mla.qk_rope_head_dim, n, n)
    yield Matrix("attention", "kv_b_proj", mla.kv_lora_rank, heads * (mla.qk_nope_head_dim + mla.v_head_dim), n, n)
    yield Matrix("attention", "o_proj", heads * mla.v_head_dim, h, n, n)


def _experts(model: ModelSpec, n: int) -> Iterator[Matrix]:
    moe, h = model.moe, model.hidden
    assert moe is not None
    width, shared = moe.expert_ffn, moe.expert_ffn * moe.shared_experts
    yield Matrix("router", "gate", h, moe.experts, n, n)
    yield Matrix("experts", "gate_up_proj", h, 2 * width, n * moe.experts, n * moe.top_k)
    yield Matrix("experts", "down_proj", width, h, n * moe.experts, n * moe.top_k)
    if shared:
        yield from _feed_forward(model, shared, n)


def value_dim(model: ModelSpec) -> int:
    """Features of one head's values; those of its queries and keys are `head_dim`."""
    return model.mla.v_head_dim if model.mla else model.head_dim


def ssm_inner(model: ModelSpec) -> int:
    """Width inside a Mamba layer: heads × head_dim."""
    return model.ssm.heads * model.ssm.head_dim if model.ssm else 0


def ssm_conv(model: ModelSpec) -> int:
    """Channels of the convolution: x, and in Mamba-2 B and C (arXiv 2405.21060 §7)."""
    if model.ssm is None:
        return 0
    return ssm_inner(model) + (0 if model.ssm.step_rank else 2 * model.ssm.groups * model.ssm.state)


def _vectors(model: ModelSpec) -> Iterator[Vector]:
    n, traits = layers(model), model.traits
    yield Vector("norm", "layer norms", model.hidden * traits.norm_vectors, traits.norms * model.layers)
    yield Vector("norm", "final norm", model.hidden * traits.norm_vectors, 1)
    if model.qk_norm:
        width = (model.heads + model.kv_heads) if traits.qk_norm_wide else 2
        yield Vector("norm", "query and key norms", width * model.head_dim, n.attention)
    if model.mla:
        yield Vector("norm", "latent norms", (model.mla.q_lora_rank or 0) + model.mla.kv_lora_rank, n.attention)
    if model.attention_bias:
        yield Vector("attention", "biases", sum(_biased(model)), n.attention)
    if model.mlp_bias:
        yield Vector("ffn", "biases", (2 if model.gated else 1) * model.ffn + model.hidden, n.dense)
    if model.ssm:
        yield Vector("ssm", "convolution", ssm_conv(model) * (model.ssm.conv + 1), n.ssm)
        state = model.ssm.state if model.ssm.step_rank else 1
        yield Vector("ssm", "step biases, A_log and D", (2 + state) * model.ssm.heads, n.ssm)
        normed = model.ssm.step_rank + 2 * model.ssm.state if model.ssm.step_rank else ssm_inner(model)
        yield Vector("norm", "norm of steps, B and C, or gated norm", normed, n.ssm)
    if n.recurrent:
        yield Vector("norm", "norm of the embedding", 2 * model.hidden, 1)
        yield Vector("attention", "decays, bonuses and mixes", 2 * mixing(model) + 3 * model.hidden, n.recurrent)
        yield Vector("ffn", "mixes", 2 * model.hidden, n.recurrent)


def _biased(model: ModelSpec) -> Iterator[int]:
    """Widths of one layer's attention biases; DeepSeek-V3 has them on the down projections and the output only."""
    if model.mla:
        yield from (model.mla.q_lora_rank or 0, model.mla.kv_lora_rank + model.mla.qk_rope_head_dim, model.hidden)
    else:
        yield from (model.heads * model.head_dim, 2 * model.kv_heads * model.head_dim)
        yield model.hidden if model.traits.output_bias else 0
