"""A profile drafted from a real Slurm says what that Slurm has, and reads back as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster import probe
from lablib.specs import LabError, Profile

if TYPE_CHECKING:
    from cluster.dev import DevSlurm


@pytest.mark.parametrize(
    ("gres", "count", "card"),
    [
        ("gpu:h100:8(S:0-1)", 8, "h100-sxm"),
        ("gpu:nvidia_h100_80gb_hbm3:8", 8, "h100-sxm"),
        ("gpu:a100-sxm4-80gb:4,nvme:1", 4, "a100"),
        ("gpu:4", 4, None),
        ("gpu:strange:2", 2, None),
        ("(null)", 0, None),
        ("", 0, None),
    ],
)
def test_gpus_as_sites_write_them(gres: str, count: int, card: str | None) -> None:
    found = probe.gpus(gres)
    assert found[0] == count
    assert (found[1] or "").startswith(card or "") and bool(found[1]) == bool(card)
    assert bool(found[2]) == bool(count), "what was guessed is said"


def test_the_development_slurm_is_recognised(slurm: DevSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PROFILES", str(tmp_path))
    made, notes = probe.draft("ours", "short", tmp_path)
    assert (made.nodes, made.partition, made.time, made.max_array) == (2, "short", 300, 63)
    assert made.ask_for_gpus is False and any("price" in note for note in notes)
    assert Profile.load(str(probe.write(made))) == made == Profile.load("ours")
    with pytest.raises(LabError, match="profile ours already"):
        probe.write(made)
    with pytest.raises(LabError, match="this Slurm has gpu, scav"):
        probe.draft("ours", "nosuch")
