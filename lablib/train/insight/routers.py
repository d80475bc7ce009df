"""What the routers of a mixture-of-experts model did in a logged step, and whether one of them collapses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from lablib.train.routing import LOADS, SCORES, relative

FEW = 0.5
"""Share of the experts in effective use (e to the entropy of their load, over their number) below which a router collapses.
An entropy is at least that of the busiest expert's share, so loads as uneven as those of trained routers (busiest 1.7 × the mean,
arXiv 2408.15664 Table 2) leave 1 / 1.7 = 0.59 of them in use however they are spread."""
EXPECTED = 32
"""Tokens of the mean expert from which one without any is dead, not unlucky: by chance it would be left out once in e³² times."""
PATIENCE = 3
"""Logged steps in a row after which a router is named."""


def measures(sums: torch.Tensor) -> dict[str, float]:
    """Of a step's `lablib.train.routing.Routing.end`, by layer with experts: ``experts.<layer>`` (share of them in effective use),
    ``load_max.<layer>`` (busiest over the mean: MaxVio of arXiv 2408.15664 plus one), ``dead.<layer>`` (experts that got no
    token), ``load_mean.<layer>`` (tokens of the mean expert) and ``balance.<layer>`` (load-balance loss: 1 where even)."""
    loads, scores = sums[LOADS].cpu(), sums[SCORES].cpu()
    shares = loads / loads.sum(-1, keepdim=True)
    columns = {
        "experts": torch.special.entr(shares).sum(-1).exp() / loads.shape[-1],
        "load_max": relative(loads).amax(-1),
        "dead": (loads == 0).double().sum(-1),
        "load_mean": loads.mean(-1),
        "balance": (relative(loads) * scores).sum(-1) / scores.sum(-1),
    }
    there = loads.sum(-1).nonzero().flatten().tolist()
    return {f"{name}.{n}": float(values[n]) for name, values in columns.items() for n in there}


def summary(row: dict[str, float]) -> dict[str, float]:
    """Of `measures` for a line: balance (mean of the layers), load_max (the most uneven layer's) and dead_experts (of all)."""
    by = {name: [value for key, value in row.items() if key.startswith(f"{name}.")] for name in ("balance", "load_max", "dead")}  # fmt: skip
    if not by["balance"]:
        return {}
    mean = sum(by["balance"]) / len(by["balance"])
    return {"balance": mean, "load_max": max(by["load_max"]), "dead_experts": sum(by["dead"])}


@dataclass(frozen=True)
class Collapsed:
    """A router that sends its tokens to few experts, or none to some."""

    layer: int
    in_use: float
    load_max: float
    dead: int


class Collapse:
    """Names a router once it has been as `Collapsed` says for `PATIENCE` logged steps in a row."""

    def __init__(self) -> None:
        """No router has collapsed yet."""
        self._streaks: Counter[str] = Counter()

    def observe(self, row: dict[str, float]) -> list[Collapsed]:
        """Those that have just collapsed, by what `measures` gave."""
        told = []
        for number in (name.partition(".")[2] for name in row if name.startswith("experts.")):
            share, dead = row[f"experts.{number}"], row[f"dead.{number}"]
            ill = share < FEW or (dead > 0 and row[f"load_mean.{number}"] >= EXPECTED)
            self._streaks[number] = self._streaks[number] + 1 if ill else 0
            if self._streaks[number] == PATIENCE:
                told.append(Collapsed(int(number), share, row[f"load_max.{number}"], int(dead)))
        return told
