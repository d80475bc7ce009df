"""Real processes for tests: start several, let them form one torch.distributed world, give back rank 0's result."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["lablib.train.pretrain", "transformers.models.qwen3.modeling_qwen3"])
_PATIENCE = 600.0
"""Seconds: they train many layouts before they answer, and may get a tenth of a core while other tests run beside them."""


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _child(rank: int, size: int, port: int, pipe: Connection, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    try:
        pipe.send((True, work(*args)))
    except BaseException:
        pipe.send((False, f"rank {rank}:\n{traceback.format_exc()}"))


def on_ranks(size: int, work: Callable[..., Any], *args: Any, patience: float = _PATIENCE) -> Any:
    """`work(*args)` on `size` processes with the environment of one job; rank 0's value. Raises where any rank does, or
    where none answers for `patience` seconds."""
    pipes, port = [_CONTEXT.Pipe(duplex=False) for _ in range(size)], free_port()
    children = [
        _CONTEXT.Process(target=_child, args=(rank, size, port, pipe[1], work, args), daemon=True)
        for rank, pipe in enumerate(pipes)
    ]
    for child, (_, sender) in zip(children, pipes, strict=True):
        child.start()
        sender.close()
    try:
        return _results([receiver for receiver, _ in pipes], patience)[0]
    finally:
        for child in children:
            child.kill() if child.is_alive() and child.join(5) is None and child.is_alive() else child.join()


def _results(receivers: list[Connection], patience: float) -> dict[int, Any]:
    waiting, results = dict(enumerate(receivers)), {}
    while waiting:
        ready = wait(list(waiting.values()), timeout=patience)
        assert ready, f"ranks {sorted(waiting)} have not answered for {patience:.0f} s"
        for rank in [rank for rank, pipe in waiting.items() if pipe in ready]:
            try:
                good, value = waiting.pop(rank).recv()
            except EOFError:
                good, value = True, "killed"
            assert good, value
            results[rank] = value
    return results
