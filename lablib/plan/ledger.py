"""The account behind a plan: every number with its formula, its inputs and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from lablib.plan import formulas, goodput, memory, money
from lablib.plan.efficiency import Calibration
from lablib.plan.goodput import Goodput
from lablib.plan.machine import Machine
from lablib.plan.ranges import Range
from lablib.plan.work import Work
from lablib.specs.units import show_count, show_flops, show_seconds


@dataclass(frozen=True, slots=True)
class Entry:
    """One number: what it is, what it came to, and why."""

    name: str
    value: str
    formula: str
    inputs: str
    source: str


class Account(Sequence[Entry]):
    """The entries of a plan, written when somebody first reads them: plans are made by the thousand, and few are read."""

    def __init__(self, rows: Callable[[], Iterable[Entry]]) -> None:
        """`rows` gives the entries once they are wanted."""
        self._rows = rows

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, in the order of the calculation."""
        return tuple(self._rows())

    def __getitem__(self, index: Any) -> Any:
        return self.entries[index]

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Account) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.entries)

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, (self.entries,)

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: Any) -> Any:
        """A list of entries in JSON and back; an account as it is in Python."""
        from pydantic_core import core_schema

        listed = core_schema.no_info_after_validator_function(_read, handler.generate_schema(tuple[Entry, ...]))
        written = core_schema.plain_serializer_function_ser_schema(lambda account: [asdict(one) for one in account])
        return core_schema.union_schema([core_schema.is_instance_schema(cls), listed], serialization=written)


def _read(entries: tuple[Entry, ...]) -> Account:
    return Account(lambda: entries)


def account(
    work: Work,
    machine: Machine,
    hours: Range,
    useful: Goodput | None,
    price: tuple[Range, str] | None,
    mfu: float | None,
) -> Account:
    """The whole account, in the order of the calculation."""
    return Account(lambda: (Entry(*row) for row in _rows(work, machine, hours, useful, price, mfu)))


Row = tuple[str, str, str, str, str]


def _rows(
    work: Work,
    machine: Machine,
    hours: Range,
    useful: Goodput | None,
    price: tuple[Range, str] | None,
    mfu: float | None,
) -> Iterator[Row]:
    if work.params.total:
        yield from _model(work)
    yield from _memory(work, machine)
    yield from _time(work, machine, hours, useful)
    if mfu is not None:
        peak = machine.cluster.accelerator.peak(work.precision) or 0.0
        yield ("mfu", f"{mfu:.1%}", "model FLOPs / (seconds × GPUs × peak)", f"peak {peak / 1e12:.0f} TFLOP/s {work.precision}",
               f"arXiv 2204.02311 App. B; {machine.cluster.accelerator.source}")  # fmt: skip
    yield from _cost(machine, hours, price)


def _model(work: Work) -> Iterator[Row]:
    parts = ", ".join(f"{name} {show_count(size)}" for name, size in work.params.parts.items())
    yield (
        "params.total",
        f"{work.params.total:,}",
        "sum of every matrix and vector",
        parts,
        "lablib/plan/anatomy.py, equal to transformers' own count",
    )
    yield ("params.active", f"{work.params.active:,}", "total − experts a token does not visit", "", "the same")
    if not work.flops.total:
        return
    forward = ", ".join(f"{name} {show_count(value)}" for name, value in work.flops.parts.items())
    yield ("flops.per_token", show_flops(work.flops.per_token), "2·rows·cols of each matmul forward, twice that backward; causal attention",
           f"forward {forward}", "matmul by matmul; scores as 4·heads·head_dim·(s+1)/2")  # fmt: skip
    tokens = work.flops.total / work.flops.per_token
    yield ("flops.total", show_flops(work.flops.total), "per token × tokens", f"{show_count(tokens)} tokens", "")
    yield (
        "flops.hardware",
        show_flops(work.flops.hardware),
        "total + what recomputation repeats",
        "",
        "lablib/plan/flops.py",
    )


def _memory(work: Work, machine: Machine) -> Iterator[Row]:
    job = work.jobs[0] if work.jobs else None
    for name, size in work.memory.parts.items():
        if size:
            yield (f"memory.{name}", f"{size:.3g} GiB", *formulas.of_memory(name, job))
    used = work.memory
    verdict = f"{used.margin:.0%} of {used.capacity_gib:.4g} GiB stays free; at least {memory.MARGIN:.0%} must"
    yield (
        "memory.peak_gib",
        f"{used.peak_gib:.3g} GiB",
        "sum of the parts, on the fullest pipeline stage at its fullest moment",
        f"stage {used.pipeline_rank}, {used.moment}",
        verdict,
    )


def _time(work: Work, machine: Machine, hours: Range, useful: Goodput | None) -> Iterator[Row]:
    efficiency, accelerator = machine.efficiency, machine.cluster.accelerator
    rate = machine.matmul_rate(work.precision)
    parts = ", ".join(f"{name} {show_seconds(value)}" for name, value in work.step_parts.items() if value)
    inputs = (
        f"{work.precision} at {rate / 1e12:.3g} TFLOP/s × {efficiency.matmul.mid:.2f}; {machine.bandwidth / 1e9:.3g} GB/s"
        if rate and work.flops.total
        else ""
    )
    yield ("step_seconds", show_seconds(work.step_seconds), parts, inputs, f"{accelerator.source}; {efficiency.source}")
    job = work.jobs[0] if work.jobs else None
    for name, value in work.step_parts.items():
        words = formulas.of_step(name, job, machine) if value else None
        if words is not None:
            yield (f"step.{name}", show_seconds(value), *words)
    if efficiency.calibration:
        yield _calibration(efficiency.calibration)
    for name, value in work.once.items():
        if value:
            yield (f"once.{name}", show_seconds(value), "whole run", "", "lablib/plan")
    share = str(useful.effective) if useful else str(efficiency.goodput)
    if useful:
        yield from _goodput(useful, machine.processes)
    yield (
        "hours",
        str(hours),
        "start-up + (steps × step + once) / goodput",
        f"{work.steps:,} steps; goodput {share}",
        "bounds joined in quadrature (lablib/plan/ranges.py)" if useful else efficiency.source,
    )


def _calibration(done: Calibration) -> Row:
    """What `lab calibrate` measured, and how far the planner is from it."""
    probes = ", ".join(
        f"{one.layers}×{one.hidden} at {one.tokens:,} tokens {show_seconds(one.measured_seconds)} ({one.error:+.0%})"
        for one in done.probes
    )
    return (
        "calibration",
        f"residual {done.residual:.0%}",
        "median |predicted / measured − 1| over the probes",
        probes,
        str(done),
    )


def _goodput(useful: Goodput, gpus: int) -> Iterator[Row]:
    lost = ", ".join(f"{name} {share:.2%}" for name, share in useful.parts.items() if share)
    yield (
        "failures",
        f"one in {useful.hours_between_failures:,.0f} hours",
        "1 / (failures per GPU-hour × GPUs)",
        f"{goodput.FAILURES} per GPU-hour, {gpus:,} GPUs",
        "; ".join(f"{one.name} {one.rate:.2g}" for one in goodput.PUBLISHED),
    )
    yield (
        "checkpoint_interval",
        show_seconds(useful.interval_seconds),
        "the recipe's, else √(2·save·M) with Daly's correction",
        f"a save holds the steps up for {show_seconds(useful.save_seconds)}; optimum {show_seconds(useful.optimum_seconds)}",
        "Young, CACM 17:530 (1974); Daly, FGCS 22:303 (2006)",
    )
    yield (
        "goodput",
        str(useful.effective),
        "1 / (slow steps × M·e^(R/M)·(e^((τ+δ)/M) − 1)/τ + evaluation)",
        f"lost: {lost}; restart {goodput.RESTART} s, slow steps {goodput.SLOW}",
        "Daly (2006) eq. 20; lablib/plan/goodput.py names the observations",
    )


def _cost(machine: Machine, hours: Range, price: tuple[Range, str] | None) -> Iterator[Row]:
    gpus = machine.processes
    yield ("gpu_hours", str(hours.times(gpus)), "hours × processes", f"{gpus} processes", "")
    if price:
        yield (
            "dollars",
            str(hours.times(gpus).joined(price[0])),
            "GPU-hours × price",
            f"${price[0]} an hour",
            price[1],
        )
    energy = money.energy(hours.times(gpus), machine.cluster)
    if energy:
        watts = machine.cluster.accelerator.tdp_w
        yield (
            "energy_kwh",
            str(energy),
            "GPU-hours × rated power × node factor × PUE",
            f"{watts:.0f} W, node {money.DRAW}, PUE {money.PUE}",
            "lablib/plan/money.py",
        )
        yield (
            "co2e_kg",
            str(money.carbon(energy)),
            "energy × grid intensity",
            f"{money.CARBON} kg/kWh",
            "Ember, Global Electricity Review 2025",
        )


def text(entries: Iterable[Entry]) -> str:
    """The account as indented text."""
    return "\n".join(line for entry in entries for line in _lines(entry))


def _lines(entry: Entry) -> Iterator[str]:
    yield f"{entry.name} = {entry.value}"
    for label in ("formula", "inputs", "source"):
        if getattr(entry, label):
            yield f"    {label}: {getattr(entry, label)}"
