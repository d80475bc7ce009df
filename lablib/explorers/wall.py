"""Where a run's wall time went beside where its plan said it would: the table of screens and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lablib.explorers import show
from lablib.explorers.view import Table

COLUMNS = ("part", "time", "share", "planned share")
LEAST = 5e-4
"""Share below which a part that was not planned is not worth a row."""


def wall_table(account: Mapping[str, Any], estimate: Mapping[str, Any] | None) -> Table:
    """`account` is `lablib.runs.account.Account` as a mapping, `estimate` a registered one's JSON."""
    plan: Mapping[str, Any] = (estimate or {}).get("goodput") or {}
    effective, lost = plan.get("effective"), plan.get("parts") or {}
    promised = None if not effective else f"{effective['mid']:.1%} ({effective['low']:.0%} to {effective['high']:.0%})"
    rows = [("useful steps", account["useful"], promised)]
    rows += [(name, seconds, _share(lost.get(name))) for name, seconds in account["parts"].items()]
    rows += [(name, None, _share(share)) for name, share in lost.items() if name not in account["parts"]]
    wall = account["wall"]
    shown = tuple(
        (
            name,
            "–" if took is None else show.seconds(took),
            "–" if took is None else f"{took / wall:.1%}",
            planned or "–",
        )
        for name, took, planned in rows
        if planned or (took or 0) / wall >= LEAST
    )
    return Table("Where the time went", COLUMNS, shown, _caption(account))


def _share(value: float | None) -> str | None:
    return None if value is None or value < LEAST else f"{value:.1%}"


def _caption(account: Mapping[str, Any]) -> str:
    attempts, between = account["attempts"], account["between"]
    words = f"Wall time of {attempts} attempts" if attempts > 1 else "Wall time of the run"
    apart = f", without {show.seconds(between)} between them" if attempts > 1 else ""
    return f"{words}{apart}: {show.seconds(account['wall'])}. Goodput is the share of useful steps: those whose updates are in the result, without their wait for data."
