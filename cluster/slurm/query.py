"""What Slurm says of jobs: squeue first, which also knows the recently ended; sacct where there is accounting.

Text with explicit formats is parsed, never JSON, whose shape changes between versions. One question serves all runs of
a process for `FRESH` seconds: a board of hundreds of runs asks once.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lablib.runs import orders
from lablib.runs.orders import Record, View
from lablib.specs import LabError

ARRAYS = ".arrays"
"""Below the folder of runs: what the tasks of an array share."""
FRESH = 2.0
"""Seconds that an answer serves."""
PATIENCE = 20.0
"""Seconds that a command of Slurm may take: its controller may be restarting."""
FIELDS = "%i|%T|%r|%N|%S|%j"
YOUNG = 60.0
"""Seconds in which a controller that restarts may not know a job yet."""
_cache: dict[str, Any] = {"at": -1e9, "jobs": {}, "names": {}, "restarts_at": -1e9, "restarts": {}}


def command(*words: str, check: bool = True, stderr: bool = False) -> str:
    """Run a command of Slurm and give what it printed, with `stderr` also there. Raises `LabError` with its last words."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except FileNotFoundError:
        raise LabError(f"{words[0]} is not on this machine: it is no Slurm login node (`make slurm-up` starts a development Slurm)") from None  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LabError(
            f"{words[0]} gave no answer in {PATIENCE:.0f} s; is Slurm's controller up (scontrol ping)?"
        ) from None
    if check and done.returncode:
        raise LabError(
            f"{' '.join(words[:2])}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
        )
    return done.stdout + done.stderr if stderr else done.stdout


def parse_queue(text: str) -> dict[str, View]:
    """Views by job id from ``squeue -o FIELDS``; a reason of several words stays whole."""
    found = {}
    for line in text.splitlines():
        cells = line.strip().split("|")
        if len(cells) >= 5:
            job, state, reason, nodes, start = cells[:5]
            found[job] = View(
                state=state.split(" ")[0],
                reason="" if reason == "None" else reason,
                nodes=nodes,
                start="" if start == "N/A" else start,
            )
    return found


def parse_accounts(text: str) -> dict[str, View]:
    """Views by job id from ``sacct --parsable2 -o JobID,State,ExitCode,NodeList,Start``.

    A job's own row loses what its steps know: a step's OUT_OF_MEMORY or signal replaces a plain FAILED.
    """
    found: dict[str, View] = {}
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) < 5 or cells[0] == "JobID":
            continue
        job, state, code, nodes, start = cells[0], cells[1].split(" ")[0], *cells[2:5]
        base, _, step = job.partition(".")
        if not step:
            found[job] = View(state=state, nodes="" if nodes == "None assigned" else nodes, exit=code, start=start)
        elif (
            base in found
            and found[base].state == "FAILED"
            and (state == "OUT_OF_MEMORY" or code.partition(":")[2] not in ("", "0"))
        ):
            told = state if state == "OUT_OF_MEMORY" else "FAILED"
            found[base] = found[base].replace(state=told, exit=code, reason=f"step {step}: {state} {code}")
    return found


@dataclass(frozen=True)
class Partition:
    """What sinfo and scontrol say of a partition; None where there is no limit."""

    name: str
    default: bool
    nodes: int
    memory_mib: int
    cpus: int
    gpus: str
    """Generic resources of a node as Slurm writes them: ``gpu:h100:8``; empty without."""
    max_seconds: float | None
    max_nodes: int | None


def parse_partitions(limits: str, nodes: str) -> dict[str, Partition]:
    """Partitions by name from ``scontrol show partition --oneliner`` and ``sinfo -h -o "%R|%D|%m|%c|%G"``."""
    sizes: dict[str, list[list[str]]] = {}
    for line in nodes.splitlines():
        of, *cells = line.strip().split("|")
        sizes.setdefault(of, []).append(cells)
    found = {}
    for line in limits.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split())
        name = words.get("PartitionName", "")
        if not name:
            continue
        rows = sizes.get(name, [])
        most = words.get("MaxNodes", "UNLIMITED")
        found[name] = Partition(
            name=name,
            default=words.get("Default") == "YES",
            nodes=sum(int(row[0]) for row in rows),
            memory_mib=max((_leading(row[1]) for row in rows), default=0),
            cpus=max((_leading(row[2]) for row in rows), default=0),
            gpus=next((row[3] for row in rows if row[3] not in ("", "(null)")), ""),
            max_seconds=seconds_of(words.get("MaxTime", "UNLIMITED")),
            max_nodes=int(most) if most.isdigit() else None,
        )
    return found


def seconds_of(text: str) -> float | None:
    """Seconds of Slurm's ``D-HH:MM:SS``, ``HH:MM:SS``, ``MM:SS`` or ``MM``; None for UNLIMITED and the like."""
    days, _, rest = text.rpartition("-")
    cells = rest.split(":")
    if not all(cell.isdigit() for cell in cells) or (days and not days.isdigit()):
        return None
    numbers = [int(cell) for cell in cells]
    if days:
        numbers += [0] * (3 - len(numbers))
    elif len(numbers) == 1:
        numbers = [0, numbers[0], 0]
    hours, minutes, seconds = ([0] * (3 - len(numbers)) + numbers)[:3]
    return float(int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds)


def _leading(text: str) -> int:
    return int(text.rstrip("+") or 0)


def partitions() -> dict[str, Partition]:
    """The cluster's partitions. Raises `LabError` where Slurm does not answer."""
    return parse_partitions(
        command("scontrol", "show", "partition", "--oneliner"), command("sinfo", "-h", "-o", "%R|%D|%m|%c|%G")
    )


def nodes(partition: str | None) -> set[str]:
    """Names of a partition's nodes (of all, where none is named); empty where Slurm does not answer."""
    where = ["-p", partition] if partition else []
    return set(command("sinfo", "-h", "-N", *where, "-o", "%N", check=False).split())


def seconds_left(job: str) -> float:
    """Seconds until the job's time limit, infinite where it has none. Raises `LabError` where Slurm does not say."""
    said = command("squeue", "-h", "-j", job, "-o", "%L").strip()
    if said == "UNLIMITED":
        return math.inf
    left = seconds_of(said)
    if left is None:
        raise LabError(f"squeue does not say how long job {job} may still run: {said!r}")
    return left


def largest_array() -> int:
    """How many tasks an array may have; Slurm's own default where it does not say."""
    for line in command("scontrol", "show", "config", check=False).splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize":
            return max(1, int(value) - 1)
    return 1000


def on_this_machine() -> bool:
    """Whether the nodes are this machine itself, as the development Slurm's are."""
    return "NodeAddr=127.0.0.1 " in command("scontrol", "show", "node", "--oneliner", check=False)


def parse_restarts(text: str) -> dict[str, int]:
    """How often Slurm started each job again, by id, from ``scontrol show job --oneliner``; an array's tasks as ``12_3``."""
    found = {}
    for line in text.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split())
        if words.get("JobId"):
            task = words.get("ArrayTaskId", "")
            name = f"{words['ArrayJobId']}_{task}" if task.isdigit() else words["JobId"]
            found[name] = int(words.get("Restarts") or 0)
    return found


def restarts(job: str) -> int:
    """How often Slurm started the job again; 0 where it no longer knows it. One question serves all jobs for `FRESH` s."""
    if time.monotonic() - _cache["restarts_at"] > FRESH:
        _cache["restarts"] = parse_restarts(command("scontrol", "show", "job", "--oneliner", check=False))
        _cache["restarts_at"] = time.monotonic()
    return int(_cache["restarts"].get(job, 0))


def taken_away(job: str) -> bool:
    """Whether Slurm is ending a job that could go on: cancelled, requeued or preempted, but not for its time limit."""
    words = dict(
        word.partition("=")[::2] for word in command("scontrol", "show", "job", "--oneliner", job, check=False).split()
    )
    return words.get("JobState", "RUNNING") != "RUNNING" and words.get("Reason") != "TimeLimit"


def queue() -> dict[str, View]:
    """Every job that squeue knows of this user, by id; asked at most every `FRESH` seconds."""
    if time.monotonic() - _cache["at"] > FRESH:
        told = command("squeue", "--me", "--array", "--noheader", "--states=all", "-o", FIELDS)
        _cache["jobs"], _cache["names"] = parse_queue(told), parse_names(told)
        _cache["at"] = time.monotonic()
    return dict(_cache["jobs"])


def parse_names(text: str) -> dict[str, str]:
    """Names of jobs by id from ``squeue -o FIELDS``."""
    rows = (line.strip().split("|", 5) for line in text.splitlines())
    return {cells[0]: cells[5] for cells in rows if len(cells) == 6}


def name_of(run: Path, held: Record) -> str:
    """What a run's job is called: its id, or that of the first run of its array."""
    folder = Path(held.logs)
    return folder.name if folder.parent.name == ARRAYS else run.name


def _is_strangers(run: Path, held: Record) -> bool:
    """Whether Slurm, made anew or past its largest number, has given the id to another job."""
    return _cache["names"].get(held.job_id, name_of(run, held)) != name_of(run, held)


def check_ours(run: Path, held: Record) -> None:
    """Raises `LabError` where the job of that id is not this run's any more."""
    if held.job_id in queue() and _is_strangers(run, held):
        raise LabError(
            f"job {held.job_id} is {_cache['names'][held.job_id]!r} now, not run {run.name}: Slurm has used the number again"
        )


def forget() -> None:
    """Ask anew at the next question: something was just submitted or cancelled."""
    _cache["at"] = _cache["restarts_at"] = -1e9


def accounts(jobs: Iterable[str]) -> dict[str, View]:
    """What accounting knows of jobs; nothing where there is none."""
    wanted = ",".join(jobs)
    if not wanted:
        return {}
    try:
        return parse_accounts(
            command("sacct", "--noheader", "--parsable2", "-j", wanted, "-o", "JobID,State,ExitCode,NodeList,Start")
        )
    except LabError:
        return {}


def see(run: Path, held: Record) -> View | None:
    """The fresh view of a run's job, kept in its folder; None where Slurm cannot be asked or forgot the job."""
    last = orders.kept_view(run)
    if last is not None and last.final and last.state != "NODE_FAIL" and (run / "settled.json").is_file():
        return last
    try:
        found = queue().get(held.job_id)
    except LabError:
        return None
    stranger = _is_strangers(run, held)
    found = None if stranger else found
    if last is not None and last.final and _says_no_more(found, last):
        return last
    if not stranger and (found is None or found.state == "FAILED"):
        found = accounts([held.job_id]).get(held.job_id) or found
    if found is None:
        if time.time() - held.submitted < YOUNG:
            return None
        found = View(state=orders.UNKNOWN, reason="neither the queue nor accounting knows the job any more")
    if not found.final or last is None or last.restarts:
        found = found.replace(restarts=restarts(held.job_id) if _has_begun(run) else 0)
    orders.keep_view(run, found)
    return found


def _says_no_more(found: View | None, last: View) -> bool:
    """Whether the queue adds nothing to a final view: a job that goes on after its end is in it, and a plain FAILED says less
    than the step that accounting told of."""
    return found is None or (found.state == "FAILED" and last.state in ("FAILED", "OUT_OF_MEMORY"))


def _has_begun(run: Path) -> bool:
    """Only a job whose ranks once began can have been started again: saves a question for those that wait."""
    return (run / "heartbeat").is_dir()


orders.watch_with("slurm", see)
