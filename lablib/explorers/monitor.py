"""A run as a screen, live or long finished: what it measures beside what was planned, and how it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.explorers import domains, forecast, inside, show
from lablib.explorers.planned import Planned, planned
from lablib.explorers.view import Headline, Status, Table, Tone, View
from lablib.explorers.wall import wall_table
from lablib.runs import GLYPHS, Run, RunState
from lablib.runs.account import account
from lablib.runs.jsonl import Tail

TONES: dict[RunState, Tone] = {
    RunState.COMPLETED: "good",
    RunState.STALLED: "warn",
    RunState.STOPPED: "warn",
    RunState.FAILED: "bad",
    RunState.LOST: "bad",
}
ADVICE = {
    RunState.QUEUED: "The job has not started yet.",
    RunState.WAITING: "The job waits for the runs that it depends on.",
    RunState.STALLED: "No sign of life for a while: the process hangs, or its machine cannot be reached. Numbers are the last known.",
    RunState.LOST: "The process died without a word (killed, out of memory or a restart of its machine). Submit the run again: it resumes from its last checkpoint.",
    RunState.STOPPED: "Stopped on request after saving; submit it again to resume.",
}
HEALING = ("rewound", "not_finite", "hardware", "fp32_attention", "checkpoint_torn", *inside.ALARMS)
"""Kinds of events in which a training run heals itself (`lablib.train.stability`) or asks for help."""
ACCOUNTED = 30.0
"""Seconds between two accounts of a run that goes on: each reads its whole files."""
SPAN = 20
"""Logged steps that the smoothed curves average over; a tenth of them while there are few, else the line would lag."""


class Monitor:
    """Follows one run folder; each look reads only what was appended since the last."""

    def __init__(self, run: Run, points: int = charts.sample.MOST) -> None:
        """`points` is the most of one series that `view` holds."""
        self.run, self._points = run, points
        self._tails = {
            name: Tail(run.path / "metrics" / f"{name}.jsonl") for name in ("train", "eval", "layers", "routers")
        }
        self._rows: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in self._tails}
        self._events, self._happened = Tail(run.path / "events.jsonl"), list[dict[str, Any]]()
        self._account: tuple[float, RunState, tuple[Table, ...]] | None = None

    def rows(self, stream: str) -> list[dict[str, Any]]:
        """All rows of a stream by step so far; a step that was logged again counts once."""
        new = self._tails[stream].read()
        self._rows[stream].update({row["step"]: row for row in new if "step" in row})
        return [row for _, row in sorted(self._rows[stream].items())]

    def healing(self) -> list[dict[str, Any]]:
        """Events so far in which the run dealt with a spike or with hardware that computes wrongly."""
        self._happened += [event for event in self._events.read() if event.get("kind") in HEALING]
        return self._happened

    def wall(self, state: RunState) -> tuple[Table, ...]:
        """Where the time of all attempts went; none before the first logged step."""
        kept, now = self._account, time.monotonic()
        if kept is None or kept[1] is not state or now - kept[0] > ACCOUNTED:
            found = account(self.run)
            tables = () if found is None else (wall_table(asdict(found), self.run.estimate),)
            self._account = kept = (now, state, tables)
        return kept[2]

    def view(self) -> View:
        """The screen of this moment. Reads files; never writes or waits."""
        run, state, plan = self.run, self.run.state, planned(self.run)
        train, heldout = self.rows("train"), self.rows("eval")
        healing = self.healing()
        frames = _frames(train, heldout, plan, run.forecast, self._points) | _rewinds(healing)
        frames |= domains.frames(run, train, heldout, self._points) | inside.frames(
            [*self.rows("layers"), *self.rows("routers")]
        )
        read = domains.table(frames)
        progress = run.progress
        return View(
            title=run.recipe.name,
            subtitle=f"{run.recipe.stage} · {run.id}",
            status=Status(GLYPHS[state], str(state), TONES.get(state, "plain")),
            progress=_share(progress, state),
            headlines=tuple(_headlines(run, state, train, frames, plan, progress)),
            charts=tuple(figures(frames)),
            frames=frames,
            tables=(*(() if read is None else (read,)), *self.wall(state)),
            notes=(
                *healed(healing),
                *kept_and_learned(sides(heldout)),
                *domains.repeats(frames),
                *_notes(run, state, frames),
                *_spent(train),
            ),
            failure=run.failure if state in (RunState.FAILED, RunState.LOST) else "",
        )


def _rewinds(healing: list[dict[str, Any]]) -> dict[str, Frame]:
    rows = [event for event in healing if event["kind"] == "rewound"]
    return {"rewinds": {"step": [row["at_step"] for row in rows], "to_step": [row["to_step"] for row in rows]}} if rows else {}  # fmt: skip


def healed(events: list[dict[str, Any]]) -> list[str]:
    """A sentence for each thing that a run did to heal itself; steps without an update are counted in one."""
    healing = [event for event in events if event["kind"] in HEALING]
    told = [_sentence(event) for event in healing if event["kind"] != "not_finite"]
    passed = len(healing) - len(told)
    return [*told, f"Steps whose loss or gradient was not finite, and which made no update: {passed}."] if passed else told  # fmt: skip


def sides(heldout: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Held-out loss of a run with replay on its "new" and "old" mixture: at the first and the last time that both
    were a number; {} for others."""
    known = [row for row in heldout if row.get("loss_old") is not None and row.get("loss_new") is not None]
    if len(known) < 2:
        return {}
    return {name: (known[0][f"loss_{name}"], known[-1][f"loss_{name}"]) for name in ("new", "old")}


def kept_and_learned(losses: Mapping[str, Sequence[float]]) -> list[str]:
    """What a run has learned of its new mixture, and kept of the old one (`sides`), in a sentence."""
    told = (f"{name} mixture {before:.3f} → {after:.3f}" for name, (before, after) in losses.items())
    return [f"Held-out loss: {', '.join(told)}."] if losses else []


def _sentence(event: dict[str, Any]) -> str:
    if event["kind"] in inside.ALARMS:
        return inside.sentence(event)
    if event["kind"] == "hardware":
        return f"Step {event['at_step']:,} came out different when it was computed again: check the hardware of {', '.join(event['nodes']) or 'every node'}."  # fmt: skip
    if event["kind"] == "fp32_attention":
        return f"Attention of layer {event['layer']} is computed in fp32."
    if event["kind"] == "checkpoint_torn":
        return f"{event['checkpoint']} is damaged and was passed over."
    first, end = event["skip"]
    slower = f", at {event['rate']:.0%} of the learning rate" if event["rate"] < 1 else ""
    return f"Spike at step {event['at_step']:,} ({event['why']}): back to step {event['to_step']:,}, sequences {first:,} to {end - 1:,} are skipped{slower}. This run is no longer exactly its recipe."  # fmt: skip


def _share(progress: dict[str, Any], state: RunState) -> float | None:
    if state is RunState.COMPLETED:
        return 1.0
    return min(1.0, progress["done"] / progress["total"]) if progress.get("total") else None


def _curve(rows: list[dict[str, Any]], name: str, points: int) -> Frame:
    full = charts.columns(rows, ("step", name))
    smooth = charts.smooth(full[name], max(1, min(SPAN, len(full[name]) // 10)))
    return charts.thin({**full, "smooth": smooth}, name, points)


def _frames(
    train: list[dict[str, Any]], heldout: list[dict[str, Any]], plan: Planned, curve: Any, points: int
) -> dict[str, Frame]:
    found = {
        "loss": _curve(train, "loss", points),
        "reward": _curve(train, "reward", points),
        "heldout": charts.series(heldout, "loss", points),
        "band": forecast.band(curve),
        "speed": charts.series(train, "tokens_per_second", points),
        "memory": charts.series(train, "memory_gib", points),
        "speed_plan": {"tokens_per_second": [plan.rate.mid]} if plan.rate else {},
        "memory_plan": {"memory_gib": [plan.gib.mid]} if plan.gib else {},
    }
    others = {name: charts.series(train, name, points) for name in ("lr", "grad_norm", *OTHER)}
    return {name: frame for name, frame in {**found, **others}.items() if frame and any(frame.values())}


OTHER = {
    "accuracy": (
        "Accuracy",
        "Of next tokens in fine-tuning; of pairs (the chosen answer is likelier) in preference training.",
        "share",
    ),
    "margin": ("Preference margin", "Mean implicit reward of chosen minus rejected.", "nats × beta"),
    "kl": ("Distance from the starting model", "KL divergence per token, in nats.", "nats"),
    "entropy": ("Entropy of the policy", "Nats per token; a fall to zero means that it no longer explores.", "nats"),
}


def figures(frames: Mapping[str, Frame]) -> list[Figure]:
    """The figures that a run's frames can fill, what it is trained on first."""
    made: dict[str, Callable[[], Figure]] = {
        "reward": charts.reward,
        "loss": partial(charts.loss, "band" in frames, "rewinds" in frames),
        "domain_loss": charts.loss_by_domain,
        "mixture_read": partial(charts.mixture_read, "mixture_plan" in frames),
        "speed": charts.speed,
        "memory": charts.memory,
        "lr": charts.learning_rate,
        "grad_norm": charts.grad_norm,
    }
    known = [make() for name, make in made.items() if name in frames or (name == "loss" and "band" in frames)]
    others = [charts.metric(name, *words) for name, words in OTHER.items() if name in frames]
    return known + others + inside.figures(frames)


def _headlines(
    run: Run,
    state: RunState,
    train: list[dict[str, Any]],
    frames: dict[str, Frame],
    plan: Planned,
    progress: dict[str, Any],
) -> list[Headline]:
    outcome = run.outcome
    trains = bool(train) or run.recipe.stage not in ("prepare", "evaluate", "export", "synthesize")
    over = outcome.dollars is not None and plan.dollars is not None and outcome.dollars > plan.dollars.high
    speed = Headline("Throughput", show.rate(outcome.tokens_per_second), f"planned {show.span(plan.rate, 'rate')}")
    return [
        *_objective(frames),
        *((speed, _mfu(train[-1] if train else {})) if trains else ()),
        Headline("Memory", show.gib(outcome.peak_gib or None), f"planned {show.span(plan.gib, 'gib')}"),
        _time(state, outcome.seconds, plan, progress),
        Headline(
            "Money",
            show.dollars(outcome.dollars),
            f"planned {show.span(plan.dollars, 'dollars')}{', exceeded' if over else ''}",
            "bad" if over else "plain",
        ),
    ]


def _objective(frames: dict[str, Frame]) -> list[Headline]:
    made = []
    if "reward" in frames:
        made.append(
            Headline("Reward", f"{frames['reward']['smooth'][-1]:.3f}", f"at step {frames['reward']['step'][-1]:,}")
        )
    if "loss" in frames:
        step, value = frames["loss"]["step"][-1], frames["loss"]["smooth"][-1]
        told = forecast.verdict(frames.get("band", {}), step, value)
        made.append(
            Headline(
                "Loss", f"{value:.3f}", told or f"at step {step:,}", "warn" if told.startswith("above") else "plain"
            )
        )
    return made


def _mfu(last: dict[str, Any]) -> Headline:
    if last.get("mfu") is None:
        return Headline("MFU", show.NONE, "no published peak for this device")
    return Headline("MFU", show.share(last["mfu"]), "of the data-sheet peak")


def _time(state: RunState, seconds: float, plan: Planned, progress: dict[str, Any]) -> Headline:
    spent = f"planned {show.span(plan.seconds, 'seconds')}"
    if state is RunState.RUNNING and "eta_seconds" in progress:
        return Headline("Time left", show.seconds(progress["eta_seconds"]), f"{show.seconds(seconds)} so far, {spent}")
    return Headline("Time", show.seconds(seconds), spent)


def _spent(train: list[dict[str, Any]]) -> list[str]:
    """What the last row says of data: how well it is predicted, waited for, and read for the size of the model."""
    last = train[-1] if train else {}
    told = []
    if last.get("bits_per_byte") is not None:
        told.append(f"{last['bits_per_byte']:.3f} bits per byte of training text")
    if last.get("data_wait") is not None:
        told.append(f"{last['data_wait']:.1%} of a step waits for data")
    if last.get("chinchilla") is not None:
        told.append(f"{last['chinchilla']:.2g} × Chinchilla's 20 tokens a parameter read")
    return ["; ".join(told) + "."] if told else []


def _notes(run: Run, state: RunState, frames: dict[str, Frame]) -> list[str]:
    notes = [ADVICE[state]] if state in ADVICE else []
    if "band" in frames and (run.forecast or {}).get("basis"):
        notes.append(f"Forecast: {run.forecast['basis']}")  # type: ignore[index]
    if progress := run.progress:
        notes.append(show.progress(progress))
    notes.append(f"Re-attach from any process: watch(Run.open({str(run.path)!r}))")
    return notes
