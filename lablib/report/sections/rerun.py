"""How to run it again, and how to check that this file is as it was written."""

from __future__ import annotations

from lablib.report.markup import join, tag
from lablib.report.record import Record
from lablib.report.section import Section


def rerun(record: Record) -> Section:
    """The line to type; the recipes travel inside the file."""
    del record
    again = "lab reproduce report.html                 # run the recipes in this file and compare the results\n"
    check = "lab reproduce report.html --verify-only   # only check this file's hash"
    words = tag(
        "p",
        "On the same machine, versions and layout every result must be equal to the last digit; elsewhere losses and scores are compared with a stated tolerance.",
    )
    return Section("rerun", "Run it again", join([tag("pre", again + check), words]))
