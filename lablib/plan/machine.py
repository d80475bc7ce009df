"""`Machine`: what one process of a job gets out of a cluster: rates, bandwidths and links, in base units."""

from __future__ import annotations

from dataclasses import dataclass

from lablib.plan.efficiency import Efficiency
from lablib.specs import Cluster, Parallelism

CPU_LINK = 2e9
"""Bytes/s between processes of one machine over gloo's loopback sockets, an order of magnitude only."""


@dataclass(frozen=True)
class Machine:
    """Rates in FLOP/s and bytes/s; None where the precision's rate is unknown."""

    cluster: Cluster
    efficiency: Efficiency
    threads: int = 1
    processes: int = 1

    @property
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

    @property
    def bandwidth(self) -> float:
        """Bytes/s that elementwise kernels reach."""
        share = self.efficiency.bandwidth * (self.speed if self.is_cpu else 1.0)
        return self.cluster.accelerator.bandwidth_gb_s * 1e9 * share

    @property
    def capacity_gib(self) -> float:
        """Memory one process may use; CPU processes divide the machine's."""
        memory = self.cluster.accelerator.memory_gib
        return memory / max(1, self.processes) if self.is_cpu else memory

    def link(self, members: int, stride: int) -> float:
        """Bytes/s of each rank in a collective over `members` ranks that lie `stride` apart.

        Inside a node the scale-up link; across nodes a ring uses the network cards of all its members in the node.
        """
        accelerator, per_node = self.cluster.accelerator, self.cluster.gpus_per_node
        inside = CPU_LINK if self.is_cpu else (accelerator.scaleup_gb_s or 32.0) * 1e9
        if members * stride <= per_node:
            return inside * self.efficiency.collective
        nic = (accelerator.nic_gbit_s or 100.0) / 8 * 1e9
        return min(inside, nic * max(1, per_node // stride)) * self.efficiency.collective


def strides(layout: Parallelism) -> dict[str, int]:
    """How far apart a group's ranks lie, with tp innermost, then cp, dp_shard, dp_replicate and pp outermost; parameters
    are sharded over cp and dp_shard together, which begin where tp ends."""
    tp, cp, shard, replicate = layout.tp, layout.cp, layout.dp_shard, layout.dp_replicate
    return {"tp": 1, "cp": tp, "shard": tp, "replicate": tp * cp * shard, "pp": tp * cp * shard * replicate}
