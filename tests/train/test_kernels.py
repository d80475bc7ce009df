"""Attention's implementations, 8-bit states and what goes together: against sdpa, brute force and torchao."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import recipe
from torch.nn.functional import scaled_dot_product_attention

from lablib.models.attention import attend, check_attention, varlen
from lablib.models.build import build_model
from lablib.models.documents import boundaries
from lablib.models.float8 import convert
from lablib.plan.engines import OPTIMIZER_BYTES
from lablib.specs import SSM, LabError, ModelSpec, MoE, Optimizer, Parallelism, Pretrain
from lablib.train.able import check
from lablib.train.batches import Batch
from lablib.train.doremi import doremi
from lablib.train.losses import TokenLosses
from lablib.train.optimizer import build_optimizer
from lablib.train.ran import ran
from lablib.train.rules.base import Ruled, moments
from lablib.train.rules.blockwise import AdamW8, dequantised, levels, quantised
from lablib.train.rules.elementwise import AdamW

MODEL = ModelSpec(family="qwen3", layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab=97)
CPU = torch.device("cpu")


def batch() -> Batch:
    """Three sequences of 12 tokens in several documents; the second continues one of the window before."""
    ids = torch.randint(97, (3, 12), generator=torch.Generator().manual_seed(3))
    rows = [[*range(5), *range(7)], [*range(40, 43), *range(9)], list(range(12))]
    return Batch(ids, ids.roll(-1, 1), torch.tensor(rows))


def test_boundaries_of_documents() -> None:
    assert boundaries(batch().positions).tolist() == [0, 5, 12, 15, 24, 36]
    assert boundaries(torch.zeros(1, 3, dtype=torch.long)).tolist() == [0, 1, 2, 3]


def _varlen(query: Any, key: Any, value: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, **options: Any) -> torch.Tensor:
    """What flash_attn_varlen_func computes, of tensors (tokens, heads, head_dim)."""
    out = torch.empty_like(query)
    for start, end in pairwise(cu_seqlens_q):
        parts = (tensor[start:end].transpose(0, 1)[None] for tensor in (query, key, value))
        found = scaled_dot_product_attention(*parts, is_causal=True, scale=options["softmax_scale"], enable_gqa=True)
        out[start:end] = found[0].transpose(0, 1)
    return out


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model that believes to have FlashAttention, whose two functions are computed by sdpa here."""
    from transformers import modeling_flash_attention_utils as utils

    def whole(query: Any, key: Any, value: Any, **options: Any) -> torch.Tensor:
        parts = (tensor.transpose(1, 2) for tensor in (query, key, value))
        found = scaled_dot_product_attention(*parts, is_causal=True, scale=options["softmax_scale"], enable_gqa=True)
        return found.transpose(1, 2)

    functions = (whole, _varlen, None, None, None), (lambda **options: options, None)
    monkeypatch.setattr(utils, "lazy_import_flash_attention", lambda *_, **__: functions)
    model = build_model(MODEL, 0)
    model.config._attn_implementation = "flash_attention_2"
    return model


def test_flash_kernels_are_told_of_the_documents_of_every_sequence(flash: Any) -> None:
    wanted = TokenLosses(build_model(MODEL, 0))(batch())
    torch.testing.assert_close(TokenLosses(flash)(batch()), wanted)
    given = batch()
    alone = flash(input_ids=given.inputs, position_ids=given.positions, use_cache=False).logits
    crossed = torch.nn.functional.cross_entropy(alone.flatten(0, 1), given.labels.flatten(), reduction="none")
    assert float((crossed - wanted).abs().max()) > 1e-3, "transformers alone would attend across documents"


def test_other_attention_is_told_nothing() -> None:
    assert varlen(build_model(MODEL, 0), batch().positions, None) == {}


@pytest.mark.slow
def test_flex_attention_sees_the_documents_that_sdpa_sees() -> None:
    ours, flex = build_model(MODEL, 0), build_model(MODEL, 0)
    flex.set_attn_implementation("flex_attention")
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        torch.testing.assert_close(TokenLosses(flex.eval())(batch()), TokenLosses(ours.eval())(batch()))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flash_attention_2", "no kernel on a cpu; set attention='auto'"),
        ("flash_attention_3", "no kernel on a cpu"),
        ("flex_attention", "no backward pass on a cpu"),
    ],
)
def test_kernels_that_the_machine_has_not_are_refused(name: Any, said: str) -> None:
    with pytest.raises(LabError, match=said):
        check_attention(name, CPU)


def test_sdpa_is_everywhere() -> None:
    model = build_model(MODEL, 0)
    for name in ("auto", "sdpa"):
        check_attention(name, CPU)  # type: ignore[arg-type]
        attend(model, name)  # type: ignore[arg-type]
    assert model.config._attn_implementation == "sdpa"


WIDE = ModelSpec(family="qwen3", layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=512, vocab=320)
MIXED = WIDE.replace(family="qwen3_moe", moe=MoE(experts=4, top_k=2, expert_ffn=64))
HYBRID = WIDE.replace(family="bamba", ssm=SSM(heads=8, head_dim=64, state=8, attention_layers=(1,)), head_dim=None)
FLASH: dict[str, Any] = {"attention": "flash_attention_2", "precision": "bf16"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (FLASH | {"precision": "fp32"}, "16 bits; set precision='bf16'"),
        (FLASH | {"parallelism": Parallelism(cp=2)}, "cp=2.*set attention='auto', or cp=1"),
        (FLASH | {"parallelism": Parallelism(pp=2)}, "pp=2.*set attention='auto', or pp=1"),
        (FLASH | {"parallelism": Parallelism(tp=2, sequence_parallel=True)}, "sequence_parallel"),
        (FLASH | {"inspect_every": 2}, "leave inspect_every out"),
        (FLASH | {"model": HYBRID, "document_mask": False}, "recurrent layers"),
        ({"cross_entropy": "fused", "parallelism": Parallelism(tp=2)}, "set cross_entropy='chunked'"),
        ({"cross_entropy": "fused", "parallelism": Parallelism(pp=2)}, "schedule asks.*chunked"),
        ({"precision": "fp8", "parallelism": Parallelism(tp=2)}, "tp=2"),
        ({"precision": "fp8", "parallelism": Parallelism(pp=2)}, "pp=2"),
        ({"precision": "fp8", "model": MIXED}, "stacks of matrices"),
        ({"precision": "fp8", "seq_len": 24}, "multiple of 16"),
        ({"precision": "mxfp8"}, "only the planner does"),
        ({"optimizer": Optimizer(kind="adamw-8bit"), "parallelism": Parallelism(tp=2)}, "blocks of 256.*'adamw-bf16'"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match=said):
        check(wanted(**changes))


def wanted(**changes: Any) -> Pretrain:
    layout = changes.get("parallelism", Parallelism())
    rows = 8 * layout.dp
    base: dict[str, Any] = {"model": WIDE, "seq_len": 32, "parallelism": layout}
    made = {**base, **changes}
    return recipe("core", **{**made, "layout": made.pop("parallelism")}, batch_tokens=rows * made["seq_len"])  # type: ignore[arg-type]


def test_what_goes_together_is_let_through() -> None:
    for changes in (FLASH, FLASH | {"parallelism": Parallelism(dp_shard=2, tp=2)}, {"precision": "fp8", "parallelism": Parallelism(dp_shard=2, cp=2)},
                    {"cross_entropy": "fused", "parallelism": Parallelism(dp_shard=2, cp=2)}, {"optimizer": Optimizer(kind="adamw-8bit")}):  # fmt: skip
        check(wanted(**changes))


def test_how_it_is_computed_is_no_other_experiment() -> None:
    assert wanted(attention="flex_attention").science_hash == wanted().science_hash


def test_the_manifest_says_what_computes() -> None:
    model = build_model(MODEL, 0)
    made = wanted(precision="bf16", cross_entropy="chunked", parallelism=Parallelism(dp_shard=2), reduce_dtype="bf16")
    found = ran(made, model, CPU)
    assert found["attention"] == {"implementation": "sdpa"} and found["cross_entropy"] == "chunked"
    assert found["precision"] == {"compute": "bf16 gathered by FSDP2", "master": "float32", "reduce": "bf16"}
    assert found["optimizer"] == "torch.optim.AdamW, fused" and "float8" not in found
    alone = ran(wanted(precision="bf16"), model, CPU)["precision"]
    assert alone == {"compute": "bf16 under autocast", "master": "float32", "reduce": None}
    pytest.importorskip("torchao")
    convert(model, emulate=True)
    eight = ran(wanted(precision="fp8"), model, CPU)["float8"]
    assert (eight["linears"], eight["of"]) == (14, 15) and "E5M2" in eight["recipe"]


def test_the_proxy_of_doremi_is_not_trained_in_other_bits_than_it_says() -> None:
    with pytest.raises(LabError, match=r"precision='fp8'.*set precision='bf16'"):
        doremi(wanted(precision="fp8"), Path("nowhere"), torch.nn.Identity())


# --- 8-bit states


@pytest.mark.parametrize("signed", [True, False])
def test_levels_are_those_of_torchao_and_bitsandbytes(signed: bool) -> None:
    found = torch.tensor(levels(signed))
    assert len(found) == 256 and found[-1] == 1 and 0.0 in found
    assert float(found.abs()[found != 0].min()) == pytest.approx(5.5e-7 if signed else 3.25e-7)
    utils = pytest.importorskip("torchao.optim.quant_utils")
    torch.testing.assert_close(found, torch.tensor(utils.create_dynamic_map(signed)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(3, 256), (2, 3, 600), (4, 20), (1, 1)]), st.booleans())
def test_codes_are_the_nearest_levels_of_each_block(seed: int, shape: tuple[int, ...], signed: bool) -> None:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) ** 3
    value = value if signed else value.abs()
    codes, scales = quantised(value, signed)
    assert (
        codes.dtype == torch.uint8
        and codes.shape == value.shape
        and scales.shape == (*shape[:-1], -(-shape[-1] // 256))
    )
    back, table = dequantised(codes, scales, signed), torch.tensor(levels(signed), dtype=torch.float64)
    table = table if signed else table[1:]  # a second moment is never rounded to nothing
    for index, exact in enumerate(value.flatten(0, -2).double()):
        for start in range(0, shape[-1], 256):
            block = exact[start : start + 256]
            best = (block[:, None] / block.abs().max() - table).abs().min(1).values * block.abs().max()
            off = (back.flatten(0, -2)[index, start : start + 256] - block).abs()
            torch.testing.assert_close(off, best, atol=1e-6 * float(block.abs().max()), rtol=1e-3)


def test_a_block_of_nothing_stays_nothing() -> None:
    codes, scales = quantised(torch.zeros(2, 256), True)
    assert not scales.any() and not dequantised(codes, scales, True).any()


def trained(make: Any, steps: int = 40) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    """A matrix of 16 rows of 512 after some updates that draw it to the origin, with noise."""
    draw = torch.Generator().manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(16, 512, generator=draw))
    optimizer = make([weight])
    for _ in range(steps):
        weight.grad = weight.detach() + torch.randn(weight.shape, generator=draw)
        optimizer.step()
    return weight.detach(), optimizer


def ours(rule: Any) -> Any:
    return lambda weights: Ruled([{"params": weights, "rule": rule, "weight_decay": 0.1}], 0.01)


def test_eight_bits_follow_adamw() -> None:
    eight, full = (trained(ours(rule((0.9, 0.95), 1e-8)))[0] for rule in (AdamW8, AdamW))
    start = trained(ours(AdamW((0.9, 0.95), 1e-8)), steps=0)[0]
    assert 0 < float((eight - full).norm()) < 0.05 * float((full - start).norm())


def moved_most(rule: Any) -> float:
    """The largest update, over the rate, of an embedding of which each step reads a tenth of the words."""
    draw, weight, most = torch.Generator().manual_seed(0), torch.nn.Parameter(torch.zeros(64, 256)), 0.0
    optimizer = ours(rule)([weight])
    for _ in range(40):
        before = weight.detach().clone()
        weight.grad = torch.randn(64, 256, generator=draw) * (torch.rand(64, 1, generator=draw) < 0.1) * 1e-2
        optimizer.step()
        most = max(most, float((weight.detach() - before).abs().max()) / 0.01)
    return most


def test_eight_bits_move_rows_that_are_read_seldom_no_further() -> None:
    eight, full = (moved_most(rule((0.9, 0.95), 1e-8)) for rule in (AdamW8, AdamW))
    assert eight < 1.1 * full


def test_updates_are_torchaos(monkeypatch: pytest.MonkeyPatch) -> None:
    adam = pytest.importorskip("torchao.optim.adam")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    peer, state = trained(lambda weights: adam.AdamW8bit(weights, 0.01, (0.9, 0.95), 1e-8, 0.1))
    found, optimizer = trained(ours(AdamW8((0.9, 0.95), 1e-8)))
    start = trained(ours(AdamW8((0.9, 0.95), 1e-8)), steps=0)[0]
    assert float((found - peer).norm()) < 1e-3 * float((peer - start).norm())
    [held], [theirs] = optimizer.state.values(), state.state.values()
    differing = held["exp_avg_code"] != theirs["exp_avg"].codes
    assert float(differing.float().mean()) < 0.01, "but for what rounding puts between two levels"
    torch.testing.assert_close(held["exp_avg_sq_scale"].flatten(), theirs["exp_avg_sq"].scale, rtol=1e-3, atol=0)


def test_the_planner_counts_the_bytes_that_are_held() -> None:
    model = build_model(WIDE, 0)
    optimizer = build_optimizer(model, Optimizer(kind="adamw-8bit"))
    held = sum(tensor.nbytes for weight in model.parameters() for tensor in moments(optimizer, weight).values())
    count = sum(weight.numel() for weight in model.parameters())
    assert held / count == pytest.approx(OPTIMIZER_BYTES["adamw-8bit"], rel=0.02)
