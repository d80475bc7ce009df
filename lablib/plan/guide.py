"""The guide's cost table (§19.1) and KPI bands as recipes priced today, and its rules of thumb reproduced or refuted.

>>> from lablib.plan import guide
>>> print(guide.table(guide.costs()))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from lablib.plan import memory
from lablib.plan.efficiency import GPU
from lablib.plan.engines import BF16, LAB
from lablib.plan.estimate import Estimate, estimate
from lablib.plan.flops import causal_context, forward, recomputed
from lablib.plan.job import Job
from lablib.plan.params import count, with_adapters
from lablib.specs import GRPO, SFT, Cluster, LoRA, Parallelism, Preference, Pretrain, Recipe, Task, catalog
from lablib.specs.units import show_count, show_dollars

MFU = 0.40
"""What the guide's table is checked at, with 6·N·D FLOPs."""
TEXTBOOK = BF16.replace(
    name="textbook",
    master=4,
    source="2 + 2 + 12 bytes a parameter (arXiv 1910.02054 §3.1), the guide's §10.2",
)


class Cost(NamedTuple):
    """One row of the guide beside ours."""

    activity: str
    guide_dollars: tuple[float, float]
    guide_gpu_hours: float | None
    """What its note says in GPUs and days; None where it only says "hours"."""
    recipe: Recipe
    plan: Estimate
    rule_gpu_hours: float | None
    """6·N·D at 40 % MFU, for pretraining."""

    @property
    def gap(self) -> float | None:
        """The guide's GPU-hours over 6·N·D at 40 % MFU: above 1 the guide is too high."""
        return self.guide_gpu_hours / self.rule_gpu_hours if self.guide_gpu_hours and self.rule_gpu_hours else None

    @property
    def dollar_gap(self) -> float:
        """The geometric middle of the guide's dollars over our middle."""
        middle = (self.guide_dollars[0] * self.guide_dollars[1]) ** 0.5
        return middle / self.plan.dollars.mid if self.plan.dollars else float("nan")

    @property
    def verdict(self) -> str:
        """The guide against our band: its GPU-hours where it says them, else its dollars."""
        if self.guide_gpu_hours:
            ours, (low, high) = self.plan.gpu_hours, (self.guide_gpu_hours, self.guide_gpu_hours)
        elif self.plan.dollars:
            ours, (low, high) = self.plan.dollars, self.guide_dollars
        else:
            return "unpriced"
        if high < ours.low:
            return f"guide {ours.mid / high:.1f}× too low"
        return f"guide {low / ours.mid:.1f}× too high" if low > ours.high else "agrees"


def _pretrain(model: str, tokens: str, batch: str, layout: Parallelism, recompute: str = "selective") -> Pretrain:
    spec = catalog.models[model]
    return Pretrain(
        model=spec, tokens=tokens, seq_len=min(4096, spec.max_seq_len), batch_tokens=batch, parallelism=layout, recompute=recompute, compile=True
    )  # fmt: skip


def _steps(rows: int, epochs: int, batch: int) -> int:
    return -(-rows * epochs // batch)


ROWS: tuple[tuple[str, tuple[float, float], float | None, Callable[[], Recipe]], ...] = (
    ("1B pretrain, 20B tokens, 32 H100 for a day", (2e3, 8e3), 32 * 24.0,
     lambda: _pretrain("llama-3.2-1b", "20B", "1M", Parallelism(dp_shard=32, micro_batch_size=2))),
    ("7B pretrain, 1T tokens, 256 H100 for 2 weeks", (2e5, 5e5), 256 * 14 * 24.0,
     lambda: _pretrain("llama-2-7b", "1T", "4M", Parallelism(dp_shard=256, micro_batch_size=2))),
    ("70B pretrain, 2T tokens, 1,024 H100 for a month", (5e6, 15e6), 1024 * 30 * 24.0,
     lambda: _pretrain("llama-2-70b", "2T", "8M", Parallelism(dp_shard=1024))),
    ("400B dense pretrain, 15T tokens, 10,000+ H100 for months", (1e8, 5e8), None,
     lambda: _pretrain("llama-3.1-405b", "15T", "16M", Parallelism(dp_shard=64, tp=8, pp=21, micro_batch_size=1, sequence_parallel=True, zero=1, virtual_stages=2))),
    ("SFT of a 7B, 100k examples, 3 epochs, 8 H100", (50, 300), None,
     lambda: SFT(model="llama-2-7b", data="examples.jsonl", steps=_steps(100_000, 3, 128), batch_size=128, seq_len=2048, parallelism=Parallelism(dp_shard=8))),
    ("QLoRA of a 70B, 50k examples, 1 H100", (50, 200), None,
     lambda: SFT(model="llama-2-70b", data="examples.jsonl", steps=_steps(50_000, 1, 16), batch_size=16, seq_len=1024, recompute="full", lora=LoRA(base="nf4"))),
    ("DPO of a 7B, 100k pairs, 8 H100", (100, 500), None,
     lambda: Preference(model="llama-2-7b", data="pairs.jsonl", steps=_steps(100_000, 1, 64), batch_size=64, seq_len=2048, parallelism=Parallelism(dp_shard=8))),
    ("RLVR of a 7B, long CoT, GRPO, 1,000 steps on 64 H100", (5e3, 5e4), None,
     lambda: GRPO(model="qwen2.5-7b", task=Task(name="sums", generator="chain_sum"), steps=1000, prompts_per_step=64, group_size=16, batch_size=1024,
                  max_new_tokens=8192, seq_len=16384, recompute="selective", parallelism=Parallelism(dp_shard=64))),
)  # fmt: skip
"""(activity, the guide's dollars, its GPU-hours, the recipe that says it). What the guide leaves open is the common choice:
4K sequences, files of which a row takes half of `seq_len`, 64 prompts × 16 answers of up to 8K tokens a step."""


def costs(accelerator: str = "h100-sxm") -> list[Cost]:
    """The eight rows of the cost table at today's prices, with 6·N·D at 40 % MFU beside the pretraining ones."""
    return [_cost(accelerator, *row) for row in ROWS]


def _cost(
    accelerator: str, activity: str, dollars: tuple[float, float], hours: float | None, make: Callable[[], Recipe]
) -> Cost:
    recipe = make()
    cluster = Cluster(accelerator=accelerator, nodes=-(-recipe.gpus // 8))
    rule = None
    if isinstance(recipe, Pretrain):
        peak = cluster.accelerator.peak("bf16") or float("nan")
        rule = 6 * _round_size(activity) * recipe.tokens / (MFU * peak) / 3600
    return Cost(activity, dollars, hours, recipe, estimate(recipe, cluster), rule)


def _round_size(activity: str) -> float:
    """Parameters as the row's name says them ("7B pretrain")."""
    return float(activity.split("B", 1)[0]) * 1e9


class Kpi(NamedTuple):
    """One figure of the guide's strip beside ours."""

    name: str
    guide: str
    ours: str
    verdict: str


def kpis() -> list[Kpi]:
    """The four figures at the head of the guide."""
    from lablib.plan.laws import EPOCH, HOFFMANN

    frontier, moe = (_cost("h100-sxm", "400B", (1e7, 5e8), None, make) for make in (ROWS[3][3], _deepseek))
    lora = estimate(
        SFT(model="llama-2-7b", data="examples.jsonl", steps=_steps(50_000, 1, 64), batch_size=64, seq_len=1024, lora=LoRA(), parallelism=Parallelism(dp_shard=8)),
        Cluster(accelerator="h100-sxm"),
    )  # fmt: skip
    ratios = [tokens / params for params, tokens in (law.optimum(1e23) for law in (EPOCH, HOFFMANN))]
    cheap, dear = (plan.plan.dollars for plan in (moe, frontier))
    assert cheap and dear and lora.dollars
    return [
        Kpi("pretraining tokens at the frontier", "15T+", "Llama 3 15T, DeepSeek-V3 14.8T, Qwen3 36T (arXiv 2505.09388)", "holds"),
        Kpi("Chinchilla tokens a parameter", "about 20", f"{ratios[0]:.0f} at 1e23 FLOPs with Epoch's refit, {ratios[1]:.0f} with Hoffmann's rounded constants", "holds" if 10 < ratios[0] < 40 else "depends on the law"),
        Kpi("frontier pretraining", "$10M–$500M", f"{show_dollars(cheap.mid)} (DeepSeek-V3's shape) to {show_dollars(dear.mid)} (Llama 3.1 405B's), one run; DeepSeek published 2.79M H800-hours, $5.6M at its $2 (arXiv 2412.19437 Table 1)", "published runs cost less than the low end" if dear.mid < 6e8 else "check"),
        Kpi("LoRA SFT of a 7B", "under $100", f"{show_dollars(lora.dollars.mid)} for 50k examples ({show_dollars(lora.dollars.low)} to {show_dollars(lora.dollars.high)})", "holds" if lora.dollars.high < 100 else "mostly"),
    ]  # fmt: skip


def _deepseek() -> Pretrain:
    layout = Parallelism(dp_shard=128, pp=16, ep=8, zero=1, pp_schedule="zero-bubble")
    return _pretrain("deepseek-v3", "14.8T", "63M", layout, "full").replace(precision="fp8")


class Rule(NamedTuple):
    """A rule of thumb, tried."""

    claim: str
    guide: str
    ours: str
    verdict: str
    """holds, refuted, or under what condition."""


def rules() -> list[Rule]:
    """Every rule of thumb of the guide that the planner can compute, computed."""
    return [*_tokens_a_parameter(), *_sixteen_bytes(), *_zero(), *_checkpointing(), *_qlora(), *_context()]


def _job(model: str, layout: Parallelism, seq_len: int, **changes: object) -> Job:
    spec = catalog.models[model]
    spec = spec.replace(max_seq_len=max(seq_len, spec.max_seq_len))
    tokens = layout.micro_batch_size * layout.dp * seq_len
    return Job(spec, count(spec), layout, seq_len, tokens, **changes)  # type: ignore[arg-type]


def _tokens_a_parameter() -> Iterator[Rule]:
    size = count(catalog.models["llama-3-8b"]).total
    ratio = 15e12 / size
    yield Rule("Llama-3-8B: D/N about 1,900", "1,900", f"15T / {show_count(size)} = {ratio:,.0f}", _near(ratio, 1900))


def _sixteen_bytes() -> Iterator[Rule]:
    layouts = (Parallelism(), Parallelism(dp_shard=8))
    for engine, name in ((TEXTBOOK, "2 + 2 + 12"), (LAB, "this lab's 4 + 4 + 8")):
        alone, shared = (sum(memory.states(_job("llama-2-7b", one, 4096, engine=engine)).values()) for one in layouts)
        size = count(catalog.models["llama-2-7b"]).total
        yield Rule(f"16 bytes a parameter ({name})", "16", f"{alone / size:.1f}", _near(alone / size, 16))
        yield Rule(
            f"7B states on one GPU ({name})",
            "112 GB",
            f"{alone / 1e9:.0f} GB for {show_count(size)}",
            _near(alone / 1e9, 112),
        )
        yield Rule(
            f"7B states over 8 GPUs, fully sharded ({name})", "14 GB", f"{shared / 1e9:.1f} GB", _near(shared / 1e9, 14)
        )
    weights = 2.0
    yield Rule("training memory about 6× the weights (§8)", "6×", f"{16 / weights:.0f}× the bf16 weights before activations", "refuted by the guide's own §10.2")  # fmt: skip


def _zero() -> Iterator[Rule]:
    for stage, said in ((1, 4.0), (2, 8.0), (3, 64.0)):
        saved = _saving(TEXTBOOK, stage), _saving(LAB, stage)
        ours = f"{saved[0]:.1f}× at 64 GPUs; {saved[1]:.1f}× with this lab's fp32 weights and gradients"
        yield Rule(f"ZeRO-{stage} saves about {'N' if stage == 3 else f'{said:.0f}'}×", f"{said:.0f}×", ours, _near(saved[0], said, 0.15))  # fmt: skip


def _saving(engine: object, stage: int) -> float:
    whole = memory.states(_job("llama-2-7b", Parallelism(), 4096, engine=engine))
    layout = Parallelism(dp_shard=64, zero=stage)
    return sum(whole.values()) / sum(memory.states(_job("llama-2-7b", layout, 4096, engine=engine)).values())


def _checkpointing() -> Iterator[Rule]:
    model = catalog.models["llama-3-8b"]
    parts = forward(model, causal_context(8192))
    extra = recomputed(parts, "full") / (3 * sum(parts.values()))
    yield Rule("activation checkpointing costs about 30 % compute", "30 %", f"{extra:.0%} for every layer of an 8B (all but the head)", _near(extra, 0.30, 0.15))  # fmt: skip
    selective = recomputed(parts, "selective") / (3 * sum(parts.values()))
    kept = {name: memory.kept(_job("llama-3-8b", Parallelism(dp_shard=8), 8192, recompute=name)) for name in ("none", "selective", "full")}  # fmt: skip
    yield Rule("activation checkpointing saves about 10×", "10×", f"{kept['none'] / kept['full']:.0f}× with every layer recomputed", _near(kept["none"] / kept["full"], 10, 0.3))  # fmt: skip
    yield Rule("selective checkpointing balances both", "", f"{kept['none'] / kept['selective']:.1f}× less for {selective:.0%} more matmul work", "holds")  # fmt: skip


def _qlora() -> Iterator[Rule]:
    model = catalog.models["llama-2-70b"]
    nf4 = 0.5 + 4 / 64
    for name, size in (("nf4", nf4), ("bf16", 2.0)):
        job = Job(
            model,
            with_adapters(model, LoRA()),
            Parallelism(),
            1024,
            1024,
            recompute="full",
            adapters=True,
            base_bytes=size,
            engine=BF16,
        )
        peak = memory.peak(job, GPU, 80.0)
        fits = peak.margin >= memory.MARGIN
        yield Rule(f"a 70B adapts on one 80 GB GPU ({name} base)", "fits" if name == "nf4" else "", f"{peak.peak_gib:.0f} GiB: {'fits' if fits else 'does not fit'}", "holds" if fits == (name == "nf4") else "refuted")  # fmt: skip


def _context() -> Iterator[Rule]:
    def peak(length: int, recompute: str) -> float:
        return memory.peak(_job("llama-3-8b", Parallelism(dp_shard=8), length, recompute=recompute), GPU, 80.0).peak_gib

    for recompute in ("selective", "full"):
        ratio = peak(131072, recompute) / peak(8192, recompute)
        yield Rule(f"8K against 128K is 3× the memory ({recompute} recomputation)", "3×", f"{ratio:.1f}× on one GPU, before context parallelism", _near(ratio, 3, 0.25))  # fmt: skip


def _near(ours: float, guide: float, tolerance: float = 0.06) -> str:
    return "holds" if abs(ours / guide - 1) <= tolerance else f"refuted: {ours / guide:.2g}× the guide's"


def table(rows: Iterable[Cost]) -> str:
    """Costs as aligned lines: activity, the guide's dollars, ours, and who is higher."""
    return "\n".join(
        f"{row.activity:<58} {show_dollars(row.guide_dollars[0]):>8} to {show_dollars(row.guide_dollars[1]):<8}"
        f"{f'{row.gap:.1f}× 6ND' if row.gap else '':>10}  ours {_ours(row.plan)}  {row.verdict}"
        for row in rows
    )


def _ours(plan: Estimate) -> str:
    if plan.dollars is None:
        return "unpriced"
    return f"{show_dollars(plan.dollars.mid)} ({show_dollars(plan.dollars.low)} to {show_dollars(plan.dollars.high)})"
