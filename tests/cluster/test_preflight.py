"""What cannot work is refused before it queues, by name and with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import preflight, submit
from cluster.slurm import query
from lablib.specs import Component, LabError, ModelSpec, Parallelism, Prepare, Pretrain, Profile

if TYPE_CHECKING:
    from cluster.dev import DevSlurm

TINY = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=2, ffn=128, vocab=512)


def pretrain(gpus: int = 1, **changes: object) -> Pretrain:
    return Pretrain(
        model=TINY, data="core", tokens=2560, seq_len=64, batch_tokens=256 * gpus, precision="fp32",
        parallelism=Parallelism(dp_shard=gpus, micro_batch_size=1), **changes,
    )  # fmt: skip


@given(st.integers(0, 40), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_slurms_times_are_read(days: int, hours: int, minutes: int, seconds: int) -> None:
    wanted = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert query.seconds_of(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == wanted
    assert query.seconds_of(f"{hours:02}:{minutes:02}:{seconds:02}") == wanted - days * 86400
    assert (
        query.seconds_of(f"{minutes}") == minutes * 60
        and query.seconds_of(f"{minutes}:{seconds}") == minutes * 60 + seconds
    )
    assert query.seconds_of(f"{days}-{hours}") == days * 86400 + hours * 3600


def test_no_limit_is_none_whatever_slurm_calls_it() -> None:
    assert [query.seconds_of(text) for text in ("UNLIMITED", "INFINITE", "NONE", "")] == [None] * 4


def test_partitions_are_read_from_slurm_itself(slurm: DevSlurm) -> None:
    found = query.partitions()
    assert set(found) == {"gpu", "short", "scav", "scav-now"}
    assert found["gpu"].default and not found["short"].default
    assert (found["gpu"].nodes, found["gpu"].memory_mib, found["gpu"].cpus) == (4, 16000, 8)
    assert (found["gpu"].max_seconds, found["gpu"].max_nodes) == (86400, None)
    assert (found["short"].max_seconds, found["short"].max_nodes) == (300, 2)
    assert query.on_this_machine()


@pytest.mark.parametrize(
    ("gpus", "changes", "said"),
    [
        (32, {}, r"32 processes, and the profile has 4 nodes of 4 = 16"),
        (12, {"partition": "short", "time": 240.0}, r"3 nodes, and partition short gives a job 2"),
        (1, {"partition": "short"}, r"time=.* above .* of partition short; it would wait for ever"),
        (1, {"partition": "nosuch"}, r"partition='nosuch' is not one of gpu, scav"),
        (1, {"memory_gib_per_node": 64.0}, r"memory_gib_per_node=64 is above the 16 GiB"),
        (1, {"accelerator": "tpuv5p"}, r"can be planned with, not run on"),
    ],
)
def test_more_than_the_partition_has(
    slurm: DevSlurm, tmp_path: Path, home: Path, gpus: int, changes: dict[str, object], said: str
) -> None:
    where = Profile(**{**Profile.load("slurm-dev").model_dump(), **changes})
    query.forget()
    before = set(query.queue())
    with pytest.raises(LabError, match=said):
        submit(pretrain(gpus), where, root=tmp_path)
    query.forget()
    assert not list(tmp_path.glob("*/recipe.json")) and set(query.queue()) == before


def test_components_take_nodes_too(tmp_path: Path, home: Path, slurm: DevSlurm) -> None:
    server = Component(name="server", command=("true",), nodes=1)
    four = Profile.load("slurm-dev").replace(gpus_per_node=1)
    preflight.check(pretrain(4), four, None, tmp_path)
    with pytest.raises(LabError, match="with its components it takes 5 nodes, and the profile has 4"):
        submit(pretrain(4), four, root=tmp_path, components=[server])


def test_a_folder_that_only_this_machine_has(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, slurm: DevSlurm
) -> None:
    monkeypatch.setattr(query, "on_this_machine", lambda: False)
    with pytest.raises(LabError, match="folder of this machine alone"):
        submit(Prepare(vocab=512), "slurm-dev", root=Path("/tmp/lab-nowhere"))


def test_a_limit_too_short_for_one_checkpoint(tmp_path: Path, home: Path, slurm: DevSlurm) -> None:
    where = Profile.load("slurm-dev").replace(accelerator="h100-sxm", time=200.0, signal_seconds=180)
    long = Pretrain(model="llama-3.1-8b", data="core", tokens="1B", seq_len=8192, batch_tokens="1M", checkpoint_every=500,
                    parallelism=Parallelism(dp_shard=16, micro_batch_size=1), recompute="full")  # fmt: skip
    with pytest.raises(LabError, match=r"checkpoint_every=500 steps take .* checkpoint more often"):
        submit(long, where, root=tmp_path)


def test_this_machine_is_not_drowned_in_processes(tmp_path: Path, home: Path) -> None:
    with pytest.raises(LabError, match=r"takes 4096 processes, and this machine's .* shrink dp_shard"):
        submit(pretrain(4096), root=tmp_path)
    assert not list(tmp_path.glob("*/recipe.json"))
