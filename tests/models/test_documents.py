"""Attention inside documents equals transformers' own under a mask, for every family that can have it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lablib.models import documents
from lablib.models.build import build_model
from lablib.models.context import context_mask
from lablib.models.documents import DOCUMENTS, attend_within
from lablib.models.recompute import apply_recompute
from lablib.specs import ModelSpec
from lablib.specs.families import FAMILIES
from lablib.specs.model import MLA, MoE
from lablib.train.insight.layers import Layers, logit_max

SHAPE: dict[str, Any] = {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 96, "vocab": 128}
EXPERTS = MoE(experts=4, top_k=2, expert_ffn=96)
LATENT = MLA(q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16)
SPECIAL: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 20},
    "gemma2": {"sliding_window": 20, "window_every": 2},
    "gemma3": {"sliding_window": 20, "window_every": 2},
    "deepseek_v3": {"mla": LATENT, "kv_heads": 4, "head_dim": 24},
    "gpt2": {"kv_heads": 4},
    "rwkv": {"heads": 1, "kv_heads": 1, "head_dim": 64},
}
UNABLE = ("gemma2", "gpt2", "rwkv")
POSITIONS = torch.stack(
    [torch.cat([torch.arange(n) for n in lengths]) for lengths in ((40, 3, 53), (1, 95))]
    + [torch.cat([torch.arange(50, 70), torch.arange(76)])]  # the first document began in the sequence before
)
TOKENS = torch.randint(0, 128, POSITIONS.shape, generator=torch.Generator().manual_seed(0))


def spec(family: str) -> ModelSpec:
    experts = {"moe": EXPERTS} if "moe" in FAMILIES[family].parts else {}  # type: ignore[index]
    return ModelSpec(family=family, **{**SHAPE, **experts, **SPECIAL.get(family, {})})  # type: ignore[arg-type]


def trained(model: Any, positions: Tensor = POSITIONS) -> tuple[Tensor, Tensor]:
    """Logits, and all gradients in a row."""
    logits = model(input_ids=TOKENS, position_ids=positions, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS.flatten()).backward()
    found = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad()
    return logits.detach(), found


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(float((a - b).norm() / b.norm()) < 1e-6 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("family", [name for name, traits in FAMILIES.items() if "ssm" not in traits.parts])
def test_it_is_what_a_mask_gives(family: str) -> None:
    model = build_model(spec(family), 0)
    masked = trained(model)
    assert attend_within(model) == (family not in UNABLE)
    if family not in UNABLE:
        assert model.config._attn_implementation == DOCUMENTS
        assert same(trained(model), masked)


@pytest.mark.parametrize("lost", ["documents", "window"])
def test_what_is_seen_too_much_shows(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(spec("mistral"), 0)
    masked = trained(model)
    attend_within(model)
    if lost == "documents":
        monkeypatch.setattr(documents, "boundaries", lambda found: torch.arange(len(found) + 1) * found.shape[1])
    else:
        monkeypatch.setattr(documents, "_band", lambda order, _: order[:, None] >= order[None, :])
    assert not same(trained(model), masked)


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_recomputation_gives_the_same(kind: Any) -> None:
    model = build_model(spec("qwen3"), 0)
    attend_within(model)
    plain = trained(model)
    model.train()
    apply_recompute(model, kind)
    assert same(trained(model), plain)


def test_a_mask_that_is_given_is_obeyed() -> None:
    model = build_model(spec("llama"), 0)
    attend_within(model)
    inside = model(input_ids=TOKENS, position_ids=POSITIONS, use_cache=False).logits
    mask = context_mask(POSITIONS, 0, 1)
    again = model(input_ids=TOKENS, position_ids=POSITIONS, attention_mask=mask, use_cache=False).logits
    assert torch.allclose(inside, again, atol=1e-6)


def _flash(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, keys: Tensor, longest: int, *_: Any,
           scale: float | None, window_size: tuple[int, int], enable_gqa: bool) -> Tensor:  # fmt: skip
    """What torch says that `varlen_attn` computes, for machines without it."""
    assert torch.equal(ends, keys) and int(ends.diff().max()) <= longest
    found, (back, ahead) = [], window_size
    assert ahead == 0
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        q, k, v = (tensor[start:end].transpose(0, 1) for tensor in (query, key, value))
        order = torch.arange(end - start)
        far = order[:, None] - order[None, :]
        mask = (far >= 0) & ((far <= back) | (back < 0))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=enable_gqa)
        found.append(out.transpose(0, 1))
    return torch.cat(found)


@pytest.mark.parametrize("family", ["qwen3", "mistral"])
def test_all_documents_in_one_kernel_are_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(spec(family), 0)
    attend_within(model)
    one_by_one = trained(model)
    packed = documents._packed
    monkeypatch.setattr(documents, "varlen_attn", _flash)
    monkeypatch.setattr(
        documents, "attention",
        lambda module, query, key, value, mask, position_ids, scaling, sliding_window=None, **_: (
            packed(query, key, value, documents.boundaries(position_ids), scaling, sliding_window), None
        ),
    )  # fmt: skip
    attend_within(model)
    assert same(trained(model), one_by_one)


def test_the_kernel_is_given_16_bits_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(documents, "varlen_attn", lambda *some, **more: given.extend(some[:3]) or _flash(*some, **more))
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 4, 96, 16, generator=draw) for _ in range(3))  # rotary positions leave it fp32
    with torch.autocast("cpu", torch.bfloat16):
        found = documents._packed(query, key, value.bfloat16(), documents.boundaries(POSITIONS[:1]), None, None)
        one_by_one, _ = documents.attention(torch.nn.Module(), query, key, value.bfloat16(), None, POSITIONS[:1])
    assert {tensor.dtype for tensor in given} == {found.dtype} == {torch.bfloat16}
    torch.testing.assert_close(found, one_by_one, atol=5e-3, rtol=0.016)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [({}, True), ({"dtype": torch.float32}, False), ({"width": 12}, False), ({"width": 320}, False), ({"card": (7, 5)}, False), ({"values": 32}, False)],
)  # fmt: skip
def test_what_the_one_kernel_takes(changes: dict[str, Any], taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"dtype": torch.bfloat16, "width": 64, "card": (8, 0)} | changes
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: given["card"])
    query, value = (
        SimpleNamespace(is_cuda=True, device=torch.device("cuda"), dtype=given["dtype"], shape=(1, 4, 96, width))
        for width in (given["width"], given.get("values", given["width"]))
    )
    assert documents._packable(query, value) == taken  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [None, 7])
def test_what_is_visible(window: int | None) -> None:
    (mask,) = context_mask(POSITIONS[:1], 0, 1, window)
    for query, key in ((39, 39), (40, 39), (42, 40), (95, 43), (50, 44), (50, 43), (43, 50)):
        document = [0] * 40 + [1] * 3 + [2] * 53
        expected = document[query] == document[key] and 0 <= query - key < (window or 96)
        assert bool(mask[0, query, key]) == expected


def logits_seen(model: Any, positions: Tensor) -> dict[int, list[float]]:
    """The largest logit of each layer, as a look inside finds it."""
    layers = Layers(model, torch.optim.SGD(model.parameters()))
    layers.arm()
    model(input_ids=TOKENS, position_ids=positions, use_cache=False)
    layers.disarm()
    return layers.sums(1.0)["logit_max"]


def test_a_look_inside_sees_the_logits_of_documents_and_windows_alone() -> None:
    model, rows = build_model(spec("mistral"), 0), torch.arange(96).expand(len(TOKENS), -1)
    several = POSITIONS, rows.remainder(4), rows  # most pairs are hidden by documents, or by the window
    masked = [logits_seen(model, positions) for positions in several]
    attend_within(model)
    assert [logits_seen(model, positions) for positions in several] == masked


def test_one_row_of_positions_is_that_of_every_sequence() -> None:
    model = build_model(spec("llama"), 0)
    masked = model(TOKENS, use_cache=False).logits
    attend_within(model)
    torch.testing.assert_close(model(TOKENS, use_cache=False).logits, masked)


def test_the_largest_logit_is_of_pairs_that_meet() -> None:
    query = torch.zeros(1, 1, 96, 4)
    key = torch.zeros(1, 1, 96, 4)
    query[..., 41, 0], key[..., 5, 0], key[..., 40, 0] = 1.0, 100.0, 2.0
    assert logit_max(query, key, context_mask(POSITIONS[:1], 0, 1), 1.0) == 2.0
    assert logit_max(query, key, None, 1.0) == 100.0
