"""`Run`: read a run directory, live or long finished, from any process that sees the filesystem."""

from __future__ import annotations

import html
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lablib.runs import artefacts, documents, heartbeat, jsonl, mirror, orders, state
from lablib.runs.recorder import ended_seconds
from lablib.runs.state import GLYPHS, RunState
from lablib.specs import AnyRecipe, Cluster, LabError, Recipe, Ref, parse_recipe, write_atomic
from lablib.specs.paths import runs_root
from lablib.specs.units import show_seconds

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """What a run took, in the units of its estimate; None where nothing was measured."""

    seconds: float
    peak_gib: float
    gpu_hours: float
    dollars: float | None
    loss: float | None
    tokens_per_second: float | None


UNTOLD = "its processes ended without a word: killed, out of memory, or their machine was restarted"
_SEEN: dict[Path, tuple[tuple[int, ...], float]] = {}
"""When this process last saw a run's beats change: staleness is judged by the watcher's own clock."""


def _fresh(stem: Path) -> Path:
    """A new folder of that beginning; a sweep makes many in one second, so that four random digits do meet."""
    while True:
        path = stem.with_name(f"{stem.name}-{secrets.token_hex(2)}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


class Run:
    """A run folder and nothing else: two `Run` objects of one path are the same run."""

    def __init__(self, path: Path) -> None:
        """Use `Run.open`, which checks the folder."""
        self.path = path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """A run by its folder, by its id below the runs folder, or on another machine by ``ssh://user@host/folder``, which
        is then kept up to date here, as the folder of such a copy is. Raises `LabError` where there is none."""
        if str(path).startswith("ssh://"):
            return mirror.keep(cls(mirror.open_mirror(str(path))))
        for folder in (Path(path), runs_root() / str(path)):
            if (folder / "recipe.json").is_file():
                run = cls(folder.absolute())
                return mirror.keep(run) if mirror.refresh(run.path) else run
        raise LabError(f"There is no run at {path}; `lab jobs` lists the runs in {runs_root()}")

    @classmethod
    def create(cls, recipe: Recipe, root: Path, cluster: Cluster | None = None, **documents: Any) -> Run:
        """A new run folder with its recipe, the cluster it is priced on and JSON `documents` (estimate=..., ...)."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        root.mkdir(parents=True, exist_ok=True)
        path = _fresh(root.absolute() / f"{recipe.name[:40]}-{stamp}")
        if cluster is not None:
            cluster.save(path / "cluster.json")
        for name, document in documents.items():
            if document is not None:
                write_atomic(path / f"{name}.json", json.dumps(document, indent=1))
        write_atomic(path / "recipe.json", recipe.to_json())
        return cls(path)

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def address(self) -> str:
        """What `Run.open`, and so every command of ``lab``, finds it by from here: its id, or where it lies by ssh."""
        found = mirror.origin(self.path)
        return self.id if found is None else found[0].url(found[1])

    @property
    def recipe(self) -> AnyRecipe:
        """What was asked."""
        return documents.parsed(self._file("recipe"), self._json("recipe") or {}, parse_recipe)

    @property
    def cluster(self) -> Cluster | None:
        """The machines that the run is priced on."""
        found = self._json("cluster")
        return None if found is None else documents.parsed(self._file("cluster"), found, lambda fields: Cluster(**fields))  # fmt: skip

    @property
    def estimate(self) -> dict[str, Any] | None:
        """The plan as it was registered before the start, as JSON (`lablib.plan.Estimate.from_json` reads it)."""
        found = self._json("estimate", "days")
        if found is not None and not (
            isinstance(found["days"], dict) and {"low", "mid", "high"} <= found["days"].keys()
        ):
            raise documents.damaged(self._file("estimate"), f"days={found['days']!r} is no range")
        return found

    @property
    def forecast(self) -> dict[str, Any] | None:
        """The loss curve that was forecast before the start."""
        return self._json("forecast", "low", "mid", "high")

    @property
    def manifest(self) -> dict[str, Any]:
        """Provenance: code, versions, hardware, inputs with checksums, notes."""
        return self._json("manifest") or {}

    @property
    def artefacts(self) -> dict[str, artefacts.Artefact]:
        """What the run has made so far, by name."""
        return artefacts.load(self.path)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.json"

    def _json(self, name: str, *needed: str) -> dict[str, Any] | None:
        return documents.table(self._file(name), *needed)

    def artefact_path(self, name: str) -> Path:
        """Where an artefact lies. Raises `LabError` that lists what there is."""
        made = self.artefacts.get(name)
        if made is None:
            raise LabError(
                f"run {self.id} has made no {name!r}; it has {sorted(self.artefacts) or 'nothing yet'} and is {self.state}"
            )
        return self.path / made.path

    def ref(self, name: str) -> Ref:
        """A typed reference to an artefact, which the run need not have made yet."""
        return Ref(run=self.id, artefact=name, science=self.recipe.science_hash)

    @property
    def model(self) -> Ref:
        """Reference to the trained model."""
        return self.ref("model")

    @property
    def data(self) -> Ref:
        """Reference to the prepared token shards."""
        return self.ref("data")

    @property
    def tokenizer(self) -> Ref:
        """Reference to the tokenizer."""
        return self.ref("tokenizer")

    def rows(self, stream: str = "train") -> list[dict[str, Any]]:
        """Metric rows by step; where a resumed run logged a step again, the later row stands."""
        found = jsonl.read(self.path / "metrics" / f"{stream}.jsonl")
        return [row for _, row in sorted({row["step"]: row for row in found if "step" in row}.items())]

    def metrics(self, stream: str = "train") -> pd.DataFrame:
        """`rows` as a data frame: step, time and whatever the stage logs."""
        import pandas as pd

        return pd.DataFrame(self.rows(stream))

    def events(self) -> list[dict[str, Any]]:
        """What happened, in order: started, artefact, checkpoint, failed, ..."""
        return jsonl.events(self.path)

    def follow(self, stream: str = "train", every: float = 0.5) -> Iterator[dict[str, Any]]:
        """Yield metric rows as they are written, until the run has finished; `every` seconds between looks."""
        tail = jsonl.Tail(self.path / "metrics" / f"{stream}.jsonl")
        while True:
            finished = self.state.finished  # asked first, so that rows written before the end are not missed
            yield from tail.read()
            if finished:
                return
            time.sleep(every)

    @property
    def pulses(self) -> list[heartbeat.Pulse]:
        """What each process of the newest attempt last said of itself, rank 0 first."""
        found = heartbeat.read_all(self.path)
        newest = max((pulse.attempt for pulse in found), default=0)
        return [pulse for pulse in found if pulse.attempt == newest]

    @property
    def order(self) -> orders.Order:
        """Where, after what and up to what budget it was submitted."""
        return orders.order(self.path)

    @property
    def held_by(self) -> orders.Record | None:
        """The submission that has it in hand; None before that."""
        return orders.record(self.path)

    @property
    def view(self) -> orders.View | None:
        """How its scheduler sees it; None on this machine, and where nobody has looked yet."""
        return orders.view(self.path, self.held_by)

    @property
    def state(self) -> RunState:
        """From heartbeats, from whoever has the run in hand, and from what was decided at its end; never from a process
        handle or a clock."""
        held, pulses = self.held_by, self.pulses
        ranks = state.of_ranks(pulses, bool(pulses) and self._unchanged_for(pulses) > heartbeat.STALE)
        if held is None:
            return ranks
        attempt = pulses[0].attempt if pulses else -1
        settled, outcome = self._settled
        if settled >= attempt >= held.attempts_before:
            return state.ENDS[outcome]
        seen = orders.view(self.path, held)
        if seen is not None:
            asked = (self.path / orders.STOP).exists()
            if seen.state == "CANCELLED" and not asked and self._never_began():
                return RunState.FAILED
            known = attempt >= held.attempts_before + seen.restarts
            return state.with_view(ranks, seen, known, self._silent_since(seen))
        watched = held.supervisor
        if watched is None or not heartbeat.same_machine(watched):
            return ranks
        if heartbeat.alive(watched):
            return state.in_hand(ranks, attempt >= held.attempts_before)
        return RunState.LOST if not pulses or attempt < held.attempts_before else ranks

    @property
    def _settled(self) -> tuple[int, str]:
        """The last attempt after which the run was left at its end, and as what; -1 before that."""
        found = self._json("settled", "attempt", "outcome")
        if found is None:
            return -1, ""
        if found["outcome"] not in state.ENDS:
            raise documents.damaged(self._file("settled"), f"outcome {found['outcome']!r} is none")
        return documents.parsed(self._file("settled"), found["attempt"], int), found["outcome"]

    def _silent_since(self, seen: orders.View) -> bool:
        """Whether no rank has beaten since `seen` was written, at least `STALE` seconds ago. Times of files are compared,
        which one file server gives."""
        try:
            written = self._file("view").stat().st_mtime
        except FileNotFoundError:
            return self._unchanged_for(self.pulses) > heartbeat.STALE
        beats = [file.stat().st_mtime for file in (self.path / "heartbeat").glob("[!.]*.json")]
        return time.time() - seen.at > heartbeat.STALE and max(beats, default=0.0) <= written

    def _unchanged_for(self, pulses: list[heartbeat.Pulse]) -> float:
        beats, now = tuple(pulse.beat for pulse in pulses), time.monotonic()
        if _SEEN.get(self.path, (None, 0.0))[0] != beats:
            _SEEN[self.path] = (beats, now)
        return now - _SEEN[self.path][1]

    @property
    def failure(self) -> str:
        """Why the run came to a bad end, or why its last attempt did while another one follows, in words and with the
        remote traceback where there is one; else empty."""
        now = self.state
        if now in (RunState.COMPLETED, RunState.STOPPED):
            return ""
        last = self._last_end()
        told = str(last["reason"]) if last.get("reason") else self._as_a_rank_tells()
        if now.finished:
            given_up = self._given_up()
            silent = "" if last.get("kind") in ("stopped", "failed") else UNTOLD
            told = self._never_began() or told or self._as_the_scheduler_tells(given_up != "") or silent
            told = "; ".join(filter(None, [told, given_up]))
        return f"{told}\n\n{last['traceback']}" if last.get("traceback") else told

    def _last_end(self) -> dict[str, Any]:
        """The event with which the newest attempt ended; empty where it left none."""
        found: dict[str, Any] = {}
        for event in self.events():
            if event["kind"] == "started":
                found = {}
            elif event["kind"] in state.ENDED:
                found = event
        return found

    def _as_a_rank_tells(self) -> str:
        return next((f"rank {pulse.rank}: {pulse.reason}" for pulse in self.pulses if pulse.reason), "")

    def _given_up(self) -> str:
        """Why there is no further attempt, as `cluster.settle` left it; empty where the error itself says so."""
        told = [event for event in self.events() if event["kind"] in ("attempt", "resubmitted")]
        if (
            not told
            or told[-1].get("outcome") != "failed"
            or any(pulse.exit == state.HOPELESS for pulse in self.pulses)
        ):
            return ""
        return str(told[-1].get("reason", ""))

    def _never_began(self) -> str:
        """Why a run was not even started: one that it needs came to a bad end, be it that it was resumed since."""
        held = self.held_by
        for before in self._predecessors() if not self.pulses else ():
            if before.state.finished and before.state is not RunState.COMPLETED:
                reason = before.failure.partition("\n")[0]
                return f"it needs run {before.id}, which is {before.state}{': ' + reason if reason else ''}; resume that one, then this"  # fmt: skip
            again = [event["time"] for event in before.events() if event["kind"] == "resubmitted"]
            if held is not None and again and again[-1] > held.submitted:
                return f"it needs run {before.id}, which had come to a bad end and was resumed since; resume this one too"  # fmt: skip
        return ""

    def _as_the_scheduler_tells(self, given_up: bool) -> str:
        seen = self.view
        if seen is None or not seen.final or seen.state in ("COMPLETED", "CANCELLED"):
            return ""
        if given_up and seen.state == "FAILED" and seen.reason in ("", "NonZeroExitCode"):
            return ""  # it is how the job's script ends when it gives up
        if seen.state == orders.UNKNOWN:
            return "its processes fell silent, and Slurm no longer knows the job"
        return f"Slurm ended the job: {seen.state}{', ' + seen.reason if seen.reason else ''}{' on ' + seen.nodes if seen.nodes else ''}"

    def _predecessors(self) -> list[Run]:
        return [Run(self.path.parent / name) for name in self.order.after]

    @property
    def progress(self) -> dict[str, Any]:
        """done, total, unit, per_second of this attempt, and eta_seconds where that can be told."""
        found = self._json("progress", "done", "total") or {}
        if found.get("per_second"):
            found["eta_seconds"] = (found["total"] - found["done"]) / found["per_second"]
        return found

    @property
    def seconds(self) -> float:
        """Working time of all attempts so far, without waiting for other runs."""
        ended = ended_seconds(self.events())
        live = next((p for p in self.pulses if p.rank == 0 and p.exit is None and p.phase != "waiting"), None)
        return ended + (live.at - live.started if live else 0.0)

    @property
    def outcome(self) -> Outcome:
        """What the run has taken so far, to set beside its estimate."""
        rows, cluster, gpu_hours = self.rows(), self.cluster, self.seconds / 3600 * self.order.gpus(self.recipe.gpus)
        rates = sorted(row["tokens_per_second"] for row in rows if row.get("tokens_per_second"))
        losses = [row["loss"] for row in rows if row.get("loss") is not None]
        price = cluster.price_per_gpu_hour if cluster else None
        return Outcome(
            seconds=self.seconds,
            peak_gib=max((pulse.peak_gib for pulse in self.pulses), default=0.0),
            gpu_hours=gpu_hours,
            dollars=None if price is None else gpu_hours * price,
            loss=sum(losses[-10:]) / len(losses[-10:]) if losses else None,
            tokens_per_second=rates[len(rates) // 2] if rates else None,
        )

    def wait(self, every: float = 0.3) -> RunState:
        """Block until the run has finished; never needed in a notebook, where `watch` shows it live."""
        while not (state := self.state).finished:
            time.sleep(every)
        return state

    def __repr__(self) -> str:
        return f"{GLYPHS[self.state]} {self.state} · {self.recipe.stage} · {show_seconds(self.seconds)}\n  Run.open({str(self.path)!r})"

    def _repr_html_(self) -> str:
        return f"<b>{GLYPHS[self.state]} {self.state}</b> · {html.escape(self.recipe.name)} · {show_seconds(self.seconds)}<br><code>Run.open({html.escape(repr(str(self.path)))})</code>"
