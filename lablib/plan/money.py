"""From accelerator-hours to dollars, energy and carbon, each with its band and source."""

from __future__ import annotations

from lablib.plan.ranges import Range
from lablib.specs import Cluster, LabError, catalog

DRAW = Range(low=0.8, mid=1.2, high=1.8)
"""Power of a node over its accelerators' rated power: BLOOM's accounting takes 1.0 for the accelerators alone
(arXiv 2211.02001 §4.2); a DGX H100 is rated 10.2 kW for eight times 700 W (NVIDIA's DGX H100 user guide), 1.8."""
PUE = Range(low=1.1, mid=1.3, high=1.56)
"""Power of the building over that of its computers: 1.1 is what LLaMA's authors take (arXiv 2302.13971 §6), 1.56 the
mean of the Uptime Institute's survey of 2024."""
CARBON = Range(low=0.03, mid=0.47, high=0.75)
"""kg CO2e a kWh: hydro or nuclear grids, the world's mean in 2024 (Ember, Global Electricity Review 2025: 473 g), coal."""
GRIDS = {
    "norway": 0.030, "france": 0.056, "finland": 0.079, "belgium": 0.138, "denmark": 0.152, "ireland": 0.291,
    "germany": 0.381, "world": 0.473, "australia": 0.549, "china": 0.582, "india": 0.713,
}  # fmt: skip
"""kg CO2e a kWh over a year's generation, life cycle: Ember's yearly data for 2023 as ourworldindata.org/grapher/
carbon-intensity-electricity and statista.com/statistics/943137 print them; the world's mean is 2024's."""
GRID_SPREAD = Range(low=0.8, mid=1.0, high=1.25)
"""A place and a season over its country's year."""


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
    return None if watts is None else gpu_hours.joined(DRAW, PUE).times(watts / 1000)


def carbon(energy_kwh: Range | None, grid: str | None = None) -> Range | None:
    """kg CO2e for that energy, on a grid of `GRIDS` or an unknown one. Raises `LabError` for an unlisted grid."""
    if grid is not None and grid not in GRIDS:
        raise LabError(f"grid={grid!r} is not listed; the grids are {', '.join(GRIDS)}")
    if energy_kwh is None:
        return None
    return energy_kwh.joined(CARBON if grid is None else GRID_SPREAD.times(GRIDS[grid]))
