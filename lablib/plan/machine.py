"""`Machine`: what one process of a job gets out of a cluster: rates, bandwidths and links, in base units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from lablib.plan.efficiency import Efficiency
from lablib.plan.grid import Layouts, Number, choose, least, most
from lablib.specs import Cluster, LabError, Parallelism

CPU_LINK = 2e9
"""Bytes/s between processes of one machine over gloo's loopback sockets, an order of magnitude only."""

ARCHITECTURES = {
    "ampere": ("a100", "a800", "a6000", "a40", "a10", "3090", "a30"),
    "hopper": ("h100", "h200", "h800", "gh200", "h20"),
    "blackwell": ("b200", "b300", "gb200", "gb300", "5090"),
    "ada": ("l40", "l4", "4090", "ada"),
    "volta": ("v100",),
    "turing": ("t4", "2080"),
}
"""What a name says about the generation of tensor cores, which decides which attention kernels there are."""

WATTS = {"ampere": 400 / 312, "ada": 450 / 330, "hopper": 700 / 989, "blackwell": 1000 / 2250}
"""Watts of a generation's leading board for each dense 16-bit TFLOP/s of its peak (A100 and H100 SXM, B200; for Ada the
RTX 4090's cores at full rate): `Efficiency.sustained` is of boards with so many."""
GRACE = ("gh200", "gb200", "gb300")
"""Superchips whose accelerator shares NVLink with its host."""
PCIE_GB_S = 32.0
"""GB/s between accelerators without a scale-up link of their own: PCIe 4.0 with 16 lanes."""


@lru_cache(maxsize=256)
def architecture(name: str) -> str:
    """The generation that an accelerator's name belongs to, "other" where it is none of NVIDIA's."""
    text = name.lower().replace(" ", "-")
    for generation, names in ARCHITECTURES.items():
        if any(part.startswith(names) for part in text.split("-") if part):
            return generation
    return "other"


@dataclass(frozen=True)
class Machine:
    """Rates in FLOP/s and bytes/s; None where the precision's rate is unknown."""

    cluster: Cluster
    efficiency: Efficiency
    threads: int = 1
    processes: int = 1

    @cached_property
    def is_cpu(self) -> bool:
        """CPU processes share one machine's cores and memory."""
        return self.cluster.accelerator.kind == "cpu"

    @property
    def speed(self) -> float:
        """Speed of one process over one process with one thread that has the machine to itself."""
        if not self.is_cpu:
            return 1.0
        crowd = self.processes * self.threads / self.cluster.gpus
        return self.efficiency.gain(self.threads) / max(1.0, crowd)

    def matmul_rate(self, precision: str) -> float | None:
        """FLOP/s of a large matmul, None where nobody knows; a CPU without a measured bf16 rate computes at fp32's."""
        rate = self.cluster.accelerator.achievable(precision)
        if rate is None and precision == "bf16" and self.is_cpu:
            rate = self.cluster.accelerator.achievable("fp32")
        return None if rate is None else rate * self.speed

    @cached_property
    def bandwidth(self) -> float:
        """Bytes/s that elementwise kernels reach."""
        share = self.efficiency.bandwidth * (self.speed if self.is_cpu else 1.0)
        return self.cluster.accelerator.bandwidth_gb_s * 1e9 * share

    @property
    def capacity_gib(self) -> float:
        """Memory one process may use; CPU processes divide the machine's."""
        memory = self.cluster.accelerator.memory_gib
        return memory / max(1, self.processes) if self.is_cpu else memory

    @cached_property
    def architecture(self) -> str:
        """The generation of the accelerator's tensor cores."""
        return architecture(self.cluster.accelerator.name)

    def rate(self, precision: str) -> float:
        """FLOP/s of a large matmul. Raises `LabError` where nobody knows it."""
        rate = self.matmul_rate(precision)
        if rate is None:
            accelerator = self.cluster.accelerator
            known = sorted({*accelerator.peak_tflops, *accelerator.measured_tflops})
            raise LabError(f"precision={precision!r}: no rate is known for {accelerator.name} (known: {', '.join(known) or 'none'}); choose another precision or run `lab calibrate`")  # fmt: skip
        return rate

    def sustained(self, precision: str) -> float:
        """FLOP/s of large matmuls in a run of hours: power and heat keep a GPU below its best second. Raises `LabError`
        where nobody knows the rate."""
        return self.rate(precision) * min(1.0, self.efficiency.matmul.mid * self._kept)

    @cached_property
    def _kept(self) -> float:
        """Share of the best rate that the power limit leaves: a board with more watts for its peak than others of its
        generation clocks higher, as the square root (power grows with clock and voltage, which rises with it). So an
        L40S of 350 W is slower than its data sheet, and an H20, whose cores are few, is not."""
        shares, card = self.efficiency.sustained, self.cluster.accelerator
        share, peak = shares.get(self.architecture, shares.get("other", 1.0)), card.peak("bf16")
        usual = WATTS.get(self.architecture)
        return share * (card.tdp_w / (peak / 1e12) / usual) ** 0.5 if card.tdp_w and peak and usual else share

    @cached_property
    def domain(self) -> int:
        """Accelerators on one scale-up link; CPU processes of one machine talk over loopback alone."""
        return self.cluster.gpus if self.is_cpu else self.cluster.scaleup_domain

    @cached_property
    def scaleup(self) -> float:
        """Bytes/s of large collectives inside a domain, for one rank one way."""
        inside = CPU_LINK if self.is_cpu else (self.cluster.accelerator.scaleup_gb_s or PCIE_GB_S) * 1e9
        return inside * self.efficiency.collective

    @cached_property
    def network(self) -> float:
        """Bytes/s of one rank's network card in large collectives."""
        return min(self.scaleup, self.cluster.network.bytes_s * self.efficiency.network)

    @cached_property
    def host_bytes_s(self) -> float:
        """Bytes/s between the accelerator and its host's memory, one way: NVLink-C2C on Grace, PCIe 5.0 on boards of
        Hopper's generation and later, else PCIe 4.0."""
        if self.cluster.accelerator.name.lower().startswith(GRACE):
            return 450e9 * self.efficiency.collective
        newer = self.architecture in ("hopper", "blackwell")
        return PCIE_GB_S * (2 if newer else 1) * 1e9 * self.efficiency.collective

    @cached_property
    def hop(self) -> float:
        """Seconds that a small message needs over the network."""
        return self.cluster.network.latency_seconds * self.efficiency.hops

    def link(self, members: Number, stride: Number, one_card: bool = False) -> Number:
        """Bytes/s of each rank in a ring over `members` ranks that lie `stride` apart.

        Inside a domain the scale-up link; beyond it a ring uses the network cards of all its members in the domain, or
        of one.
        """
        cards = self.network * (1 if one_card else most(1, self.domain // stride))
        return choose(members * stride <= self.domain, self.scaleup, least(self.scaleup, cards))


def strides(layout: Parallelism | Layouts) -> dict[str, Number]:
    """How far apart a group's ranks lie, with tp innermost, then cp, dp_shard, dp_replicate and pp outermost; parameters
    are sharded over cp and dp_shard together, which begin where tp ends."""
    tp, cp, shard, replicate = layout.tp, layout.cp, layout.dp_shard, layout.dp_replicate
    return {"tp": 1, "cp": tp, "shard": tp, "replicate": tp * cp * shard, "pp": tp * cp * shard * replicate}
