"""What a layout search found: candidates in order, each with its figures and the reason where it loses."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lablib.plan import flops, reasons, scaling, thumb
from lablib.plan.candidates import FIELDS
from lablib.plan.params import count
from lablib.plan.sweep import CAUSES, Settings
from lablib.plan.trials import FULL, Trials
from lablib.specs import Balance, Cluster, LabError, ModelSpec, Optimizer, Parallelism, Pretrain
from lablib.specs.units import show_count

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
"""Rows that a rendering shows where the search was not told otherwise."""
CHINCHILLA = 20
"""Tokens a parameter of a recipe whose tokens nobody gave (arXiv 2203.15556 §3)."""


@dataclass(frozen=True)
class Candidate:
    """One layout of the search. Figures of candidates that cannot run are NaN."""

    found: Found
    index: int
    rank: int
    """From 1, the fastest."""

    @property
    def settings(self) -> Settings:
        """Its precision, recomputation and ZeRO stage."""
        return self.found.settings[self.found.trials.setting[self.index]]

    @property
    def parallelism(self) -> Parallelism:
        """The layout, ready for a recipe. Raises `LabError` where it is none."""
        degrees = {name: int(self.found.trials.columns[name][self.index]) for name in FIELDS}
        one = self.settings
        return Parallelism(
            **degrees,
            zero=one.zero,
            sequence_parallel=one.sequence_parallel and degrees["tp"] > 1,
            pp_schedule=one.pp_schedule,
        )

    @property
    def step_parts(self) -> dict[str, float]:
        """Seconds of one step by cause."""
        return {
            cause: float(seconds) for cause, seconds in zip(CAUSES, self.found.trials.parts[:, self.index], strict=True)
        }

    @property
    def step_seconds(self) -> float:
        """Seconds of one step."""
        return float(self.found.trials.parts[:, self.index].sum())

    def row(self) -> dict[str, Any]:
        """The figures as the data frame has them."""
        return self.found.rows([self.index], self.rank)[0]

    def recipe(self, tokens: int | str | None = None, name: str = "") -> Pretrain:
        """The pretraining that was priced: what is submitted is what was searched. `tokens` defaults to twenty a
        parameter, and the learning rate is `scaling.suggested`'s."""
        found, one = self.found, self.settings
        model = found.model
        priced = Pretrain(
            name=name,
            model=model.reaching(found.seq_len),
            tokens=CHINCHILLA * count(model).total if tokens is None else tokens,
            seq_len=found.seq_len,
            batch_tokens=int(found.trials.tokens[self.index]),
            parallelism=self.parallelism,
            optimizer=Optimizer(kind=one.optimizer),
            recompute=one.recompute,
            precision=one.precision,
            compile=one.compile,
            cross_entropy=one.cross_entropy,
            offload=one.offload,
            reduce_dtype=one.reduce_dtype,
            expert_imbalance=one.expert_imbalance,
            document_mask=not model.recurrent,
            balance=Balance.usual(model),
        )
        return scaling.suggested(priced, batch=False)


@dataclass(frozen=True, eq=False)
class Found:
    """All candidates of a search, fastest first; iterating gives each as a `Candidate`."""

    model: ModelSpec
    cluster: Cluster
    batch_tokens: int
    seq_len: int
    settings: tuple[Settings, ...]
    trials: Trials
    top: int | None = None

    @cached_property
    def order(self) -> np.ndarray:
        """Row numbers of `trials`, fastest first."""
        return self.trials.order()

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, place: int) -> Candidate:
        place = range(len(self))[place]
        return Candidate(self, int(self.order[place]), place + 1)

    def __iter__(self) -> Iterator[Candidate]:
        return (self[place] for place in range(len(self)))

    @property
    def fitting(self) -> int:
        """Candidates that can run."""
        return int(self.trials.fits.sum())

    @property
    def best(self) -> Candidate:
        """The fastest that fits. Raises `LabError` with the nearest where none does."""
        if self.fitting:
            return self[0]
        nearest = self[0].row()
        raise LabError(
            f"none of {len(self):,} layouts on {self.cluster.gpus} × {self.cluster.accelerator.name} can run; the nearest ("
            f"{self.layout_words(self[0].index)}) {nearest['reason']}. Take more accelerators, a smaller batch or sequence, "
            "or recompute='full'"
        )

    @cached_property
    def rule(self) -> thumb.Rule:
        """The line of the guide's table for this model."""
        return thumb.rule_for(self.model)

    @cached_property
    def rule_of_thumb(self) -> Candidate | None:
        """The fastest layout that obeys the guide's rule, or the nearest to fitting where none fits; None where no
        candidate obeys it at all (one accelerator has nothing to divide)."""
        allowed = (
            self.rule.allows(self.trials.columns, self.cluster)
            & (self.trials.reason >= FULL)
            & (self.trials.reason < 0)
        )
        named = np.array([one.recompute == self.rule.recompute for one in self.settings])[self.trials.setting]
        if self.rule.recompute and (allowed & named).any():
            allowed &= named
        places = np.flatnonzero(allowed[self.order])
        return self[int(places[0])] if len(places) else None

    @property
    def rule_words(self) -> str:
        """What the guide says, and how that does beside the best, in a sentence."""
        mine = self.rule_of_thumb
        if mine is None:
            return f"The rule of thumb ({self.rule.words}) has no layout on these accelerators."
        head = f"The rule of thumb ({self.rule.words}) gives {self.layout_words(mine.index)}"
        if not self.trials.fits[mine.index]:
            return f"{head}, which {mine.row()['reason']}."
        if mine.rank == 1:
            return f"{head}: the fastest."
        return f"{head}: {mine.row()['reason']}."

    def layout_words(self, index: int) -> str:
        """``"dp_shard=8 tp=8, micro-batch 1, recompute none, bf16"``."""
        columns, one = self.trials.columns, self.settings[self.trials.setting[index]]
        names = [
            f"{name}={columns[name][index]}"
            for name in FIELDS
            if name != "micro_batch_size" and columns[name][index] > 1
        ]
        zero = f", ZeRO-{one.zero}" if len({other.zero for other in self.settings}) > 1 else ""
        return f"{' '.join(names) or 'one device'}, micro-batch {columns['micro_batch_size'][index]}, recompute {one.recompute}, {one.precision}{zero}"

    def rows(self, indices: Any, first_rank: int = 1) -> list[dict[str, Any]]:
        """Figures of some rows of `trials`, as plain values."""
        indices = np.asarray(indices, dtype=int)
        columns = self.columns(indices, first_rank)
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*(_plain(v) for v in columns.values()), strict=True)
        ]

    def columns(self, indices: np.ndarray, first_rank: int = 1) -> dict[str, Any]:
        """The table's columns for some rows."""
        trials, gpus = self.trials, self.trials.gpus[indices]
        seconds = trials.seconds[indices]
        rate = trials.tokens[indices] / seconds / gpus
        setting = trials.setting[indices]
        peaks = np.array([self.cluster.accelerator.peak(one.precision) or np.nan for one in self.settings])[setting]
        per_token = 3 * sum(flops.forward(self.model, flops.causal_context(self.seq_len)).values())
        fields = {name: [getattr(one, name) for one in self.settings] for name in ("precision", "recompute", "zero")}
        return {
            "rank": first_rank + np.arange(len(indices)),
            "gpus": gpus,
            **{name: trials.columns[name][indices] for name in FIELDS},
            **{name: np.array(values)[setting] for name, values in fields.items()},
            "tokens_per_second_per_gpu": rate,
            "step_seconds": seconds,
            "step_tokens": trials.tokens[indices],
            "mfu": rate * per_token / peaks,
            "peak_gib": trials.peak_gib[indices],
            "fits": trials.fits[indices],
            "reason": reasons.texts(trials, indices, self.order[0], self.settings),
        }

    def frame(self, top: int | None = None) -> pd.DataFrame:
        """The candidates as a data frame, fastest first; `top` (else the search's own) limits the rows."""
        import pandas as pd

        return pd.DataFrame(self.columns(self.order[: top or self.top]))

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """What the command line prints as JSON; NaN becomes None."""
        mine = self.rule_of_thumb
        return {
            "candidates": len(self),
            "fitting": self.fitting,
            "rule_of_thumb": {"rule": self.rule.words, "says": self.rule_words, "layout": mine.row() if mine else None},
            "layouts": self.rows(self.order[: top or self.top]),
        }

    def to_json(self, top: int | None = None) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(top), indent=1)

    def table(self, top: int | None = None) -> tuple[list[str], list[list[str]]]:
        """(column names, rows of text) of the first `top` candidates."""
        return reasons.table(self.rows(self.order[: top or self.top or SHOWN]))

    @property
    def title(self) -> str:
        """What was searched, in a line."""
        return (
            f"{show_count(count(self.model).total)} parameters, {show_count(self.batch_tokens)} tokens a step in sequences of "
            f"{self.seq_len:,} on {self.cluster.gpus} × {self.cluster.accelerator.name}: {self.fitting:,} of {len(self):,} layouts fit"
        )

    def __str__(self) -> str:
        head, body = self.table()
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *body]
        ]
        return "\n".join([self.title, *lines, self.rule_words])

    def _repr_html_(self) -> str:
        head, body = self.table()
        titles = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in head)
        cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in body)
        return f"<p>{html.escape(self.title)}</p><table><tr>{titles}</tr>{cells}</table><p>{html.escape(self.rule_words)}</p>"


def _plain(values: Any) -> list[Any]:
    made = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [None if isinstance(value, float) and np.isnan(value) else value for value in made]
