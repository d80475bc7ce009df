"""What was not done: so that nobody reads more into the numbers than they hold."""

from __future__ import annotations

from lablib.report.markup import tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Section


def _of_run(run: RunRecord) -> list[str]:
    name, found = run["name"], []
    if run["state"] != "completed":
        found.append(f"{name} is {run['state']}: its numbers are those so far.")
    if run["estimate"] is None:
        found.append(
            f"{name} was started without an estimate, so there is nothing to hold its time, memory and cost against."
        )
    if run["stage"] == "pretrain" and run["forecast"] is None:
        found.append(f"No loss was forecast for {name}.")
    if (run["manifest"].get("code") or {}).get("dirty"):
        found.append(f"{name} ran from a checkout with uncommitted changes: its commit does not say everything.")
    return found


def gaps(record: Record) -> list[str]:
    """Honest sentences about the chain as a whole and each run."""
    runs = record["runs"]
    found = [sentence for run in runs for sentence in _of_run(run)]
    if not any(run["scores"] for run in runs):
        found.append("Nothing was evaluated: no claim about quality is made here.")
    seeds = {run["recipe"]["seed"] for run in runs}
    if len(seeds) == 1:
        found.append(
            "One seed: how much another seed would change the results was not measured. Intervals cover items only."
        )
    if all(run["outcome"]["dollars"] is None for run in runs):
        found.append("No price was registered, so no money is reported.")
    if not any("mfu" in run["frames"] for run in runs):
        found.append("No MFU is reported: the device has no published peak that the lab knows, or none was logged.")
    return found


def limits(record: Record) -> Section:
    """The list, never empty: a single chain always leaves something open."""
    rows = gaps(record) or ["Nothing is known to be missing from what was planned."]
    return Section("limits", "What was not done", tag("ul", *(tag("li", row) for row in rows)))
