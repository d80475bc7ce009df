"""`Network`: what one accelerator gets of the fabric between nodes, and the fabrics that a cluster may name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lablib.specs.base import Spec

Fabric = Literal[
    "infiniband-ndr", "infiniband-hdr", "roce-400", "roce-200", "efa-400", "ethernet-100", "ethernet-10"
]  # fmt: skip


class Network(Spec):
    """The fabric as one accelerator sees it."""

    name: str
    gbit_s: float = Field(gt=0)
    """Line rate for one accelerator, Gbit/s one way."""
    efficiency: float = Field(gt=0, le=1)
    """Share of the line rate that a large collective reaches (its bus bandwidth)."""
    latency_seconds: float = Field(ge=0)
    """Time of one hop of a small message, network and software."""
    source: str = ""

    @property
    def bytes_s(self) -> float:
        """Bytes a second that a large collective moves for one accelerator, one way."""
        return self.gbit_s / 8 * 1e9 * self.efficiency


_LATENCY = "latency: arXiv 2505.09343 Table 5 (64 bytes across leaf switches)"
_GUESS = "a guess: no published measurement was found"


def _fabric(name: Fabric, gbit_s: float, efficiency: float, microseconds: float, source: str) -> Network:
    return Network(name=name, gbit_s=gbit_s, efficiency=efficiency, latency_seconds=microseconds * 1e-6, source=source)


FABRICS: dict[str, Network] = {
    made.name: made
    for made in (
        _fabric("infiniband-ndr", 400, 0.92, 3.7, f"{_LATENCY}; efficiency: {_GUESS}"),
        _fabric("infiniband-hdr", 200, 0.92, 3.7, f"{_LATENCY}; efficiency: {_GUESS}"),
        _fabric("roce-400", 400, 0.85, 5.6, f"{_LATENCY}; efficiency: {_GUESS}"),
        _fabric("roce-200", 200, 0.85, 5.6, f"{_LATENCY}; efficiency: {_GUESS}"),
        _fabric("efa-400", 400, 0.85, 15, f"340 of 400 Gbit/s in all-reduces: stas00/ml-engineering network/README.md; latency: {_GUESS}"),
        _fabric("ethernet-100", 12.5, 0.8, 30, f"one 100 Gbit/s port for 8 accelerators, TCP; both: {_GUESS}"),
        _fabric("ethernet-10", 1.25, 0.8, 50, f"one 10 Gbit/s port for 8 accelerators, TCP; both: {_GUESS}"),
    )
}  # fmt: skip
"""Rates are for one accelerator of a node with eight network cards, one each, but for plain Ethernet."""


def own(gbit_s: float | None) -> Network:
    """The network of a node that names no fabric: its accelerators' own line rate, 100 Gbit/s where nobody published
    one, with InfiniBand's efficiency and latency."""
    like = FABRICS["infiniband-ndr"]
    source = "the accelerator's line rate" if gbit_s else "a guess of 100 Gbit/s: no line rate was published"
    return like.replace(name="own", gbit_s=gbit_s or 100.0, source=f"{source}; {like.source}")
