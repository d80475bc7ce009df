"""Decoding: bytes of caches, the roofline of a step, and a batch whose longest sequence decides."""

from __future__ import annotations

import pytest

from lablib.plan import efficiency, sampling
from lablib.plan.machine import Machine
from lablib.plan.params import count
from lablib.plan.sampling import Sampler
from lablib.specs import Cluster, LabError, catalog

H100 = Machine(Cluster(accelerator="h100-sxm"), efficiency.GPU, 1, 8)
LLAMA, DEEPSEEK = catalog.models["llama-3.1-8b"], catalog.models["deepseek-v3"]
SERVED = Sampler(served=True)


def test_caches_are_closed_forms() -> None:
    assert sampling.cache_bytes(LLAMA, 2) == 32 * 2 * 8 * 128 * 2  # 128 KiB a token
    assert sampling.cache_bytes(DEEPSEEK, 2, latent=True) == 61 * 576 * 2
    assert sampling.cache_bytes(DEEPSEEK, 2) == 61 * 128 * (192 + 128) * 2
    windowed = LLAMA.replace(family="mistral", sliding_window=1024)
    assert sampling.cache(windowed, 8192, 2) == sampling.cache(LLAMA, 1024, 2)
    assert sampling.cache(windowed, 512, 2) == sampling.cache(LLAMA, 512, 2)


def test_a_recurrence_leaves_a_state_that_does_not_grow() -> None:
    jamba, rwkv = catalog.models["jamba-v0.1"], catalog.models["rwkv-4-7b"]
    # 4 GB for 256K tokens in 16 bits (arXiv 2403.19887 Table 1): four attention layers of 8 key heads of 128
    assert sampling.cache_bytes(jamba, 2) * 262144 == 4 * 2**30
    assert sampling.cache(jamba, 0, 2) == 28 * 2 * 8192 * (16 + 4)
    assert sampling.cache(rwkv, 1, 2) == sampling.cache(rwkv, 1e6, 2) == 32 * 4096 * (2 * 2 + 3 * 4)


def test_one_sequence_reads_the_weights_and_a_batch_reads_them_once() -> None:
    alone, many = (sampling.step_seconds(LLAMA, batch, 512, SERVED, H100) for batch in (1, 64))
    floor = 2 * (count(LLAMA).total - 128256 * 4096) / 3.35e12
    assert floor < alone < 3 * floor and many < 2 * alone
    plain = sampling.step_seconds(LLAMA, 1, 512, Sampler(), H100)
    assert plain > alone  # `generate` launches every kernel from the host


def test_a_batch_touches_more_experts_than_one_token() -> None:
    active, total = count(DEEPSEEK).active, count(DEEPSEEK).total
    few, many = sampling.weights_read(DEEPSEEK, 1), sampling.weights_read(DEEPSEEK, 512)
    assert few == pytest.approx(active, rel=0.05) and many == pytest.approx(total, rel=0.01)


def test_tensor_parallel_ranks_are_faster_but_not_in_proportion() -> None:
    one, eight = (sampling.step_seconds(LLAMA, 8, 512, Sampler(tp, served=True), H100) for tp in (1, 8))
    assert one / 8 < eight < one


def test_the_longest_sequence_decides_how_long_a_batch_takes() -> None:
    short, tail = (sampling.serve_seconds(LLAMA, 64, 100, 200, longest, SERVED, H100) for longest in (200, 2000))
    assert 3 < tail / short < 10
    queued = sampling.serve_seconds(LLAMA, 100_000, 100, 200, 2000, SERVED, H100)
    assert queued > 10 * tail


def test_an_unknown_rate_is_an_error() -> None:
    a100 = Machine(Cluster(accelerator="a100-sxm"), efficiency.GPU)
    with pytest.raises(LabError, match="no rate is known"):
        sampling.step_seconds(LLAMA, 1, 100, Sampler(precision="fp8"), a100)
