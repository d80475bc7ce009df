"""One plan at every provider's price, cheapest first; what spot, reserved capacity and longer contexts cost.

>>> from lablib.plan import market
>>> market.offers(recipe, cluster)[0].provider
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lablib.plan import goodput, money
from lablib.plan.estimate import Estimate, estimate
from lablib.plan.ranges import Range
from lablib.specs import Cluster, LabError, Pretrain, Recipe, Spec, catalog
from lablib.specs.units import show_dollars

RECLAIMS = Range(low=2.2e-4, mid=3e-3, high=4.2e-2)
"""Reclaims of a spot node per node-hour. Lowest: AWS's Spot Instance Advisor puts H100 nodes at 10 to 20 % a month
(thundercompute.com/blog/should-i-use-cloud-gpu-spot-instances, May 2025), −ln(0.85)/730 h; highest: Google's preemptible
machines live at most 24 h (arXiv 1911.05160); the middle is the geometric mean, as wide as the ignorance is."""
REPLACED = Range(low=600, mid=1800, high=7200)
"""Seconds until a reclaimed node is replaced and the job steps again, while its other nodes are paid for."""
HOURS_A_YEAR = 8766
TERMS = {"reserved-1y": 1.0, "reserved-3y": 3.0}
"""Years that reserved capacity is paid for, used or not."""
CLASSES = ("hyperscaler", "neocloud", "marketplace")
"""Who sells; the price list also has indices, which nobody can rent at."""


class Offer(Spec):
    """The plan at one listed price."""

    provider: str
    provider_class: str
    """One of `CLASSES`."""
    accelerator: str
    pricing: str
    """on-demand, reserved-<term>, spot or market."""
    region: str = ""
    usd_per_gpu_hour: float
    read_on: str
    dated: bool
    """Whether the day of the reading is known; prices without one come last, for they rose in 2026."""
    gpu_hours: Range
    """With spot's interruptions where it is spot."""
    days: Range
    dollars: Range
    over_cheapest: float = 1.0
    """Middle dollars over those of the first offer."""
    fits: bool = True
    note: str = ""
    source: str = ""


def offers(
    recipe: Recipe,
    cluster: Cluster,
    accelerators: Iterable[str] = (),
    pricing: Iterable[str] = ("on-demand", "market", "spot", "reserved-1y"),
) -> list[Offer]:
    """The recipe at every provider that lists the cluster's accelerator, cheapest first (cross-cloud arbitrage).

    `accelerators` names others to plan as well on as many nodes; of several readings of one price the latest counts.
    Undated prices and plans that do not fit come last. Raises `LabError` where nobody lists a price.
    """
    wanted = set(pricing)
    made: list[Offer] = []
    for name in dict.fromkeys((cluster.accelerator.name, *accelerators)):
        own = name == cluster.accelerator.name
        place = cluster if own else Cluster(accelerator=name, nodes=cluster.nodes, gpus_per_node=cluster.gpus_per_node)
        rows = [
            row
            for row in latest(catalog.prices)
            if row["accelerator"] == name and row["pricing"] in wanted and row["provider_class"] in CLASSES
        ]
        if rows:
            plan = estimate(recipe, place)
            made += [_offer(plan, place, row) for row in rows]
    if not made:
        raise LabError(
            f"no provider in the catalogue lists {cluster.accelerator.name}; give the cluster price_per_gpu_hour"
        )
    made.sort(key=lambda offer: (not offer.fits, not offer.dated, offer.dollars.mid))
    cheapest = made[0].dollars.mid or 1.0
    return [offer.replace(over_cheapest=offer.dollars.mid / cheapest) for offer in made]


def latest(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """The last reading of each (provider, accelerator, pricing); an undated one counts as the oldest."""
    newest: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: row["read_on"] if row["read_on"][:1].isdigit() else ""):
        newest[row["provider"], row["accelerator"], row["pricing"]] = row
    return list(newest.values())


def _offer(plan: Estimate, cluster: Cluster, row: dict[str, str]) -> Offer:
    usd, spot = float(row["usd_per_gpu_hour"]), row["pricing"] == "spot"
    stretch = interruptions(plan, cluster.gpus_per_node) if spot else Range.exactly(1.0)
    hours = plan.gpu_hours.joined(stretch)
    dollars, note = hours.times(usd), f"{stretch.mid - 1:.1%} more hours for reclaimed nodes" if spot else ""
    if years := TERMS.get(row["pricing"]):
        committed = years * HOURS_A_YEAR * plan.gpus
        dollars = Range(**{bound: usd * max(committed, getattr(hours, bound)) for bound in ("low", "mid", "high")})
        note = f"the whole term of {plan.gpus} accelerators is paid, of which this uses {hours.mid / committed:.1%}"
    return Offer(
        provider=row["provider"],
        provider_class=row["provider_class"],
        accelerator=row["accelerator"],
        pricing=row["pricing"],
        region=row.get("region", ""),
        usd_per_gpu_hour=usd,
        read_on=row["read_on"],
        dated=row["read_on"][:1].isdigit(),
        gpu_hours=hours,
        days=plan.days.joined(stretch),
        dollars=dollars,
        fits=plan.fits,
        note="; ".join(text for text in (note, row["note"]) if text),
        source=row["source"],
    )


def interruptions(plan: Estimate, gpus_per_node: int = 8, reclaims: Range = RECLAIMS) -> Range:
    """Wall time on spot nodes over wall time on nodes that stay: reclaimed nodes stop the job like failed ones, and the
    checkpoint interval is chosen anew for both together."""
    nodes = math.ceil(plan.gpus / gpus_per_node)
    save = plan.goodput.save_seconds if plan.goodput else 0.0
    failing = goodput.FAILURES.mid * plan.gpus

    def wall(rate: float, back: float) -> float:
        together = failing + rate * nodes
        mean = (failing * goodput.RESTART.mid + rate * nodes * back) / together
        return float(goodput.overhead(1, save, together, mean, 1.0))

    stays = wall(0.0, 0.0)
    middle = wall(reclaims.mid, REPLACED.mid) / stays
    low = wall(reclaims.low, REPLACED.low) / stays
    return Range(
        low=max(1.0, min(low, middle)),
        mid=max(1.0, middle),
        high=max(middle, wall(reclaims.high, REPLACED.high) / stays),
    )


class Reserved(NamedTuple):
    """A commitment against paying by the hour."""

    break_even: float
    """Share of the term that must be used for the commitment to be the cheaper one."""
    used: float
    """Share of the term that the plan uses."""
    committed_dollars: float
    """What the commitment costs in all, used or not."""
    on_demand_dollars: float
    """What the plan's hours cost on demand."""

    @property
    def worth_it(self) -> bool:
        """Whether this plan alone pays for the commitment."""
        return self.committed_dollars <= self.on_demand_dollars


def reserve(plan: Estimate, reserved_usd: float, on_demand_usd: float, years: float = 1.0) -> Reserved:
    """Reserved capacity for the plan's GPUs: billed for the whole term, so it pays only above its break-even use."""
    term = years * HOURS_A_YEAR * plan.gpus
    return Reserved(
        break_even=reserved_usd / on_demand_usd,
        used=plan.gpu_hours.mid / term,
        committed_dollars=term * reserved_usd,
        on_demand_dollars=plan.gpu_hours.mid * on_demand_usd,
    )


class Context(NamedTuple):
    """The same tokens in longer sequences."""

    seq_len: int
    recipe: Pretrain
    plan: Estimate

    @property
    def cp(self) -> int:
        """Ranks that share a sequence."""
        return self.recipe.parallelism.cp


def contexts(recipe: Pretrain, cluster: Cluster, lengths: Sequence[int] = (8192, 32768, 131072)) -> list[Context]:
    """What the same tokens cost in sequences of each length, on as many GPUs: the least context parallelism and
    recomputation with which they fit. A length that fits nowhere comes with the largest context parallelism tried."""
    return [_context(recipe, cluster, length) for length in lengths]


def _context(recipe: Pretrain, cluster: Cluster, length: int) -> Context:
    last: Context | None = None
    for changed in _longer(recipe, length):
        last = Context(length, changed, estimate(changed, cluster))
        if last.plan.fits:
            return last
    if last is None:
        raise LabError(f"seq_len={length}: no layout of {recipe.gpus} GPUs has whole sequences; give more batch_tokens")
    return last


def _longer(recipe: Pretrain, length: int) -> Iterator[Pretrain]:
    layout, model = recipe.parallelism, recipe.model
    model = model.replace(max_seq_len=max(length, model.max_seq_len))
    for cp in (2**i for i in range(8)):
        for recompute in dict.fromkeys((recipe.recompute, "selective", "full")):
            ranks = layout.dp * layout.cp // cp
            if layout.dp * layout.cp % cp or length % cp:
                continue
            shard = math.gcd(ranks, layout.dp_shard)
            parallel = layout.replace(cp=cp, dp_shard=shard, dp_replicate=ranks // shard, micro_batch_size=1)
            try:
                yield recipe.replace(model=model, seq_len=length, parallelism=parallel, recompute=recompute)
            except LabError:
                continue


def text(rows: Iterable[Offer]) -> str:
    """Offers as aligned lines."""
    return "\n".join(
        f"{row.provider:<18} {row.provider_class:<12} {row.accelerator:<14} {row.pricing:<12} ${row.usd_per_gpu_hour:<6.2f} "
        f"{show_dollars(row.dollars.mid):>10} ({show_dollars(row.dollars.low)} to {show_dollars(row.dollars.high)})  "
        f"×{row.over_cheapest:.2f}  {row.read_on}{'  ' + row.note if row.pricing in ('spot', *TERMS) else ''}"
        for row in rows
    )


def co2(plan: Estimate) -> dict[str, Range]:
    """kg CO2e of the plan on each listed grid, cleanest first."""
    made = {grid: money.carbon(plan.energy_kwh, grid) for grid in money.GRIDS}
    return {grid: value for grid, value in made.items() if value is not None}
