"""`OwnTests`: documents of code whose own tests pass stay; what each said is kept in the cache."""

from __future__ import annotations

import json
import multiprocessing
import platform
import re
import secrets
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache as once
from importlib.resources import files
from pathlib import Path
from typing import Literal

from lablib.data import cache, sandbox
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, silent
from lablib.specs import digest, write_atomic
from lablib.specs.refining import Verify

VERSION = 2
"""Raised when the same document would be judged otherwise."""
LONGEST = 4_000_000
"""Bytes of a module that is tried: longer ones are data."""
HINT = re.compile(r"\bassert\b|\bdef test|>>> |\bTestCase\b")
"""What a text without any of has no test; nothing is run for it."""
Kind = Literal["passed", "failed", "timed out", "needs a package", "no tests"]


@dataclass(frozen=True)
class Verdict:
    """What came of one document's tests."""

    kind: Kind
    tests: int = 0
    """That ran."""
    why: str = ""
    """The first that failed, or the package that is needed; in a few words."""


@once
def _harness() -> str:
    return files("lablib.data.owntests").joinpath("harness.py").read_text(encoding="utf-8")


def judge(text: str, spec: Verify) -> Verdict:
    """Run a module's tests in the sandbox. Raises `LabError` where this machine has none (`sandbox.available`)."""
    if not HINT.search(text):
        return Verdict("no tests")
    if len(text.encode()) > LONGEST:
        return Verdict("failed", why=f"over {LONGEST:,} bytes")
    mark = secrets.token_hex(16)
    limits = {"seconds": spec.seconds, "memory_bytes": spec.memory}
    found = sandbox.run(_harness(), files={"document.py": text, "mark": mark}, **limits)  # type: ignore[arg-type]
    if found.why == "time":
        return Verdict("timed out", why=f"{spec.seconds:g} s")
    if found.why in ("memory", "output", "processes", "signal"):
        return Verdict("failed", why=f"stopped for its {found.why}")
    said = found.stdout.rpartition(f"\n{mark}")[2] if mark in found.stdout else ""
    if not said:
        return Verdict("failed", why=_last(found.stderr) or "ended before its tests had run")
    return _told(said.partition("\n")[0])


def _told(said: str) -> Verdict:
    """Of the harness' line, which a module that found the mark may have written instead."""
    try:
        told = json.loads(said)
        tests, failed, needs = int(told["tests"]), str(told["failed"]), str(told.get("needs", ""))
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        return Verdict("failed", why="what was said of its tests cannot be read")
    if needs:
        return Verdict("needs a package", why=_last(needs))
    if failed:
        return Verdict("failed", tests, _last(failed))
    return Verdict("passed", tests) if tests > 0 else Verdict("no tests")


def _last(text: str) -> str:
    """The last line, in short; halves of surrogates, which no file can hold, become question marks."""
    return " ".join(text.strip().split("\n")[-1].split())[:160].encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class OwnTests:
    """The funnel's step."""

    spec: Verify
    workers: int = 1
    """Sandboxes at a time, where this process is no worker of a team itself."""

    @property
    def name(self) -> str:
        """What the funnel's chart calls it."""
        return "own tests"

    def key(self) -> str:
        """Of the settings and the interpreter, whose standard library the tests use."""
        return digest([VERSION, platform.python_version(), self.spec.model_dump(mode="json")])

    def decide(self, before: Corpus, report: Report = silent) -> Mapping[str, str]:
        """SHA-256 of each document that goes: its tests fail, do not end or need a package, or it has none and
        `spec.without` drops it."""
        stays = {"passed"} | ({"no tests"} if self.spec.without == "keep" else set())
        told = self.verdicts(before, report)
        return {name: _reason(one) for name, one in told.items() if one.kind not in stays}

    def counts(self, before: Corpus) -> dict[str, dict[str, int]]:
        """Domain → documents by verdict, of a corpus that was judged."""
        told: dict[str, dict[str, int]] = {}
        for domain in self._domains(before):
            for part in before.parts:
                verdicts = self.verdicts(part)
                names = [row.tobytes().hex() for row in part.index(domain)["sha256"]]
                found = Counter(told.get(domain, {})) + Counter(verdicts[name].kind for name in names)
                told[domain] = dict(found)
        return told

    def verdicts(self, before: Corpus, report: Report = silent) -> dict[str, Verdict]:
        """SHA-256 → verdict of each document of the domains; run once, then read from the cache."""
        settled = self.spec.model_dump(mode="json", exclude={"without"})
        key = digest([VERSION, platform.python_version(), before.identity, settled])
        folder = cache.made("tested", key, lambda to: self._run(before, to, report))
        with (folder / "verdicts.jsonl").open(encoding="utf-8") as rows:
            return {name: Verdict(*told) for name, *told in map(json.loads, rows)}

    def _run(self, before: Corpus, folder: Path, report: Report) -> None:
        domains = self._domains(before)
        documents = (one for domain in domains for one in before.documents(domain))
        total, done, rows = sum(before.bytes(domain) for domain in domains), 0, list[str]()
        for document, found in self._each(documents):
            done += len(document.text.encode())
            report(done, total)
            rows.append(json.dumps([document.sha256, found.kind, found.tests, found.why]) + "\n")
        write_atomic(folder / "verdicts.jsonl", "".join(rows))

    def _domains(self, before: Corpus) -> list[str]:
        return [name for name in before.domains if name in self.spec.domains]

    def _each(self, documents: Iterable[Document]) -> Iterator[tuple[Document, Verdict]]:
        """Each with its verdict, in order; with several workers, two documents for each are under way."""
        workers = 1 if multiprocessing.parent_process() else self.workers
        waiting: deque[tuple[Document, Future[Verdict]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for document in documents:
                    waiting.append((document, pool.submit(judge, document.text, self.spec)))
                    if len(waiting) > 2 * workers:
                        done, verdict = waiting.popleft()
                        yield done, verdict.result()
                yield from ((done, verdict.result()) for done, verdict in waiting)
            finally:
                pool.shutdown(cancel_futures=True)


def _reason(verdict: Verdict) -> str:
    named = {"failed": "tests fail", "timed out": "tests do not end", "needs a package": "tests need a package"}
    return (
        f"{named.get(verdict.kind, verdict.kind)} [{verdict.why}]"
        if verdict.why
        else named.get(verdict.kind, verdict.kind)
    )
