"""What the field says by rule of thumb, reckoned today: typical costs, headline figures, compute budgets, memory rules.

lab thumb costs                          eight typical jobs: the usual quote beside a plan of today, and the gap
lab thumb kpis                           the figures that open most introductions
lab thumb budgets --accelerator b200-sxm   FLOPs and GPU-days by model size, at 20 tokens a parameter and at 15T
lab thumb rules                          16 bytes a parameter, ZeRO's savings, checkpointing's price, ...: held or refuted
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from lab.show import console, table
from lablib.plan import budget_table, guide
from lablib.specs.units import show_count, show_dollars, show_flops

Table = tuple[list[str], list[list[str]]]


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("what", choices=list(TABLES))
    command.add_argument("--accelerator", default="h100-sxm", help="of costs and budgets (default h100-sxm)")
    command.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> None:
    """Reckon and show."""
    columns, rows = TABLES[args.what](args.accelerator)
    if args.json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1, ensure_ascii=False))
        return
    console.print(table(columns, rows, words=tuple(columns[1:])))


def _costs(accelerator: str) -> Table:
    rows = []
    for row in guide.costs(accelerator):
        low, high = row.guide_dollars
        money = row.plan.dollars
        ours = "no price is known" if money is None else f"{show_dollars(money.mid)} ({show_dollars(money.low)} to {show_dollars(money.high)})"  # fmt: skip
        gap = f"{row.gap:.1f}×" if row.gap else ""
        rows.append([row.activity, f"{show_dollars(low)} to {show_dollars(high)}", ours, gap, row.verdict])
    return ["activity", "usual quote", "today", "quoted GPU-hours / 6ND at 40 %", "verdict"], rows


def _kpis(_: str) -> Table:
    return ["figure", "usual", "ours", "verdict"], [list(kpi) for kpi in guide.kpis()]


def _rules(_: str) -> Table:
    return ["claim", "usual", "ours", "verdict"], [list(rule) for rule in guide.rules()]


def _budgets(accelerator: str) -> Table:
    rows = [
        [show_count(row.parameters), show_count(row.tokens), f"{row.tokens_per_parameter:,.0f}", show_flops(row.flops), f"{row.gpu_days_low:,.0f} to {row.gpu_days_high:,.0f}"]
        for row in budget_table.budgets(accelerator)
    ]  # fmt: skip
    return ["parameters", "tokens", "tokens each", "compute", f"{accelerator} days at a healthy MFU"], rows


TABLES: dict[str, Callable[[str], Table]] = {"costs": _costs, "kpis": _kpis, "budgets": _budgets, "rules": _rules}
