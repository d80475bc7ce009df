"""A ladder of model shapes from 100M to 400B parameters, for plans that choose the size themselves.

Llama's architecture (grouped queries with eight key/value heads, SwiGLU of 3.5 times the width, RMSNorm), widths and
depths between the published sizes: hidden over layers grows from 40 to 140, as from Llama 3.2 1B to Llama 3.1 405B
(arXiv 2407.21783 Table 3); loss hardly depends on it inside that span (arXiv 2001.08361 §3.1). Heads have 128 features, or
64 below a width of 2,048. Widths from 3,072 on divide
among eight tensor-parallel ranks.
"""

from __future__ import annotations

from functools import lru_cache

from lablib.specs import ModelSpec

SHAPES = (
    (16, 640), (16, 768), (18, 896), (20, 1024), (24, 1152), (24, 1280), (24, 1536), (24, 1792), (24, 2048), (32, 2048), (32, 2560),
    (36, 2816), (40, 3072), (32, 4096), (44, 4096), (40, 5120), (52, 5120), (56, 6144), (60, 7168), (80, 7168), (80, 8192),
    (88, 9216), (96, 10240), (96, 12288), (104, 14336), (118, 16384),
)  # fmt: skip
"""(layers, hidden)."""
KV_HEADS = 8
GATED = 3.5
"""Feed-forward width over hidden, as in Llama 3 8B and 70B."""
TIED = 2048
"""Narrower models share embedding and head, as Llama 3.2 1B and 3B do."""


@lru_cache(maxsize=8)
def shapes(vocab: int = 32_000, max_seq_len: int = 8192) -> tuple[ModelSpec, ...]:
    """The ladder, smallest first. 32,000 is the vocabulary of the data that the Chinchilla laws were fitted on."""
    return tuple(_shape(layers, hidden, vocab, max_seq_len) for layers, hidden in SHAPES)


def _shape(layers: int, hidden: int, vocab: int, max_seq_len: int) -> ModelSpec:
    heads = hidden // (64 if hidden < TIED else 128)
    return ModelSpec(
        family="llama",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=KV_HEADS if heads % KV_HEADS == 0 else heads // 2,
        ffn=int(GATED * hidden),
        vocab=vocab,
        tied_embeddings=hidden < TIED,
        max_seq_len=max_seq_len,
    )
