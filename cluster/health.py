"""What a node must show before step 1: room on its disks, its GPUs, a matmul at its usual rate, an all-reduce that adds up.

One process of each node looks after the node, every rank takes part in the all-reduce. A node that fails is named in an
``unwell`` event, which `cluster.settle` reads: the next attempt stays away from it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from lablib.runs import Recorder, Run, jsonl
from lablib.specs import Cluster, Profile

ROOM_GIB = 0.5
"""Free space below which a node's folders count as full."""
PATIENCE = 120.0
"""Seconds that a command of `Profile.health`, and the all-reduce, may take."""
SLOW = 0.5
"""Share of the expected matmul rate below which a GPU is not well; CPUs, which others use too, are measured only."""
SIZE = 4096
BROKEN_LINK = 0.01
"""Share of a link's rate below which an all-reduce of 16 MiB says that it is not in use."""
MIB = 16
"""Edge of the matmul and size of the all-reduce on GPUs; an eighth of each on CPUs."""


class UnwellError(RuntimeError):
    """This node cannot do what it should; another one may."""


def examine(recorder: Recorder) -> None:
    """Look after this process's node on a Slurm cluster. Raises `UnwellError` with every reason."""
    run = Run(recorder.path)
    if run.order.profile.scheduler == "local":
        return
    reasons = list(_node(run)) if recorder.leads else []
    ranks = recorder.recipe.gpus
    if (ranks > 1 or run.order.profile.ask_for_gpus) and not reasons:
        measured = _exercise(ranks)
        recorder.event("health", **measured)
        reasons += _failings(measured, run.cluster, ranks)
    if not reasons:
        return
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    jsonl.event(recorder.path, "unwell", node=node, reasons=reasons, attempt=recorder.attempt)
    raise UnwellError(f"node {node}: {'; '.join(reasons)}")


def _node(run: Run) -> Iterator[str]:
    profile = run.order.profile
    for folder in filter(None, (run.path.parent, profile.scratch)):
        yield from _room(Path(folder))
    yield from _gpus(profile)
    for command in profile.health:
        yield from _passes(command)


def _room(folder: Path) -> Iterator[str]:
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield f"{folder} cannot be written to"
    elif shutil.disk_usage(folder).free < ROOM_GIB * 2**30:
        yield f"{folder} has under {ROOM_GIB} GiB left"


def _gpus(profile: Profile) -> Iterator[str]:
    """As many as this node's ranks need, seen by torch."""
    wanted = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if profile.accelerator is None or profile.accelerator.kind != "gpu" or not profile.ask_for_gpus:
        return
    import torch

    if torch.cuda.device_count() < wanted:
        yield f"torch sees {torch.cuda.device_count()} GPUs, not {wanted}"


def _passes(command: str) -> Iterator[str]:
    """A shell command of the profile's owner, who may run what they like there."""
    try:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        yield f"`{command}` took more than {PATIENCE:.0f} s"
        return
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        yield f"`{command}` ended with {done.returncode}{': ' + said[-1][:200] if said else ''}"


def _exercise(ranks: int) -> dict[str, Any]:
    """TFLOP/s of a matmul of this rank, and GB/s that an all-reduce over all ranks, where there are several, moves through
    each (0: a wrong sum)."""
    import torch
    import torch.distributed as dist

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    device, share = torch.device("cuda" if cuda else "cpu"), 1 if cuda else 8
    rate = _matmul(torch, device, SIZE // share)
    if ranks == 1:
        return {"tflops": rate, "device": device.type}
    begun = time.monotonic()
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=PATIENCE))
    try:
        meeting = time.monotonic() - begun
        speed = _all_reduce(torch, device, MIB * 2**20 // share)
    finally:
        dist.destroy_process_group()
    return {"tflops": rate, "all_reduce_gb_s": speed, "seconds_to_meet": round(meeting, 3), "device": device.type}


def _matmul(torch: Any, device: Any, edge: int) -> float:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a = torch.randn(edge, edge, device=device, dtype=dtype)
    best = 0.0
    for _ in range(4):
        seconds = _timed(torch, device, lambda: a @ a)
        best = max(best, 2 * edge**3 / seconds / 1e12)
    return best


def _all_reduce(torch: Any, device: Any, size: int) -> float:
    """Bus bandwidth of a ring, 2·(n-1)/n of the bytes through each rank (nccl-tests, PERFORMANCE.md)."""
    values, ranks = torch.ones(size // 4, device=device), torch.distributed.get_world_size()
    torch.distributed.all_reduce(values)
    if not bool((values == ranks).all()):
        return 0.0
    seconds = min(_timed(torch, device, lambda: torch.distributed.all_reduce(values)) for _ in range(3))
    return 2 * (ranks - 1) / ranks * size / seconds / 1e9


def _timed(torch: Any, device: Any, work: Any) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _failings(measured: dict[str, Any], cluster: Cluster | None, ranks: int) -> list[str]:
    """A wrong sum anywhere; on GPUs also a slow matmul, and an all-reduce so slow that no placement explains it: so small a
    one is far from the link's rate in any case."""
    speed = measured.get("all_reduce_gb_s")
    if speed == 0.0:
        return ["an all-reduce gave a wrong sum"]
    if measured["device"] != "cuda" or cluster is None:
        return []
    card = cluster.accelerator
    inside = ranks <= cluster.scaleup_domain and card.scaleup_gb_s
    link = card.scaleup_gb_s if inside else cluster.network.bytes_s / 1e9
    if speed is not None and link and speed < BROKEN_LINK * link:
        return [f"an all-reduce moved {speed:.2g} GB/s, and the link has {link:.3g}"]
    expected = card.measured_tflops.get("bf16") or card.peak("bf16")
    if expected and measured["tflops"] < SLOW * expected:
        return [f"a matmul ran at {measured['tflops']:.0f} TFLOP/s, and {expected:.0f} is usual for {card.name}"]
    return []
