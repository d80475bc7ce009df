"""Does a mixture learned from small proxies beat the uniform one? Real proxies on the core corpus, with a held-out check.

    python -m bench.data.mixing [--proxies 24] [--steps 100] [--seeds 3] [--json]

Each proxy is the lab's own loop on a model of 2 layers and 64 features. Laws are fitted to the held-out bits a byte of each
domain and scored on proxies kept out of the fit; the goal is the mean over domains, all alike. The mixture that the
exponential law calls best, DoReMi's, the natural and the uniform one are then each trained with several fresh seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from lablib.data import PackedDataset
from lablib.data.mixing import constrain, temperature
from lablib.data.mixing.learned import Optimum, Proxies, compare, learn, optimise, refits
from lablib.data.mixing.proxies import proxies
from lablib.data.mixing.shares import Shares
from lablib.data.prepare import prepare
from lablib.runs import Recorder, Run
from lablib.specs import Mixture, ModelSpec, Optimizer, Parallelism, Prepare, Pretrain, Schedule
from lablib.train.distributed import World, joined
from lablib.train.doremi import doremi
from lablib.train.heldout import Heldout
from lablib.train.loop import train
from lablib.train.pretrain import assemble
from lablib.train.source import Source, token_bytes

VOCAB, SEQ_LEN, BATCH = 512, 64, 1024
EVAL_WINDOWS = 100
"""Held-out windows of each domain, or all that there are."""


def recipe(run: Run, steps: int) -> Pretrain:
    """The proxy: 2 layers of 64 features."""
    model = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=160, vocab=VOCAB,
                      tied_embeddings=True, max_seq_len=SEQ_LEN)  # fmt: skip
    return Pretrain(
        name="proxy", model=model, data=run.data, tokens=steps * BATCH, seq_len=SEQ_LEN, batch_tokens=BATCH, precision="fp32",
        parallelism=Parallelism(micro_batch_size=BATCH // SEQ_LEN), optimizer=Optimizer(learning_rate=6e-3),
        schedule=Schedule(warmup=0.1, decay=0.4), eval_every=steps, checkpoint_every=steps, eval_tokens=SEQ_LEN, log_every=steps,
    )  # fmt: skip


class Bench:
    """The prepared corpus, and training of one mixture after another on it."""

    def __init__(self, root: Path, max_bytes: str, steps: int, world: World) -> None:
        """Prepare `max_bytes` of the core corpus below `root`."""
        made = Recorder.create(root, Prepare(corpus="core", vocab=VOCAB, max_bytes=max_bytes, heldout=0.1))
        prepare(made.recipe, made)
        self.root, self.world, self.run = root, world, Run.open(made.path)
        self.source = Source(self.run.artefact_path("data"), self.run.artefact_path("tokenizer"), Mixture())
        self.recipe = recipe(self.run, steps)
        natural = PackedDataset(self.source.data, Mixture(), SEQ_LEN)
        self.available = {name: float(count) for name, count in natural.tokens_by_domain.items()}
        self.natural: Shares = dict(natural.shares)
        self.measured = PackedDataset(self.source.data, Mixture(), SEQ_LEN, "heldout").domains
        self.trained = 0

    def train(self, wanted: Pretrain) -> tuple[dict[str, float], Any]:
        """(Domain → held-out bits a byte, the model) after one run of the lab's loop."""
        recorder = Recorder.create(self.root, wanted)
        parts = assemble(wanted, recorder, self.world, replace(self.source, mixture=wanted.mean_mixture))
        train(wanted, recorder, parts)
        self.trained += 1
        return {name: self._held_out(name, wanted, parts.stepper) for name in self.measured}, parts.stepper.model

    def _held_out(self, domain: str, wanted: Pretrain, stepper: Any) -> float:
        data = PackedDataset(self.source.data, Mixture(weights={domain: 1.0}), SEQ_LEN, "heldout")
        count = min(EVAL_WINDOWS, data.tokens_available // SEQ_LEN)
        lengths = token_bytes(self.source.tokenizer, VOCAB)
        return Heldout(data, count, 16, wanted.document_mask, lengths)(stepper)["bits_per_byte"]

    def within(self, shares: Mapping[str, float]) -> Shares:
        """The nearest shares that read no domain more than four times."""
        return constrain(shares, tokens=float(self.recipe.tokens), available=self.available)

    def with_mixture(self, shares: Mapping[str, float], seed: int) -> Pretrain:
        """The proxy with another mixture and seed."""
        kept = {name: share for name, share in self.within(shares).items() if share > 0}
        return self.recipe.replace(mixture=Mixture(weights=kept), seed=seed)


def run_proxies(bench: Bench, count: int) -> Proxies:
    """Train them and measure every domain."""
    base = temperature(bench.available, 2.0)  # around natural shares, hardly a proxy would hold the smallest domains
    made = proxies(bench.recipe, base, count, seed=1, available=bench.available)
    names = tuple(bench.natural)
    weights = np.array([[one.mean_mixture.weights.get(name, 0.0) for name in names] for one in made])
    losses = [bench.train(one)[0] for one in made]
    return Proxies(names, weights, {name: np.array([row[name] for row in losses]) for name in bench.measured})


def learned(found: Proxies, bench: Bench) -> Optimum:
    """The exponential law's best mixture against natural proportions."""
    law = learn(found)
    limits = {"tokens": float(bench.recipe.tokens), "available": bench.available}
    return optimise(law, bench.natural, **limits, again=refits(found, law, 30))


def reweighted(bench: Bench) -> Shares:
    """DoReMi: a reference in natural proportions, then a proxy of the same size."""
    _, reference = bench.train(bench.with_mixture(bench.natural, seed=100))
    return dict(doremi(bench.recipe.replace(seed=101), bench.source.data, reference).mixture.weights)


def trials(bench: Bench, candidates: Mapping[str, Shares], seeds: int) -> list[dict[str, Any]]:
    """Each candidate trained with the same fresh seeds: mean bits a byte, and how far it is below uniform, seed
    by seed, with half the 95 % interval of that mean (Student's t)."""
    rows, means = [], {}
    for name, shares in candidates.items():
        losses = [bench.train(bench.with_mixture(shares, seed=1000 + seed))[0] for seed in range(seeds)]
        means[name] = np.array([np.mean(list(loss.values())) for loss in losses])
        by_domain = {d: round(float(np.mean([loss[d] for loss in losses])), 4) for d in bench.measured}
        rows.append({"mixture": name, "shares": {k: round(v, 3) for k, v in bench.within(shares).items()}, "by_domain": by_domain})  # fmt: skip
    for row in rows:
        gain = means["uniform"] - means[row["mixture"]]
        half = float(student.ppf(0.975, seeds - 1) * gain.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else float("inf")
        row |= {"mean": round(float(means[row["mixture"]].mean()), 4), "below_uniform": round(float(gain.mean()), 4),
                "half_interval": round(half, 4)}  # fmt: skip
    return rows


def measure(root: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures, by name."""
    with joined(1, 1) as world:
        bench = Bench(root, arguments.bytes, arguments.steps, world)
        begun = time.perf_counter()
        found = run_proxies(bench, arguments.proxies)
        spent = time.perf_counter() - begun
        goal = Proxies(found.domains, found.weights, {**found.losses, "mean": np.mean(list(found.losses.values()), axis=0)})  # fmt: skip
        best = learned(found, bench)
        uniform = dict.fromkeys(bench.natural, 1 / len(bench.natural))
        chosen = {"uniform": uniform, "natural": bench.natural, "learned": best.mixture.weights, "DoReMi": reweighted(bench)}  # fmt: skip
        return {
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
            "proxies": len(found),
            "tokens_each": bench.recipe.tokens,
            "available": bench.available,
            "proxy_seconds": round(spent, 1),
            "held_out": [asdict(score) for score in compare(goal)],
            "predicted": {name: round(value, 4) for name, value in best.predicted.items()},
            "predicted_mean": round(float(np.mean(list(best.predicted.values()))), 4),
            "predicted_gain_on_natural": [round(best.gain, 4), *(round(end, 4) for end in best.gain_range or ())],
            "beyond_proxies": best.beyond,
            "trials": trials(bench, chosen, arguments.seeds),
        }


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"{result['proxies']} proxies of {result['tokens_each']:,} tokens in {result['proxy_seconds']} s on one core", ""]  # fmt: skip
    lines += ["| fit | target | Spearman, held out | RMSE | RMSE of the mean |", "|---|---|---|---|---|"]
    lines += [f"| {s['fitter']} | {s['target']} | {s['spearman']:.3f} | {s['rmse']:.4f} | {s['constant_rmse']:.4f} |" for s in result["held_out"]]  # fmt: skip
    domains = list(result["trials"][0]["by_domain"])
    lines += ["", f"| mixture | bits a byte | below uniform (95 %) | {' | '.join(domains)} |", "|---|---|---|" + "---|" * len(domains)]  # fmt: skip
    for row in result["trials"]:
        cells = " | ".join(f"{row['by_domain'][d]:.3f} at {row['shares'].get(d, 0):.1%}" for d in domains)
        lines.append(f"| {row['mixture']} | {row['mean']:.4f} | {row['below_uniform']:+.4f} ± {row['half_interval']:.4f} | {cells} |")  # fmt: skip
    told = result["predicted_gain_on_natural"]
    lines += ["", f"The law predicted {result['predicted_mean']:.4f} for its mixture, {told[0]:.4f} below natural (80 %: {told[1]:.4f} to {told[2]:.4f})."]  # fmt: skip
    row = next(row for row in result["trials"] if row["mixture"] == "learned")
    sure = row["below_uniform"] > row["half_interval"]
    lines.append(f"The learned mixture {'beats' if sure else 'does not surely beat'} the uniform one on fresh seeds.")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.data.mixing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--proxies", type=int, default=24, help="proxy runs (24)")
    parser.add_argument("--steps", type=int, default=100, help=f"steps of {BATCH} tokens each (100)")
    parser.add_argument("--seeds", type=int, default=3, help="fresh seeds of each candidate (3)")
    parser.add_argument("--bytes", default="16 MB", help="text of the core corpus to prepare (16 MB)")
    parser.add_argument("--json", action="store_true", help="machine-readable output, and nothing else, on stdout")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as root:
        result = measure(Path(root), arguments)
    print(json.dumps(result, indent=1) if arguments.json else table(result))


if __name__ == "__main__":
    main()
