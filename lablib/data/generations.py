"""The generations of a prepared corpus: how much text each holds, and how diverse it is beside people's.

Generation 0 is what people wrote, n + 1 was made from n. Prepare leaves this in its run as ``generations.json`` wherever a
model wrote any of the text; screens and reports read it there.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lablib.data import provenance, readback
from lablib.data.mixing.collapse import Alarm, Caps, Diversity, Origin, diversity, drift, guard
from lablib.data.synthetic import FEWEST, WORDS
from lablib.specs import write_atomic

FILE = "generations.json"
DOCUMENTS = 2000
"""Training documents of a generation that its sample is drawn from, those of the least hashes."""
LONGEST = 2000
"""Tokens that are read of each."""
TOLERANCE = 0.1
"""Relative loss of diversity that raises an alarm; the default of `Synthesize.drift`."""


@dataclass(frozen=True)
class Share:
    """What a corpus holds of one generation, and what the caps would do with it."""

    generation: int
    documents: int
    tokens: int
    synthetic: float
    """Share of its tokens that models wrote."""
    stays: int
    """Tokens of documents that break no cap."""
    depth: int
    """Tokens of documents that are too deep, …"""
    document: int
    """… that are synthetic by too great a share, …"""
    corpus: int
    """… and that are too much for the corpus."""


def shares(origin: Origin, caps: Caps) -> list[Share]:
    """A row for each generation that the documents have, generation 0 first."""
    told = guard(origin, caps)
    found = []
    for depth in np.unique(origin.depth):
        here = origin.depth == depth
        tokens = int(origin.tokens[here].sum())
        made = float((origin.tokens * origin.share)[here].sum())
        parts = {
            name: int(origin.tokens[here & gone].sum()) for name, gone in {"stays": told.keep, **told.gone}.items()
        }
        found.append(Share(int(depth), int(here.sum()), tokens, made / max(1, tokens), **parts))
    return found


@dataclass(frozen=True)
class Generations:
    """What ``generations.json`` says."""

    caps: Caps
    """Those that the recipe set, else the usual ones."""
    enforced: bool
    """Whether the recipe set them, so that a corpus that broke one would not be there."""
    shares: tuple[Share, ...]
    diversity: Mapping[int, Diversity]
    """Generation → diversity, generation 0's first, all on samples of as many words of training text; empty where there is too
    little of it."""

    @property
    def alarms(self) -> dict[int, list[Alarm]]:
        """`alarms` at `TOLERANCE`."""
        return alarms(self.diversity)

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON, with the alarms."""
        return {
            "caps": self.caps.model_dump(mode="json"),
            "enforced": self.enforced,
            "shares": [asdict(one) for one in self.shares],
            "diversity": {str(depth): asdict(one) for depth, one in self.diversity.items()},
            "tolerance": TOLERANCE,
            "alarms": {str(depth): [asdict(one) for one in found] for depth, found in self.alarms.items()},
        }


def alarms(measured: Mapping[int, Diversity], tolerance: float = TOLERANCE) -> dict[int, list[Alarm]]:
    """Generation → what has drifted too far from generation 0; those without an alarm are left out."""
    found = {depth: drift(measured[0], one, tolerance) for depth, one in measured.items() if depth}
    return {depth: raised for depth, raised in found.items() if raised}


def said(depth: int, raised: list[Alarm]) -> str:
    """The alarms of a generation as a sentence."""
    told = ", ".join(f"{one.measure} {one.before:.3f} to {one.after:.3f} ({one.change:.0%} less diverse)" for one in raised)  # fmt: skip
    return f"Generation {depth} has drifted from people's text: {told}; train on less of it, or write it again with more varied prompts and a higher temperature"  # fmt: skip


def write(run: Path, caps: Caps | None) -> Generations:
    """Measure the artefacts ``data`` and ``tokenizer`` of a Prepare run and leave ``generations.json`` beside them; `caps` are
    the recipe's."""
    data, limits = run / "data", caps or Caps()
    whole = provenance.joined(list(provenance.origins(data).values()))
    made = Generations(limits, caps is not None, tuple(shares(whole, limits)), diversities(data, run / "tokenizer"))
    write_atomic(run / FILE, json.dumps(made.facts, indent=1))
    return made


def read(run: Path) -> Generations | None:
    """What a Prepare run left; None where no model wrote any of its text, or it was prepared before that was measured."""
    file = run / FILE
    return unpacked(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def unpacked(facts: Mapping[str, Any]) -> Generations:
    """The object of its `facts`."""
    measured = {int(depth): parsed(one) for depth, one in facts["diversity"].items()}
    return Generations(
        Caps(**facts["caps"]), facts["enforced"], tuple(Share(**one) for one in facts["shares"]), measured
    )


def parsed(told: Mapping[str, Any]) -> Diversity:
    """A `Diversity` that was written as JSON, whose keys are texts."""
    return Diversity({int(n): value for n, value in told["distinct"].items()}, told["compression"], told["words"])


def diversities(data: Path, words: Path) -> dict[int, Diversity]:
    """Generation → the diversity of its training text, where it and generation 0 have `FEWEST` words or more.

    Documents are cut to the mean length of the generation with the shortest ones, and samples are of as many words each,
    so that neither length nor size decides. `words` is the data's tokenizer.
    """
    texts = {depth: readback.texts(data, words, chosen, LONGEST) for depth, chosen in _chosen(data).items()}
    sizes = {depth: sum(len(text.split()) for text in found) for depth, found in texts.items()}
    told = {depth: found for depth, found in texts.items() if sizes[depth] >= FEWEST}
    if 0 not in told or len(told) < 2:
        return {}
    length = min(-(-sizes[depth] // len(found)) for depth, found in told.items())
    cut = {depth: [" ".join(text.split()[:length]) for text in found] for depth, found in told.items()}
    size = min(WORDS, *(sum(len(text.split()) for text in found) for found in cut.values()))
    return {depth: diversity(found, size) for depth, found in sorted(cut.items())} if size >= FEWEST else {}


def _chosen(data: Path) -> dict[int, list[readback.Placed]]:
    """Generation → its training documents of the least hashes, in that order; `DOCUMENTS` are held at most."""
    held: dict[int, list[tuple[int, int, readback.Placed]]] = {}
    for number, (place, row) in enumerate(readback.training(data)):
        ranks = held.setdefault(row.get("generation", 0), [])
        entry = (-int(row["sha256"], 16), number, (place, row))
        if len(ranks) < DOCUMENTS:
            heapq.heappush(ranks, entry)
        else:
            heapq.heappushpop(ranks, entry)
    return {depth: [one for _, _, one in sorted(ranks, reverse=True)] for depth, ranks in held.items()}
