"""What a data run's card says of each domain, in a few words."""

from __future__ import annotations

import json
from collections import Counter

from lablib.data import provenance
from lablib.runs import Run

LICENCES = 2
"""Licences of a domain that are named; more are counted."""


def badges(run: Run) -> dict[str, tuple[str, ...]]:
    """Domain → its licences (as sources state them), its synthetic share where it has one, and which benchmarks it was
    cleaned of. Raises `LabError` where the run has made no data."""
    folder = run.artefact_path("data")
    licences: dict[str, Counter[str]] = {}
    for row in provenance.documents(folder):
        licences.setdefault(row["domain"], Counter())[row["licence"] or "no licence stated"] += 1
    made = provenance.shares(folder)
    clean = _decontaminated(run)
    return {name: (_rights(found), *_synthetic(made[name]), clean) for name, found in sorted(licences.items())}


def _rights(found: Counter[str]) -> str:
    named = ", ".join(name for name, _ in found.most_common(LICENCES))
    return f"{named} and {len(found) - LICENCES} more" if len(found) > LICENCES else named


def _synthetic(share: provenance.Share) -> tuple[str, ...]:
    return (f"{share.synthetic:.0%} synthetic",) if share.synthetic else ()


def _decontaminated(run: Run) -> str:
    file = run.path / "contamination" / "report.json"
    if not file.is_file():
        return "not decontaminated"
    coverage = json.loads(file.read_text(encoding="utf-8"))["coverage"]
    present = sum(not one["reason"] for one in coverage)
    return f"decontaminated for {present} of {len(coverage)} benchmarks"
