"""What went wrong, in the words of the process that it happened to."""

from __future__ import annotations

from lablib.explorers.monitor import healed
from lablib.report.markup import join, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Section

WORDS = {
    "failed": "stopped with an error",
    "lost": "died without a word: killed, out of memory or a restart of its machine",
    "stopped": "was stopped on request after saving, and can be resumed",
    "stalled": "gave no sign of life when this report was written",
    "running": "was still running when this report was written",
    "queued": "had not started when this report was written",
    "waiting": "was waiting for other runs when this report was written",
}


def attempts(run: RunRecord) -> int:
    """Attempts that ended badly before the last one."""
    bad = [event for event in run["events"] if event["kind"] in ("failed", "lost")]
    return len(bad) - (1 if run["state"] in ("failed", "lost") else 0)


def failures(record: Record) -> Section:
    """Every run that is not completed, with its message and traceback, every attempt that was repeated, and what runs did to
    heal themselves."""
    parts = []
    for run in record["runs"]:
        if run["state"] != "completed":
            parts.append(tag("p", tag("b", run["name"]), f" {WORDS[run['state']]}."))
        if run["failure"]:
            parts.append(tag("pre", run["failure"], class_="lab-failure"))
        if (count := attempts(run)) > 0:
            parts.append(
                tag("p", tag("b", run["name"]), f" needed {count + 1} attempts; times and money count all of them.")
            )
        parts += [tag("p", tag("b", run["name"]), f": {told}") for told in healed(run["events"])]
    body = join(parts) if parts else tag("p", "Every stage completed at its first attempt.")
    return Section("failures", "Failures", body)
