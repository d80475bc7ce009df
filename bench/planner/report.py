"""The bench as text: a table for each field with its peers, the weak spots, what was assumed and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from bench.planner.fields import UNITS, Field
from bench.planner.scores import measured
from bench.planner.table import Problem, Scored

WORST = 5


def text(result: dict[str, Any], fields: list[Field]) -> str:
    """Everything for people; `result` is what ``--json`` prints."""
    lines = [
        f"The planner against published measurements · lab {result['lab']} · {result['date']} · errors in percent (APE)"
    ]
    for field in fields:
        lines += ["", *_field(field, result)]
    if result.get("speed"):
        lines += ["", *speed(result["speed"])]
    return "\n".join(lines)


def _field(field: Field, result: dict[str, Any]) -> Iterator[str]:
    yield f"══ {field.name} · {UNITS[field.name]} · {len(field.rows)} sound rows, {len(field.scored)} planned"
    if field.missing:
        yield f"  no figures: {field.missing}"
    figures = result[field.name]
    parts = [(f"{field.name}: {part}", figures[part]) for part in ("memory", "time")] if field.name == "posttrain" else [(field.name, figures)]  # fmt: skip
    peers = result["peers"].get(field.name, {})
    for title, part in parts:
        yield from _table(title, part)
        yield from _verdicts(part)
    if figures.get("by_kind"):
        yield "by kind"
        yield from (_line(name, part) for name, part in figures["by_kind"].items())
    yield from _peers(peers, figures)
    yield from _weak(field, parts)
    yield from _said(result["assumed"].get(field.name, {}))
    yield from _problems(field.malformed, "left out, malformed")
    yield from _problems(field.unplannable, "left out, no plan")


def _table(title: str, part: dict[str, Any]) -> Iterator[str]:
    yield f"{title:38} {'rows':>5} {'median':>8} {'≤10 %':>6} {'≤20 %':>6} {'bias':>5} {'rank':>5}"
    for name, figures in (*part["by_source"].items(), ("all", part)):
        yield _line(name, figures)


def _line(name: str, figures: dict[str, Any]) -> str:
    return (
        f"  {name[:36]:36} {figures['rows']:5} {_number(figures['median_ape'], '{:7.1f}%', 8)} {_share(figures['within_10'])} "
        f"{_share(figures['within_20'])} {_number(figures['bias'], '{:5.2f}', 5)} {_number(figures['rank'], '{:5.2f}', 5)}"
    )


def _number(value: float | None, form: str, width: int) -> str:
    return "–".rjust(width) if value is None else form.format(value)


def _share(value: float | None) -> str:
    return _number(None if value is None else 100 * value, "{:5.0f}%", 6)


def _verdicts(part: dict[str, Any]) -> Iterator[str]:
    if part.get("oom_rows"):
        yield f"  known to run out of memory: {part['oom_rows']}, called fitting: {part['false_fits']}"
    if part.get("false_unfit_share") is not None:
        yield f"  ran, but called unfit: {part['false_unfits']} ({100 * part['false_unfit_share']:.1f} %)"
    if part.get("band80_coverage") is not None:
        low, high = part["coverage_interval"]
        yield (
            f"  80 % band: covers {100 * part['band80_coverage']:.0f} % (95 % interval {100 * low:.0f} to {100 * high:.0f}), "
            f"median width {part['relative_width']:.2f} of the figure, interval score {part['interval_score']:.2f}"
        )


def _peers(peers: dict[str, Any], figures: dict[str, Any]) -> Iterator[str]:
    """Peers run here beside ours on the rows that each can do; quoted ones with their date, a line a peer."""
    held = peers.get("live", {})
    if held:
        yield f"peers, same rows{'':22} {'rows':>5} {'median':>8} {'≤10 %':>6} {'≤20 %':>6}   ours on them"
    for name, peer in held.items():
        if "rows" not in peer:
            yield f"  {name}: {peer['status']}"
            continue
        yield f"  {name[:36]:36} {peer['rows']:5} {_number(peer['median_ape'], '{:7.1f}%', 8)} {_share(peer['within_10'])} {_share(peer['within_20'])}   {_number(peer['ours'], '{:.1f}%', 5)}"
        yield from _matched(peer["by_source"], figures["by_source"])
    lines: dict[str, list[str]] = {}
    for row in peers.get("quoted", []):
        note = f" ({row['note']})" if row["note"] else ""
        lines.setdefault(f"{row['peer']}, {row['date']}", []).append(f"{row['source']} {row['median_ape']} %{note}")
    if lines:
        yield "peers, quoted (medians on the development and held-out rows together, not run here)"
    for name, said in lines.items():
        yield f"  {name}: {'; '.join(said)}"


def _matched(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    parts = [
        f"{name} {figures['median_ape']:.0f} (ours {ours[name]['median_ape']:.0f})"
        for name, figures in theirs.items()
        if figures["median_ape"] is not None and ours.get(name, {}).get("median_ape") is not None
    ]
    if parts:
        yield f"      {', '.join(parts)}"


def _weak(field: Field, parts: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    sources = [
        (figures["median_ape"], f"{name} {figures['median_ape']:.0f} % on {figures['rows']}")
        for _, part in parts
        for name, figures in part["by_source"].items()
        if figures["median_ape"] is not None
    ]
    if sources:
        yield f"weak: {', '.join(said for _, said in sorted(sources, reverse=True)[:3])}"
    for one in sorted(measured(field.scored), key=_miss, reverse=True)[:WORST]:
        row = field.rows.get(one.row, {})
        what = row.get("model") or row.get("name", "")
        yield f"  {one.row} {one.source} {what[:40]}: predicted {one.predicted:.4g}, published {one.published:.4g}"


def _miss(one: Scored) -> float:
    return abs(one.predicted / one.published - 1)


def _said(assumed: dict[str, str]) -> Iterator[str]:
    if assumed:
        yield "assumed of each source"
    for name, said in assumed.items():
        yield f"  {name}: {said}"


def _problems(problems: list[Problem], title: str) -> Iterator[str]:
    if not problems:
        return
    yield f"{title}: {len(problems)}"
    grouped = Counter(problem.reason for problem in problems)
    for reason, times in grouped.most_common(12):
        where = [f"{p.file}:{p.line}" + (f" ({p.row})" if p.row else "") for p in problems if p.reason == reason]
        yield f"  {times}× {reason}: {', '.join(where[:4])}{', …' if times > 4 else ''}"


def left_out(found: dict[str, Any]) -> list[str]:
    """The cross-validated figures of each field."""
    lines: list[str] = []
    for name, figures in found.items():
        table = [f"  {figures}"] if isinstance(figures, str) else list(_table("each source left out", figures))
        lines += ["", f"══ {name} · constants fitted without the source", *table]
    return lines


def speed(figures: dict[str, Any]) -> list[str]:
    """How quick planning is, in one paragraph."""
    return [
        "══ speed",
        f"  estimate: median {1e3 * figures['estimate_median_s']:.2f} ms, 95th percentile {1e3 * figures['estimate_p95_s']:.2f} ms "
        f"over {figures['estimate_recipes']} distinct recipes, caches emptied before each",
        f"  grid: {figures['grid_points']:,} layouts in {figures['grid_s']:.2f} s (memory and step time)",
        f"  import lablib.plan: {1e3 * figures['import_s']:.0f} ms, torch {'IMPORTED' if figures['import_torch'] else 'not imported'}",
    ]
