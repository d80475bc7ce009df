"""`Team`: workers that share products. Who makes which is settled by claims; the result does not depend on them.

A worker goes through the products that are wanted, makes those that nobody has and nobody is making, and waits for the
rest. Workers are processes of this run (`threads`), and runs beside it (`tasks`), which go through the same products.
Two that make one product by mistake lose time only: of two equal results the first stays.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from lablib.data import cache
from lablib.data.documents import Report, silent
from lablib.runs import heartbeat
from lablib.runs.heartbeat import Pulse
from lablib.specs import paths, write_atomic

POLL = 0.2
"""Seconds between looks at what others make."""
BEAT = heartbeat.INTERVAL
"""Seconds between the signs of life of a claim; one without a sign for `heartbeat.STALE` seconds is void."""


@dataclass(frozen=True)
class Job:
    """A product of the cache and how it is made: ``make(folder, report, *args)``, all of which can be pickled."""

    kind: str
    key: str
    make: Callable[..., None]
    args: tuple[object, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it lies once it is made."""
        return cache.folder(self.kind, self.key)

    @property
    def there(self) -> bool:
        """Whether it is made and whole."""
        return cache.has(self.kind, self.key)

    def run(self, report: Report = silent) -> Path:
        """Make it here, unless it is there."""
        return cache.made(self.kind, self.key, lambda to: self.make(to, report, *self.args))


_Running = dict[Future[Path], tuple[Job, ExitStack]]
"""Jobs that processes have, and the claims to them."""


class Team(AbstractContextManager["Team"]):
    """One worker, or several processes, of one or several runs; the processes end with the `with` block."""

    def __init__(self, threads: int = 1, tasks: int = 1, task: int = 0) -> None:
        """`threads` processes here; `tasks` runs of which this is number `task`."""
        self.threads, self.tasks, self.task = threads, tasks, task
        self._pool: ProcessPoolExecutor | None = None
        self._seen: dict[Path, tuple[str, float]] = {}

    def one(self, job: Job, report: Report = silent) -> Path:
        """A single product, made here or by another run of the team."""
        return self.each([job], report)[0]

    def each(self, jobs: Sequence[Job], report: Report = silent) -> list[Path]:
        """The folders of all products, in order. `report` hears of jobs done, and of a part of the one under way."""
        missing = [job for job in jobs if not job.there]
        begin = len(missing) * self.task // self.tasks
        missing = missing[begin:] + missing[:begin]
        if self.threads > 1 and len(missing) > 1:
            self._shared(missing, len(jobs), report)
        else:
            self._alone(missing, len(jobs), report)
        return [job.folder for job in jobs]

    def _alone(self, missing: list[Job], total: int, report: Report) -> None:
        while missing:
            for job in list(missing):
                done = total - len(missing)
                with self._claimed(job) as mine:
                    if mine:
                        job.run(_share(report, done, total))
                if job.there:
                    missing.remove(job)
                    report(total - len(missing), total)
            if missing:
                report(total - len(missing), total)
                time.sleep(POLL)

    def _shared(self, missing: list[Job], total: int, report: Report) -> None:
        """The same with processes; each has one job at a time, so that other runs find work too. The claims are this one's."""
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.threads, mp_context=spawn, initializer=_live_with, initargs=(os.getpid(),))  # fmt: skip
        running: _Running = {}
        try:
            while missing:
                self._hand_out(missing, running, self._pool)
                for future in wait(running, POLL, FIRST_COMPLETED).done:
                    running.pop(future)[1].close()
                    future.result()
                missing = [job for job in missing if not job.there]
                report(total - len(missing), total)
                if missing and not running:  # other runs have them in hand
                    time.sleep(POLL)
        finally:
            for _, claim in running.values():
                claim.close()

    def _hand_out(self, missing: list[Job], running: _Running, pool: Executor) -> None:
        """Give each idle process a job that nobody has in hand."""
        for job in missing:
            if len(running) < self.threads and all(job != other for other, _ in running.values()):
                claim = ExitStack()
                if claim.enter_context(self._claimed(job)):
                    running[pool.submit(job.run)] = job, claim

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes, after an error at once: what they have not finished is not kept."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()) if error else ():
                process.kill()
            self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def _claimed(self, job: Job) -> Iterator[bool]:
        """Whether this worker is to make it; a lone one always is."""
        if self.tasks == 1:
            yield True
            return
        file = paths.home() / "data" / "claims" / f"{job.kind}-{job.key}.json"
        if job.there or not self._take(file):
            yield False
            return
        ended = threading.Event()
        threading.Thread(target=_keep, args=(file, ended), daemon=True).start()
        try:
            yield True
        finally:
            ended.set()
            file.unlink(missing_ok=True)

    def _take(self, file: Path) -> bool:
        """Put this worker's name to it, unless a living one's is there."""
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        if text and not self._void(file, text):
            return False
        if text:
            file.unlink(missing_ok=True)
        try:
            with file.open("x", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(Pulse.mine(0, "claim"))))
        except FileExistsError:
            return False
        return True

    def _void(self, file: Path, text: str) -> bool:
        """Whether who claimed it is dead, or has given no sign for too long by this worker's own clock."""
        last, since = self._seen.get(file, ("", 0.0))
        if text != last:
            self._seen[file] = (text, time.monotonic())
        elif time.monotonic() - since > heartbeat.STALE:
            return True
        try:
            pulse = Pulse(**json.loads(text))
        except (ValueError, TypeError):
            return False  # it is being written
        return heartbeat.same_machine(pulse) and not heartbeat.alive(pulse)


def _share(report: Report, done: int, total: int) -> Report:
    """A report of one job among several; of a single one it passes as it is."""
    if total == 1:
        return report
    return lambda part, whole: report(done + (min(1.0, part / whole) if whole else 0.0), total)


def _keep(file: Path, ended: threading.Event) -> None:
    """Signs of life in a claim until it has `ended`."""
    pulse = Pulse.mine(0, "claim")
    while not ended.wait(BEAT):
        pulse = replace(pulse, beat=pulse.beat + 1)
        if not file.exists():
            return
        write_atomic(file, json.dumps(asdict(pulse)))


def _live_with(parent: int) -> None:
    """End this process when the one that started it, in whose name it uses the cache, has died, however."""
    cache.vouched()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
