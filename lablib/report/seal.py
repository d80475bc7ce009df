"""The hash of a report: over every character of the file, with the place of the hash itself filled with zeros."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from lablib.report.record import Record
from lablib.specs import LabError

BLANK = "0" * 64
_MARK = re.compile(r'(<meta name="lab-hash" content=")([0-9a-f]{64})(">)')
_RECORD = re.compile(r'<script type="application/json" id="lab-record">(.*?)</script>', re.DOTALL)


def seal(page: str) -> str:
    """The page with its hash in place of `BLANK`."""
    return page.replace(f'content="{BLANK}"', f'content="{hashlib.sha256(page.encode()).hexdigest()}"', 1)


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"The report {path} cannot be read: {error}") from None


def verify(path: str | Path) -> str:
    """The hash of a report that is as it was written. Raises `LabError` for a changed file or another kind of file.

    It shows damage and careless edits; who changes a report on purpose can seal it anew, so compare the hash itself
    with one that came another way.
    """
    text = _text(path)
    mark = _MARK.search(text)
    if mark is None:
        raise LabError(f"{path} is not a report of the lab: it has no hash; give a file that `lab report` wrote")
    blank = text[: mark.start(2)] + BLANK + text[mark.end(2) :]
    if hashlib.sha256(blank.encode()).hexdigest() != mark[2]:
        raise LabError(f"{path} is not as it was written: its hash does not fit; take the original, or export it again")
    return mark[2]


def load(path: str | Path) -> Record:
    """The record inside a verified report. Raises `LabError` as `verify` does."""
    verify(path)
    found = _RECORD.search(_text(path))
    if found is None:
        raise LabError(f"{path} has no record inside; export it again")
    record: Record = json.loads(found[1])
    return record
