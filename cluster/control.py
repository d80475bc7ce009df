"""What one does with runs that exist: stop, resume, requeue, extend, read their logs. Any process that sees the folder can."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import far, here, snapshot
from cluster.slurm import query
from cluster.submission import start
from lablib.runs import Recorder, Run, RunState, jsonl, mirror, orders, provenance, traces
from lablib.specs import LabError, write_atomic
from lablib.specs.units import parse_dollars, parse_seconds

MINUTE = 60


def resume(run: Run) -> Run:
    """Start a stopped, lost or failed run again in its own folder; the stage continues from its last checkpoint,
    with the code as it is now.

    Raises `LabError` where the run is still going or has completed.
    """
    if mirror.origin(run.path):
        far.ask(run, "resume")
        return Run.open(far.url(run))
    with _alone(run):
        state = run.state
        if not state.finished:
            raise LabError(f"run {run.id} is {state}; stop it first with `lab stop {run.id}`")
        if state is RunState.COMPLETED:
            raise LabError(f"run {run.id} has completed; submit its recipe again for another run")
        Recorder(run.path).account_for_lost_attempts()
        attempt = 1 + max((event.get("attempt", 0) for event in run.events() if event["kind"] == "started"), default=-1)
        order = run.order.replace(code=snapshot.take(run.path.parent), exclude=())  # nodes may have been mended
        with _put_back_unless_held(run):
            order.save(run.path / "order.json")
            write_atomic(run.path / "code.json", json.dumps({**provenance.code(), "snapshot": order.code}))
            start([run], attempt)
        jsonl.event(run.path, "resubmitted", attempt=attempt, code=order.code)
    return run


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Two people, or two shells, do not resume one run at a time. Raises `LabError` for the second."""
    with (run.path / ".resuming").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LabError(f"run {run.id} is being resumed already") from None
        yield


@contextmanager
def _put_back_unless_held(run: Run) -> Iterator[None]:
    """What an ended submission left goes; it comes back where the new one is not accepted, or is interrupted before."""
    ended = [run.path / name for name in (orders.STOP, orders.TRACE, "scheduler.json", "view.json", "settled.json")]
    ended += (run.path / "heartbeat").glob("*.json")
    changed = [run.path / "order.json", run.path / "code.json"]
    kept = {file: file.read_bytes() for file in [*ended, *changed] if file.is_file()}
    for file in ended:
        file.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        if run.held_by is None:
            for file, content in kept.items():
                file.write_bytes(content)
        raise


def stop(run: Run, now: bool = False) -> int:
    """Ask a run to save and end, wherever it is; gives how many processes or jobs were asked. `now` ends it unsaved.

    A job that has not begun is taken out of the queue. Raises `LabError` for processes of another machine.
    """
    if mirror.origin(run.path):
        return int(far.ask(run, "stop", now=now)["asked"])
    held = run.held_by
    if run.state.finished:
        return 0
    write_atomic(run.path / orders.STOP, json.dumps({"at": time.time()}))
    if held is None or held.system == "local":
        return here.stop(run, now)
    query.check_ours(run.path, held)
    waiting = now or run.view is None or run.view.pending
    query.command("scancel", *([] if waiting else ["--signal=USR2"]), held.job_id)
    query.forget()
    return 1


def trace(run: Run, steps: int = 3) -> None:
    """Ask a working run, wherever it is, to trace its next `steps` steps; `lablib.runs.traces.traces` reads what comes of it.
    Raises `LabError` where the run's stage cannot, or it is not working."""
    if mirror.origin(run.path):
        far.ask(run, "trace", steps=steps)
    else:
        traces.request(run, steps)


def requeue(run: Run) -> Run:
    """Have a run save, if it works, and begin again from its checkpoint; one that has ended is resumed.

    Raises `LabError` as `resume` does.
    """
    if mirror.origin(run.path):
        far.ask(run, "requeue")
        return Run.open(far.url(run))
    held = run.held_by
    if run.state.finished:
        return resume(run)
    if held is None or held.system == "local":
        here.end_attempt(run)
    else:
        query.check_ours(run.path, held)
        query.command("scontrol", "requeue", held.job_id)
        query.forget()
    return run


def extend(
    run: Run,
    max_dollars: str | float | None = None,
    max_gpu_hours: float | None = None,
    time_limit: str | float | None = None,
) -> Run:
    """Change what a run may spend and how long one job of it may take; a working run learns of it within seconds.

    Slurm lets only its administrators lengthen a job that it has: else the new limit holds once the run is resumed, which
    an ``extended`` event says. Raises `LabError` where nothing is given or cannot be read, or a limit is below what was
    spent.
    """
    if mirror.origin(run.path):
        far.ask(run, "extend", max_dollars=max_dollars, max_gpu_hours=max_gpu_hours, time_limit=time_limit)
        return run
    order = run.order
    changed: dict[str, Any] = {}
    if max_dollars is not None:
        changed["max_dollars"] = _read("max_dollars", max_dollars, parse_dollars)
    if max_gpu_hours is not None:
        changed["max_gpu_hours"] = max_gpu_hours
    if time_limit is not None:
        changed["profile"] = order.profile.replace(time=_read("time_limit", time_limit, parse_seconds))
    if not changed:
        raise LabError("extend: give max_dollars, max_gpu_hours or time_limit")
    wanted = order.replace(**changed)
    _refuse_spent(run, wanted)
    wanted.save(run.path / "order.json")
    told = {name: value for name, value in changed.items() if name != "profile"}
    if time_limit is not None:
        told |= {"time": str(time_limit), "holds": _lengthen(run, changed["profile"].time)}
    jsonl.event(run.path, "extended", **told)
    return run


def _read(name: str, value: str | float, parse: Callable[[object], float]) -> float:
    try:
        return parse(value)
    except ValueError as error:
        raise LabError(f"{name}={value!r} {error}") from None


def _lengthen(run: Run, seconds: float) -> str:
    """Ask Slurm for another time limit of the job that it has; from when the new one holds."""
    held = run.held_by
    if held is None or held.system == "local" or run.state.finished:
        return "from the next attempt"
    query.check_ours(run.path, held)
    try:
        query.command("scontrol", "update", f"JobId={held.job_id}", f"TimeLimit={max(1, int(seconds / MINUTE))}")
    except LabError:
        return "once it is stopped and resumed: Slurm does not let you lengthen the job"
    return "at once"


def _refuse_spent(run: Run, wanted: orders.Order) -> None:
    hours = run.seconds / 3600 * wanted.gpus(run.recipe.gpus)
    if wanted.max_gpu_hours is not None and wanted.max_gpu_hours <= hours:
        raise LabError(
            f"max_gpu_hours={wanted.max_gpu_hours:g}: {hours:.3g} are spent already; `lab stop` ends the run"
        )
    price = wanted.profile.price_per_gpu_hour
    if wanted.max_dollars is None:
        return
    if price is None:
        raise LabError(
            f"max_dollars={wanted.max_dollars:g}: profile {wanted.profile.name} has no price_per_gpu_hour to count by; give max_gpu_hours"
        )
    if wanted.max_dollars <= hours * price:
        raise LabError(
            f"max_dollars={wanted.max_dollars:g}: ${hours * price:.2f} are spent already; `lab stop` ends the run"
        )


def log_file(run: Run, rank: int = 0) -> Path:
    """Where the newest attempt's process of that rank writes what it prints. Raises `LabError` where it has not begun."""
    held, far_away = run.held_by, mirror.origin(run.path) is not None
    folder = Path(held.logs) if held and held.logs and not far_away else run.path / "logs"
    job = held.job_id if held and held.system == "slurm" else "*"
    found = sorted(folder.glob(f"{job}_{rank}_log.out"), key=lambda file: file.stat().st_mtime_ns)
    if not found:
        raise LabError(f"rank={rank}: run {run.id} has no log of it; it has {run.recipe.gpus} ranks and is {run.state}")
    return found[-1]


def tail(run: Run, rank: int = 0, lines: int = 40) -> str:
    """The last `lines` lines that a rank printed. Raises `LabError` where it has not begun."""
    with log_file(run, rank).open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 400 * lines))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:])
