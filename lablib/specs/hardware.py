"""`Accelerator` and `Cluster`: the machines, their peaks and what an hour of one costs."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator

from lablib.specs.base import Spec
from lablib.specs.errors import LabError
from lablib.specs.fabric import FABRICS, Fabric, Network, own
from lablib.specs.paths import home
from lablib.specs.units import Dollars

LOCAL = "local"
NODE = 8
"""Accelerators on one board of the usual node (HGX and OAM boards); a link that joins more spans nodes."""

ALIKE = {"fp16": "bf16", "mxfp8": "fp8", "nvfp4": "fp4"}
"""Precisions that run at another's matmul rate."""
MICROSCALED = ("mxfp8", "nvfp4")
"""Formats of blocks with a scale each, which hardware of the generation that brought fp4 multiplies."""


class Accelerator(Spec):
    """One device. Peaks are dense (no sparsity) and come from a data sheet; measured figures from a matmul."""

    name: str
    kind: Literal["gpu", "cpu", "tpu", "trainium"] = "gpu"
    runnable: bool = True
    """Whether the lab can run on it; a TPU or a Trainium is planned, never run."""
    memory_gib: float = Field(gt=0)
    bandwidth_gb_s: float = Field(gt=0)
    peak_tflops: dict[str, float] = {}
    """Data-sheet TFLOP/s by precision ("bf16", "fp8", "fp32", ...); empty where nobody published one: then no MFU."""
    measured_tflops: dict[str, float] = {}
    """Best matmul TFLOP/s by precision that somebody measured."""
    scaleup_gb_s: float | None = None
    """Bandwidth inside the node (NVLink class), GB/s one way for one device."""
    scaleup_gpus: int = Field(default=NODE, gt=0)
    """Devices that one scale-up link can join: 8 on an HGX board, 72 in an NVL72 rack."""
    nic_gbit_s: float | None = None
    """Network of the node, Gbit/s for one device."""
    tdp_w: float | None = None
    source: str = ""

    def peak(self, precision: str) -> float | None:
        """Data-sheet FLOP/s for a precision, None where unknown (never a fallback)."""
        if precision in MICROSCALED and "fp4" not in self.peak_tflops:
            return None
        tflops = self.peak_tflops.get(ALIKE.get(precision, precision))
        return None if tflops is None else tflops * 1e12

    def achievable(self, precision: str) -> float | None:
        """FLOP/s of the best measured matmul, else 80 % of the peak (the median ratio of measured to data sheet in
        stas00/ml-engineering's table of accelerators, 2026-08), None where neither is known."""
        peak, measured = self.peak(precision), self.measured_tflops.get(ALIKE.get(precision, precision))
        if measured is not None and (precision not in MICROSCALED or peak is not None):
            return measured * 1e12
        return None if peak is None else 0.8 * peak


class Cluster(Spec):
    """Nodes of one kind of accelerator, with the price of an accelerator-hour."""

    name: str = ""
    accelerator: Accelerator
    nodes: int = Field(default=1, gt=0)
    gpus_per_node: int = Field(default=8, gt=0)
    host_memory_gib: float | None = Field(default=None, gt=0)
    """Memory of one node's host, where it is known: what is offloaded must fit there."""
    fabric: Fabric | None = None
    """The network between nodes; None takes the accelerator's own line rate."""
    price_per_gpu_hour: Dollars | None = None
    """US dollars; None takes the catalogue's median on-demand price."""
    price_source: str = ""

    @field_validator("accelerator", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        from lablib.specs.catalog import catalog

        try:
            return catalog.accelerators[value]
        except LabError as error:
            raise ValueError(str(error)) from None

    @property
    def network(self) -> Network:
        """What one accelerator gets of the fabric between nodes."""
        return FABRICS[self.fabric] if self.fabric else own(self.accelerator.nic_gbit_s)

    @property
    def scaleup_domain(self) -> int:
        """Accelerators that share the scale-up link: those of a node, or of the whole rack where NVLink spans it."""
        return max(self.gpus_per_node, self.accelerator.scaleup_gpus if self.accelerator.scaleup_gpus > NODE else 1)

    @property
    def gpus(self) -> int:
        """Accelerators in all."""
        return self.nodes * self.gpus_per_node

    @classmethod
    def load(cls, path: Any) -> Self:
        """``"local"`` (this machine, as `lab calibrate` measured it), a profile's name, or the path of a cluster file."""
        if str(path) != LOCAL:
            from lablib.specs.profile import Profile

            named = not str(path).endswith((".toml", ".json"))
            return cls(**dict(Profile.load(path).cluster())) if named else super().load(path)
        found = cls.measured(LOCAL)
        if found is None:
            raise LabError("This machine has not been measured yet; run `lab calibrate` (it takes some seconds)")
        return found

    @classmethod
    def measured(cls, name: str) -> Self | None:
        """What `lab calibrate` measured of the profile of that name; None where it has not."""
        file = home() / f"{name}-cluster.json"
        return cls.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None
