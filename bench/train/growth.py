"""CPU-seconds of a step as sequence, batch and ranks grow, beside the planner's step on this machine, calibrated just before."""

from __future__ import annotations

import os
import socket
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from bench.train.pairs import Setting
from lablib.models.layout import Links, Place
from lablib.plan import estimate
from lablib.plan.calibrate import measure
from lablib.specs import Parallelism, Pretrain
from lablib.train.batches import Batches
from lablib.train.distributed import joined
from lablib.train.optimizer import build_optimizer
from lablib.train.pretrain import begin, prepare_model
from lablib.train.step import Stepper

CASES = (*((length, 4096 // length, 1) for length in (64, 128, 256, 512, 1024)), (256, 4, 1), (256, 8, 1), (256, 32, 1), (256, 16, 2))  # fmt: skip
"""(Tokens of a sequence, sequences of a step, ranks)."""


def recipe(length: int, sequences: int, ranks: int) -> Pretrain:
    """A step of the pairs' model."""
    layout = Parallelism(dp_shard=ranks, micro_batch_size=min(8, sequences // ranks))
    return Pretrain(model=Setting().model, tokens="1M", seq_len=length, batch_tokens=length * sequences, parallelism=layout, precision="fp32")  # fmt: skip


def rank(number: int, port: int, asked: Pretrain, steps: int) -> float:
    """Median CPU-seconds of this rank's steps after the first two."""
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(asked.gpus), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    with joined(asked.gpus) as world:
        place, links = Place.of(world.rank, asked.parallelism), Links.of(asked.parallelism, world.device)
        laid = prepare_model(asked, world, links)
        begin(asked, laid.model)
        step = Stepper(laid.model, build_optimizer(laid.model, asked.optimizer), world, place, 1.0, False, links, laid.partial)  # fmt: skip
        rows = asked.step_tokens // asked.seq_len
        batches = Batches(Setting(asked.model, asked.seq_len), place, rows, asked.parallelism.micro_batch_size, True, world.device)  # fmt: skip
        seconds = []
        for turn in range(2 + steps):
            begun = time.process_time()
            step(batches.at(turn * rows))
            seconds.append(time.process_time() - begun)
    return statistics.median(seconds[2:])


def growth(steps: int) -> list[dict[str, Any]]:
    """A row a case; of several ranks the slowest one's seconds."""
    here, rows = measure(), []
    for length, sequences, ranks in CASES:
        asked = recipe(length, sequences, ranks)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with ProcessPoolExecutor(ranks, get_context("spawn")) as pool:
            took = max(pool.map(rank, range(ranks), [port] * ranks, [asked] * ranks, [steps] * ranks))
        planned = estimate(asked, here.cluster, here.efficiency).step_seconds
        rows.append({"seq_len": length, "sequences": sequences, "ranks": ranks, "cpu_seconds": round(took, 3), "planned": round(planned, 3), "ratio": round(took / planned, 2)})  # fmt: skip
    return rows
