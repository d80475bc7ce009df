"""Run folders made by real recorders, for everything that reads runs: a short chain with a plan, an end and a failure."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lablib.runs import Recorder, Run
from lablib.specs import SFT, Accelerator, Cluster, Evaluate, LabError, ModelSpec, Prepare, Pretrain, Recipe, Task

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\u2028{{7*7}}"
"""What a model or a file name might contain; it must be shown as it stands."""
MACHINE = Cluster(
    name="bench",
    accelerator=Accelerator(
        name="cpu", kind="cpu", memory_gib=24, bandwidth_gb_s=20, measured_tflops={"fp32": 0.1}, source="a matmul"
    ),
    gpus_per_node=1,
    price_per_gpu_hour="$0.10",
    price_source="a price list, 2026-11",
)
MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=1, head_dim=32, ffn=128, vocab=512)
TASK = Task(name="sums", generator="chain_sum", train=8, test=8)


def pretrain(steps: int = 200, **fields: Any) -> Pretrain:
    """A small pretraining recipe of `steps` steps."""
    common: dict[str, Any] = {
        "model": MODEL,
        "tokens": steps * 1024,
        "batch_tokens": 1024,
        "seq_len": 128,
        "precision": "fp32",
    }
    return Pretrain(**{**common, **fields})


def span(mid: float) -> dict[str, float]:
    """A range as an estimate writes it."""
    return {"low": 0.8 * mid, "mid": mid, "high": 1.25 * mid}


def estimate(seconds: float = 20, gib: float = 1.0, rate: float = 9000) -> dict[str, Any]:
    """The parts of a registered estimate that screens and reports read."""
    return {
        "days": span(seconds / 86400),
        "dollars": span(seconds / 36000),
        "gpu_hours": span(seconds / 3600),
        "memory": {"peak_gib": gib, "parts": {"params": 0.3 * gib, "activations": 0.7 * gib}},
        "tokens_per_second_per_gpu": rate,
        "mfu": None,
    }


def true_loss(step: int) -> float:
    """The curve that the made runs follow: 2 + 6·exp(-step/60)."""
    return 2 + 6 * math.exp(-step / 60)


def forecast(steps: int = 200) -> dict[str, Any]:
    """A band of ±10 % around the curve."""
    grid = range(0, steps + 1, max(1, steps // 40))
    curves = {name: [share * true_loss(i) for i in grid] for name, share in (("low", 0.9), ("mid", 1.0), ("high", 1.1))}
    return {"step": list(grid), **curves, "basis": "the curve that the test follows"}


def start(root: Path, recipe: Recipe, seconds: float = 20) -> Recorder:
    """A run with cluster, estimate and forecast, opened for writing."""
    curve = forecast(recipe.steps) if isinstance(recipe, Pretrain) else None
    made = Run.create(recipe, root, MACHINE, estimate=estimate(seconds), forecast=curve)
    return Recorder(made.path)


def row(step: int) -> dict[str, float]:
    """The metrics of one step."""
    wobble = 0.15 * math.sin(step * 1.7) + 0.05 * math.sin(step * 0.31)
    return {
        "tokens": step * 1024,
        "loss": true_loss(step) + wobble,
        "lr": 3e-3 * min(1, step / 20),
        "grad_norm": 1 + abs(wobble) * 4,
        "tokens_per_second": 9400 + 300 * math.sin(step),
        "memory_gib": 0.9,
    }


def train(run: Recorder, steps: int, pause: float = 0.0, begin: int = 0) -> None:
    """Log `steps` rows as a stage would."""
    for step in range(begin, begin + steps):
        if run.stop_requested:
            return
        run.log(step, **row(step))
        run.progress(step + 1, run.recipe.steps)  # type: ignore[union-attr]
        if step % 40 == 39:
            run.log(step, stream="eval", loss=true_loss(step) + 0.1, bits_per_byte=1.9)
        time.sleep(pause)


def finished(root: Path, recipe: Recipe, work: Callable[[Recorder], None], seconds: float = 20) -> Run:
    """A completed run."""
    with start(root, recipe, seconds).working() as run:
        work(run)
    return Run(run.path)


def prepared(run: Recorder) -> None:
    """What a data stage leaves behind: the manifest of two domains."""
    folder = run.folder("data")
    kinds = {"books": ("public domain", 250_000), "python": ("PSF-2.0", 190_000)}
    domains = {
        name: {
            "docs": 120,
            "bytes": 900_000,
            "duplicates": 3,
            "short": 1,
            "sources": [{"source": f"pypi:{name}==1.0", "licence": licence, "docs": 120}],
        }
        for name, (licence, _) in kinds.items()
    }
    shards = [
        {"domain": name, "split": split, "docs": 60, "bytes": 450_000, "tokens": tokens, "sha256": "ab" * 32}
        for name, (_, tokens) in kinds.items()
        for split in ("train", "heldout")
    ]
    card = {"corpus": {"name": "core", "hash": "cd" * 32}, "tokenizer": {"vocab": 512, "sha256": "ef" * 32}}
    (folder / "manifest.json").write_text(json.dumps({**card, "shards": shards, "domains": domains}))
    run.artefact("data", folder, "dataset")


def model(run: Recorder) -> None:
    """A trained model's folder, in name."""
    train(run, run.recipe.steps)  # type: ignore[union-attr]
    folder = run.folder("model")
    (folder / "config.json").write_text(json.dumps({"seed": run.recipe.seed}))
    run.artefact("model", folder, "model")


def chain(root: Path) -> list[Run]:
    """Data → pretraining → SFT → evaluation, finished, with references between them."""
    data = finished(root, Prepare(name="data"), prepared)
    base = finished(root, pretrain(data=data.data), model)
    tuned = finished(root, SFT(model=base.model, data=TASK, steps=30, name="sft"), model)
    scored = finished(root, Evaluate(models={"base": base.model, "sft": tuned.model}, tasks=(TASK,)), evaluated)
    return [data, base, tuned, scored]


def failed(root: Path) -> Run:
    """A run that stopped with an error whose text is hostile."""
    recorder = start(root, pretrain(name="broken"))
    try:
        with recorder.working() as run:
            train(run, 12)
            raise LabError(HOSTILE)
    except LabError:
        pass
    return Run(recorder.path)


def evaluated(run: Recorder) -> None:
    """What an evaluation leaves behind: one improvement, one regression, one of no result, and hostile completions."""
    folder, models = run.folder("evals"), ("base", "sft", "dpo", "grpo")
    values = {"base": 0.3, "sft": 0.6, "dpo": 0.62, "grpo": 0.1}
    scores = [
        {
            "model": name,
            "task": "sums",
            "metric": "accuracy",
            "unit": "share",
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "items": 8,
        }
        for name, value in values.items()
    ]
    told = (
        ("sft", "base", 0.3, 0.1, 0.5, "improvement"),
        ("dpo", "sft", 0.02, -0.1, 0.14, "no result"),
        ("grpo", "base", -0.2, -0.3, -0.1, "regression"),
    )
    keys = ("model", "baseline", "difference", "low", "high", "verdict")
    comparisons = [
        {"task": "sums", "metric": "accuracy", "items": 8, **dict(zip(keys, row, strict=True))} for row in told
    ]
    references = [{"task": "sums", "name": "most common answer", "value": 0.05}]
    (folder / "scores.json").write_text(
        json.dumps({"schema": 1, "scores": scores, "comparisons": comparisons, "references": references})
    )
    items = [
        {
            "model": name,
            "task": "sums",
            "key": "k",
            "prompt": f"1 + 1 = {HOSTILE}",
            "right": "2",
            "completion": HOSTILE,
            "score": 0.0,
        }
        for name in models
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    run.artefact("scores", folder / "scores.json", "scores")
