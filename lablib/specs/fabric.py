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


FABRICS: dict[str, Network] = {
    "infiniband-ndr": Network(name="infiniband-ndr", gbit_s=400, efficiency=0.92, latency_seconds=5e-6),
    "infiniband-hdr": Network(name="infiniband-hdr", gbit_s=200, efficiency=0.92, latency_seconds=5e-6),
    "roce-400": Network(name="roce-400", gbit_s=400, efficiency=0.85, latency_seconds=8e-6),
    "roce-200": Network(name="roce-200", gbit_s=200, efficiency=0.85, latency_seconds=8e-6),
    "efa-400": Network(name="efa-400", gbit_s=400, efficiency=0.75, latency_seconds=15e-6),
    "ethernet-100": Network(name="ethernet-100", gbit_s=12.5, efficiency=0.8, latency_seconds=30e-6),
    "ethernet-10": Network(name="ethernet-10", gbit_s=1.25, efficiency=0.8, latency_seconds=50e-6),
}


def own(gbit_s: float | None) -> Network:
    """The network of a node that names no fabric: its accelerators' own line rate, 100 Gbit/s where nobody published
    one, with InfiniBand's efficiency and latency."""
    like = FABRICS["infiniband-ndr"]
    return like.replace(name="own", gbit_s=gbit_s or 100.0)
