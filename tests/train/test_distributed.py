"""What ranks agree on, with real processes, and how a wrong environment is told."""

from __future__ import annotations

import os

import pytest
import torch
from launch import on_ranks

from lablib.specs import LabError
from lablib.train.distributed import joined


def agree() -> list[object]:
    with joined(2) as world:
        found: list[object] = [
            world.sum(torch.tensor([float(world.rank + 1)])).item(),
            world.any(world.rank == 1),
            world.any(False),
            world.from_main(lambda: f"from {world.rank}"),
            world.collect(world.rank * 10),
        ]
        try:
            world.from_main(fail)
        except LabError as error:
            found.append(str(error))
        world.wait()
        return found


def fail() -> str:
    raise LabError("only rank 0 knows")


def test_ranks_agree() -> None:
    assert on_ranks(2, agree) == [3.0, True, False, "from 0", [0, 10], "only rank 0 knows"]


def test_one_process_needs_no_group() -> None:
    with joined(1) as world:
        assert (world.rank, world.size, world.any(True), world.collect(5)) == (0, 1, True, [5])
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "needs 2 processes but WORLD_SIZE=1"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
    ],
)
def test_wrong_environment_is_told(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delitem(os.environ, name, raising=False)
    for name, value in environment.items():
        monkeypatch.setitem(os.environ, name, value)
    with pytest.raises(LabError, match=message), joined(2):
        raise AssertionError
