"""Short measurements of a machine, run by `lablib.plan.calibrate` in a process of its own.

A process of its own keeps torch out of the planner, fixes the number of threads before any library starts, and makes
the resident memory of "Python with its libraries" a clean figure. The step probe is a real training step: the same
transformers model, loss and fused AdamW as pretraining; each sequence is one document, the longest that attention meets.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lablib.specs import ModelSpec, memory

if TYPE_CHECKING:
    import torch

VOCAB = 4096
SHAPES = (
    # layers, hidden, ffn, sequences, tokens of a sequence: from launch-bound to matmul-bound, a second or less each
    (2, 64, 192, 2, 64),
    (2, 64, 192, 8, 256),
    (4, 128, 384, 8, 128),
    (6, 256, 768, 8, 256),
    (4, 512, 1536, 2, 256),
)
MIDDLE = SHAPES[3]
"""Where bf16, threads and sampling are compared: about what a small run on a CPU trains."""
LARGE = (
    # what a GPU's step takes from its matmuls and not from its host: 0.2 to 1.4 B parameters, under 40 GiB
    (8, 1024, 4096, 8, 1024),
    (8, 2048, 8192, 4, 2048),
    (6, 4096, 14336, 2, 2048),
)
MATMUL = 1024
"""Side of the square matmul: larger ones are no faster on a CPU core, and take seconds."""


def shape(layers: int, hidden: int, ffn: int, tokens: int) -> ModelSpec:
    """A small Qwen3 with heads of 32 or 64 features."""
    heads = max(2, hidden // 64)
    return ModelSpec(
        family="qwen3",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads // 2,
        ffn=ffn,
        vocab=VOCAB,
        tied_embeddings=True,
        max_seq_len=2 * tokens,
    )


def best(work: Callable[[], object], seconds: float = 0.4, least: int = 3) -> float:
    """Fastest of as many repetitions as fit in `seconds` (at least `least`), after one to warm up."""
    work()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def numpy_rates() -> dict[str, float]:
    """fp32 matmul FLOP/s and memory bandwidth (bytes read and written, of a copy) with NumPy alone."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, MATMUL, MATMUL), dtype=np.float32)
    source = np.zeros(2**25, dtype=np.float32)
    target = np.empty_like(source)
    copying = best(lambda: np.copyto(target, source))
    return {"fp32": 2 * MATMUL**3 / best(lambda: left @ right), "bandwidth": 2 * source.nbytes / copying}


def torch_rates() -> dict[str, Any]:
    """Everything that needs torch: imports, resident memory after one tiny step (GiB), matmuls, steps, sampling."""
    begun = time.perf_counter()
    import torch
    import transformers  # noqa: F401

    imports = time.perf_counter() - begun
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {"imports": imports, "device": str(device)}
    step_seconds(SHAPES[0], device)
    found["resident"] = memory.peak_gib()
    found["matmul"] = {name: matmul_rate(getattr(torch, kind), device) for name, kind in (("fp32", "float32"), ("bf16", "bfloat16"))}  # fmt: skip
    found["steps"] = [{"shape": size, "seconds": step_seconds(size, device)} for size in SHAPES]
    found["bf16_step"] = step_seconds(MIDDLE, device, bf16=True)
    found["large"] = _large(torch, device) if device.type == "cuda" else []
    found["decode"] = decode_seconds(MIDDLE, device)
    found["threads"] = {}
    if device.type == "cpu" and cores > 1:
        torch.set_num_threads(cores)
        found["threads"] = {cores: step_seconds(MIDDLE, device)}
    found["gpu"] = _gpu(torch) if device.type == "cuda" else None
    return found


def _large(torch: Any, device: torch.device) -> list[dict[str, Any]]:
    """The large steps in bf16, as many as the card's memory holds (states 16 bytes a parameter, and activations)."""
    rows = []
    for size in LARGE:
        try:
            rows.append({"shape": size, "seconds": step_seconds(size, device, bf16=True)})
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return rows


def _gpu(torch: Any) -> dict[str, Any]:
    card = torch.cuda.get_device_properties(0)
    side = torch.zeros(2**28, dtype=torch.float32, device="cuda")
    copying = best(lambda: (side.clone(), torch.cuda.synchronize()))
    return {"name": card.name, "memory_gib": card.total_memory / 2**30, "count": torch.cuda.device_count(),
            "bandwidth": 2 * side.numel() * 4 / copying}  # fmt: skip


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a square matmul."""
    import torch

    side = 8192 if device.type == "cuda" else MATMUL
    left, right = torch.randn(2, side, side, dtype=dtype, device=device)

    def work() -> None:
        torch.mm(left, right)
        _wait(device)

    return 2 * side**3 / best(work)


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def step_seconds(size: tuple[int, int, int, int, int], device: torch.device, bf16: bool = False) -> float:
    """Fastest of some training steps (forward, backward, clip, AdamW) of a small model: noise only ever adds."""
    import torch
    from transformers import AutoModelForCausalLM

    layers, hidden, ffn, sequences, tokens = size
    model = AutoModelForCausalLM.from_config(shape(layers, hidden, ffn, tokens).to_hf(), dtype=torch.float32).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.randint(0, VOCAB, (sequences, tokens), device=device)

    def work() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)

    work()
    times: list[float] = []
    while len(times) < 2 or (sum(times) < 0.5 and len(times) < 30):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def decode_seconds(size: tuple[int, int, int, int, int], device: torch.device) -> dict[str, float]:
    """Seconds to sample one token for each of eight sequences with transformers' own generate."""
    import torch
    from transformers import AutoModelForCausalLM

    layers, hidden, ffn, _, tokens = size
    model = AutoModelForCausalLM.from_config(shape(layers, hidden, ffn, tokens).to_hf(), dtype=torch.float32).to(device)
    prompt = torch.randint(0, VOCAB, (8, 64), device=device)
    new = 24
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": True, "pad_token_id": 0}
    with torch.inference_mode():
        seconds = best(lambda: model.generate(prompt, attention_mask=torch.ones_like(prompt), **settings), 0.5, 2)
    return {"seconds": seconds / new, "batch": 8, "context": 64 + new / 2, "layers": layers}


KINDS: dict[str, Callable[[], dict[str, Any]]] = {"numpy": numpy_rates, "torch": torch_rates}


def main(kind: str) -> None:
    """Print the figures of one kind of measurement as a line of JSON."""
    print(json.dumps(KINDS[kind]()))  # noqa: T201
