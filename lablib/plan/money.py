"""From accelerator-hours to dollars, energy and carbon, each with its band and source."""

from __future__ import annotations

from lablib.plan.ranges import Range
from lablib.specs import Cluster, catalog

DRAW = Range(low=0.8, mid=1.2, high=1.8)
"""Power of a node over its accelerators' rated power: BLOOM's accounting takes 1.0 for the accelerators alone
(arXiv 2211.02001 §4.2); a DGX H100 is rated 10.2 kW for eight times 700 W (NVIDIA's DGX H100 user guide), 1.8."""
PUE = Range(low=1.1, mid=1.3, high=1.56)
"""Power of the building over that of its computers: 1.1 is what LLaMA's authors take (arXiv 2302.13971 §6), 1.56 the
mean of the Uptime Institute's survey of 2024."""
CARBON = Range(low=0.03, mid=0.47, high=0.75)
"""kg CO2e a kWh: hydro or nuclear grids, the world's mean in 2024 (Ember, Global Electricity Review 2025: 473 g), coal."""


def price(cluster: Cluster) -> tuple[Range, str] | None:
    """Dollars an accelerator-hour and where from: the cluster's own price, else the catalogue's on-demand listings."""
    if cluster.price_per_gpu_hour is not None:
        return Range.exactly(cluster.price_per_gpu_hour), cluster.price_source or "price_per_gpu_hour of the cluster"
    listed = catalog.price(cluster.accelerator.name)
    if listed is None:
        return None
    return Range(
        low=listed[0], mid=listed[1], high=listed[2]
    ), "lowest, median and highest on-demand listing in the catalogue"


def energy(gpu_hours: Range, cluster: Cluster) -> Range | None:
    """kWh, None where the accelerator's rated power is unknown."""
    watts = cluster.accelerator.tdp_w
    return None if watts is None else gpu_hours.times(watts / 1000).times(DRAW).times(PUE)


def carbon(energy_kwh: Range | None) -> Range | None:
    """kg CO2e for that energy on an unknown grid."""
    return None if energy_kwh is None else energy_kwh.times(CARBON)
