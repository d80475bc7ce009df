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

from lablib.runs import artefacts, heartbeat, jsonl, mirror, orders, state
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
        is then kept up to date here. Raises `LabError` where there is none."""
        if str(path).startswith("ssh://"):
            run = cls(mirror.open_mirror(str(path)))
            mirror.keep(run)
            return run
        for folder in (Path(path), runs_root() / str(path)):
            if (folder / "recipe.json").is_file():
                return cls(folder.absolute())
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
    def recipe(self) -> AnyRecipe:
        """What was asked."""
        return parse_recipe(self._json("recipe") or {})

    @property
    def cluster(self) -> Cluster | None:
        """The machines that the run is priced on."""
        found = self._json("cluster")
        return None if found is None else Cluster(**found)

    @property
    def estimate(self) -> dict[str, Any] | None:
        """The plan as it was registered before the start, as JSON (`lablib.plan.Estimate.from_json` reads it)."""
        return self._json("estimate")

    @property
    def forecast(self) -> dict[str, Any] | None:
        """The loss curve that was forecast before the start."""
        return self._json("forecast")

    @property
    def manifest(self) -> dict[str, Any]:
        """Provenance: code, versions, hardware, inputs with checksums, notes."""
        return self._json("manifest") or {}

    @property
    def artefacts(self) -> dict[str, artefacts.Artefact]:
        """What the run has made so far, by name."""
        return artefacts.load(self.path)

    def _json(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.path / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

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
        return jsonl.read(self.path / "events.jsonl")

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
        """From heartbeats and from whoever has the run in hand; never from a process handle or a clock."""
        held, pulses = self.held_by, self.pulses
        ranks = state.of_ranks(pulses, bool(pulses) and self._unchanged_for(pulses) > heartbeat.STALE)
        if held is None:
            return ranks
        attempt = pulses[0].attempt if pulses else -1
        settled = self._settled >= attempt >= held.attempts_before
        seen = orders.view(self.path, held)
        if seen is not None:
            if seen.state == "CANCELLED" and self._never_began():
                return RunState.FAILED
            return state.with_view(ranks, seen, settled, attempt >= held.attempts_before + seen.restarts)
        watched = held.supervisor
        if watched is None or not heartbeat.same_machine(watched):
            return ranks
        if heartbeat.alive(watched):
            return state.in_hand(ranks, settled, attempt >= held.attempts_before)
        return RunState.LOST if not pulses or attempt < held.attempts_before else ranks

    @property
    def _settled(self) -> int:
        """The last attempt after which the run was left at its end; -1 before that."""
        return int((self._json("settled") or {}).get("attempt", -1))

    def _unchanged_for(self, pulses: list[heartbeat.Pulse]) -> float:
        beats, now = tuple(pulse.beat for pulse in pulses), time.monotonic()
        if _SEEN.get(self.path, (None, 0.0))[0] != beats:
            _SEEN[self.path] = (beats, now)
        return now - _SEEN[self.path][1]

    @property
    def failure(self) -> str:
        """Why the last attempt failed, with the remote traceback where there is one; empty where it did not."""
        ends = [event for event in self.events() if event["kind"] in ("failed", "completed", "stopped")]
        if ends and ends[-1]["kind"] == "failed":
            return f"{ends[-1]['reason']}\n\n{ends[-1]['traceback']}"
        said = next((f"rank {pulse.rank}: {pulse.reason}" for pulse in self.pulses if pulse.reason), "")
        return said or self._never_began() or self._as_the_scheduler_tells()

    def _never_began(self) -> str:
        """Why a run was not even started: one that it needs came to a bad end."""
        for before in self._predecessors() if not self.pulses else ():
            if before.state.finished and before.state is not RunState.COMPLETED:
                reason = before.failure.partition("\n")[0]
                return f"it needs run {before.id}, which is {before.state}{': ' + reason if reason else ''}; resume that one, then this"  # fmt: skip
        return ""

    def _as_the_scheduler_tells(self) -> str:
        seen = self.view
        if seen is None or not seen.final or seen.state in ("COMPLETED", "CANCELLED"):
            return ""
        return f"Slurm ended the job: {seen.state}{', ' + seen.reason if seen.reason else ''}{' on ' + seen.nodes if seen.nodes else ''}"

    def _predecessors(self) -> list[Run]:
        return [Run(self.path.parent / name) for name in self.order.after]

    @property
    def progress(self) -> dict[str, Any]:
        """done, total, unit, per_second of this attempt, and eta_seconds where that can be told."""
        found = self._json("progress") or {}
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
        rows, cluster, gpu_hours = self.rows(), self.cluster, self.seconds / 3600 * self.recipe.gpus
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
