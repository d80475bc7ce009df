"""The entry of all data benches: what is missing is never reached, and a figure below its bar is said to be missed."""

from __future__ import annotations

from typing import Any

from bench.data.__main__ import BARS, COMMANDS, QUICK, judged, parsed

DEDUP: dict[str, Any] = {
    "tools": {"ours 16x6, verified": {"precision": 1.0, "recall": 0.98}},
    "ratios": {"over gaoya 16x6, estimate 0.7": 1.3, "over gaoya 14x8, estimate 0.5": 0.7},
}


def verdicts(bench: str, result: dict[str, Any] | None) -> dict[str, str]:
    return {bar.claim: judged(bar, result).verdict for bar in BARS if bar.bench == bench}


def test_each_bar_is_held_against_its_figure() -> None:
    told = verdicts("dedup", DEDUP)
    assert told["precision"] == "reached" and told["recall of pairs a tenth above the threshold"] == "MISSED"
    assert told["over gaoya, which does not verify, at the same bands"] == "MISSED", "the least of several counts"
    assert told["near-duplicates with verification over datatrove"] == "not measured", "the peer was not there"


def test_a_bench_that_failed_or_had_no_peer_reaches_nothing() -> None:
    assert set(verdicts("packing", None).values()) == {"not measured"}
    assert set(verdicts("quality", {"datatrove": "not importable"}).values()) == {"not measured"}


def test_memory_is_the_ratio_of_the_peaks_that_are_printed() -> None:
    printed = "16 MB of text, 1 processes: 3.0 CPU s, 3.1 s, peak 400 MB a process\n64 MB of text, 1 processes: 9.0 CPU s, 9.1 s, peak 430 MB a process\n"  # fmt: skip
    assert set(verdicts("scale", parsed("scale", printed)).values()) == {"reached"}
    assert set(verdicts("scale", parsed("scale", printed.replace("430", "800"))).values()) == {"MISSED"}
    assert set(verdicts("scale", parsed("scale", "")).values()) == {"not measured"}


def test_every_bench_has_a_bar_and_both_sizes() -> None:
    assert {bar.bench for bar in BARS} == set(COMMANDS) == set(QUICK)
