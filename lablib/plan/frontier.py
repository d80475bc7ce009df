"""The choice that a budget leaves: limits, the options that no other beats, and how they are shown."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from lablib.plan import money
from lablib.plan.ranges import Range
from lablib.specs import Cluster, LabError, Pretrain, Spec
from lablib.specs.units import parse_dollars, parse_seconds, show_count, show_dollars

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 15
"""Options that a rendering shows."""
DIGITS = (4, 2, 2, 3)
"""Significant digits to which loss, money, time and size are compared: less than that is no reason to choose."""


class Limits(Spec):
    """What may be spent; None where there is no limit."""

    dollars: float | None = None
    usd_per_gpu_hour: float | None = None
    """The price that turns dollars into GPU-hours: the cluster's, or the catalogue's median."""
    hours: float | None = None
    """GPU-hours."""
    days: float | None = None
    """Wall time."""

    @classmethod
    def of(
        cls, budget: str | float | None, gpu_hours: float | None, days: str | float | None, cluster: Cluster
    ) -> Limits:
        """Read what a user gave. Raises `LabError` where it is nothing, not positive, or dollars without a price."""
        try:
            dollars = None if budget is None else parse_dollars(budget)
        except ValueError as error:
            raise LabError(f"budget={budget!r} {error}") from None
        try:
            wall = parse_seconds(days) / 86400 if isinstance(days, str) and not _number(days) else days
        except ValueError as error:
            raise LabError(f"days={days!r} {error}") from None
        price = money.price(cluster)
        made = {"budget": dollars, "gpu_hours": gpu_hours, "days": None if wall is None else float(wall)}
        if all(value is None for value in made.values()):
            raise LabError(
                'no budget: give budget="$50k", gpu_hours=20_000 or days=30 (or several; the tightest holds)'
            )
        for name, value in made.items():
            if value is not None and not value > 0:
                raise LabError(f"{name}={value:g} must be greater than 0")
        if dollars is not None and price is None:
            raise LabError(
                f"no price is known for {cluster.accelerator.name}; give the cluster price_per_gpu_hour, or budget gpu_hours"
            )
        if dollars is not None and price is not None and not price[0].mid:
            raise LabError(
                f"budget={dollars:g}: {cluster.accelerator.name} costs nothing here, so that dollars limit nothing; give gpu_hours or days"
            )
        return cls(
            dollars=dollars, usd_per_gpu_hour=price[0].mid if price else None, hours=gpu_hours, days=made["days"]
        )

    @property
    def gpu_hours(self) -> float:
        """Accelerator-hours that money and GPU-hours leave; infinite where only days are limited."""
        paid = self.dollars / self.usd_per_gpu_hour if self.dollars and self.usd_per_gpu_hour else float("inf")
        return min(paid, self.hours or float("inf"))

    @property
    def wall_hours(self) -> float:
        """Hours from start to end; infinite where days are not limited."""
        return 24 * self.days if self.days else float("inf")

    def on(self, gpus: int, share: float = 1.0) -> float:
        """Wall hours that `gpus` accelerators may run on a share of the budget."""
        return min(self.gpu_hours * share / gpus, self.wall_hours * (share if self.gpu_hours == float("inf") else 1.0))

    def __str__(self) -> str:
        words = [show_dollars(self.dollars) if self.dollars else "", f"{self.hours:,.4g} GPU-hours" if self.hours else "",
                 f"{self.days:.4g} days" if self.days else ""]  # fmt: skip
        return ", ".join(word for word in words if word)


def _number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdigit()


class Option(Spec):
    """One plan of the frontier, with the recipe that it prices."""

    parameters: int
    tokens: int
    loss: float
    """Nats a token by the law; its data is another, so only differences say something."""
    outside: float
    """How far beyond the law's data this lies, in factors of e; 0 inside."""
    gpus: int
    gpu_hours: Range
    days: Range
    dollars: Range | None
    tokens_per_second_per_gpu: float
    mfu: float | None
    peak_gib: float
    recipe: Pretrain

    @property
    def tokens_per_parameter(self) -> float:
        """D / N."""
        return self.tokens / self.parameters

    def row(self) -> dict[str, Any]:
        """The option's figures, the middles of its ranges."""
        return {
            "parameters": self.parameters, "tokens": self.tokens, "tokens_per_parameter": self.tokens_per_parameter, "loss": self.loss,
            "outside_law": self.outside, "gpus": self.gpus, "days": self.days.mid, "gpu_hours": self.gpu_hours.mid,
            "dollars": self.dollars.mid if self.dollars else None, "layout": str(self.recipe.parallelism),
            "recompute": self.recipe.recompute, "batch_tokens": self.recipe.step_tokens, "mfu": self.mfu, "peak_gib": self.peak_gib,
        }  # fmt: skip


class Frontier(Spec):
    """Options that no other beats in loss, money, days and size at once, least loss first."""

    options: tuple[Option, ...]
    limits: Limits
    basis: str
    """The law behind the losses."""

    @property
    def best(self) -> Option:
        """The least loss that the budget buys."""
        return self.options[0]

    def frame(self) -> pd.DataFrame:
        """The options as a data frame."""
        import pandas as pd

        return pd.DataFrame([option.row() for option in self.options])

    def table(self, top: int | None = None) -> tuple[list[str], list[list[str]]]:
        """(column names, rows of text) of `top` options, spread over the frontier from the least loss to the smallest."""
        count = min(top or SHOWN, len(self.options))
        places = sorted({round(place) for place in np.linspace(0, len(self.options) - 1, count)})
        head = ["parameters", "tokens", "D/N", "loss", "GPUs", "days", "cost", "layout", "MFU"]
        return head, [_cells(self.options[place]) for place in places]

    @property
    def title(self) -> str:
        """What was asked, and how much choice there is."""
        return f"{self.limits} buys {len(self.options)} plans that no other beats in loss, cost, days and size at once"

    def __str__(self) -> str:
        head, body = self.table()
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
        rows = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *body]
        ]
        return "\n".join([self.title, *rows, f"Loss by {self.basis}; * beyond the sizes or data it was fitted on."])

    def _repr_html_(self) -> str:
        head, body = self.table()
        titles = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in head)
        cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in body)
        return f"<p>{html.escape(self.title)}</p><table><tr>{titles}</tr>{cells}</table><p>Loss by {html.escape(self.basis)}</p>"


def _cells(option: Option) -> list[str]:
    return [
        show_count(option.parameters), show_count(option.tokens), f"{option.tokens_per_parameter:,.3g}",
        f"{option.loss:.3f}{'*' if option.outside else ''}", f"{option.gpus:,}", f"{option.days.mid:.3g}",
        show_dollars(option.dollars.mid) if option.dollars else "unknown",
        f"{option.recipe.parallelism}, recompute {option.recipe.recompute}", f"{option.mfu:.0%}" if option.mfu else "",
    ]  # fmt: skip


def nondominated(measures: np.ndarray) -> list[int]:
    """Rows of `measures` (columns: loss, money, time, size; less is better) that no other row beats, least loss first.

    Compared to `DIGITS`; of rows that agree to that, the one with least loss, then money, then time, stays.
    """
    rounded = np.stack([_digits(column, digits) for column, digits in zip(measures.T, DIGITS, strict=True)], axis=1)
    order = np.lexsort(measures.T[::-1])
    _, first = np.unique(rounded[order], axis=0, return_index=True)
    kept = order[np.sort(first)]
    mine = rounded[kept]
    no_worse = (mine[:, None, :] <= mine[None, :, :]).all(axis=2)
    beats = no_worse & (mine[:, None, :] < mine[None, :, :]).any(axis=2)
    beaten = np.atleast_1d(beats.any(axis=0))
    return [int(row) for row in kept[~beaten]]


def _digits(values: np.ndarray, digits: int) -> np.ndarray:
    """Rounded to so many significant digits."""
    scale = 10.0 ** (digits - 1 - np.floor(np.log10(values)))
    made: np.ndarray = np.round(values * scale) / scale
    return made
