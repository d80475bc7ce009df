"""Every GPU path that exists, once, on one GPU, with a record of what was exercised (``make gpu-check``).

Each check runs a real stage of the lab in a temporary folder and is timed; a failure is recorded and the next one runs.
Without a GPU it says so and exits with 2. The record goes to ``bench/results/gpu_check.json`` (or the path given).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lablib.plan import calibrate
from lablib.runs import Recorder, Run
from lablib.runs.orders import TRACE
from lablib.runs.provenance import hardware, versions
from lablib.runs.traces import traces
from lablib.specs import GRPO, SFT, LoRA, ModelSpec, Parallelism, Prepare, Pretrain, Recipe, Task, write_atomic
from lablib.stages import execute

MODEL = ModelSpec(family="qwen3", layers=4, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=768, vocab=1024)
TASK = Task(name="sums", generator="chain_sum", params={"min_terms": 2, "max_terms": 2}, train=128, test=32)


def stage(root: Path, recipe: Recipe, traced: int = 0) -> Run:
    """Carry a recipe out in this process, with its first `traced` steps traced."""
    recorder = Recorder.create(root, recipe)
    if traced:
        write_atomic(recorder.path / TRACE, json.dumps({"steps": traced}))
    with recorder.working():
        execute(recorder.recipe, recorder)
    return Run(recorder.path)


def pretrain(root: Path, data: Run, traced: int = 0, **changes: Any) -> dict[str, Any]:
    """Forty steps; gives the last loss, the median speed and the peak memory."""
    recipe = Pretrain(
        model=MODEL,
        data=data.data,
        tokens=40 * 16384,
        seq_len=512,
        batch_tokens=16384,
        parallelism=Parallelism(micro_batch_size=8),
        **{"precision": "bf16", **changes},
    )
    run = stage(root, recipe, traced)
    rows = run.rows()
    return {
        "loss": rows[-1]["loss"],
        "tokens_per_second": sorted(row["tokens_per_second"] for row in rows)[len(rows) // 2],
        "memory_gib": rows[-1]["memory_gib"],
        "run": run.id,
    }


def checks(root: Path) -> dict[str, Callable[[], Any]]:
    """Name → what to do; later ones use what earlier ones left."""
    made: dict[str, Run] = {}
    corpus = str(Path(torch.__file__).parent / "nn")

    def prepare() -> str:
        made["data"] = stage(root, Prepare(corpus=corpus, vocab=1024))
        return made["data"].id

    def base() -> dict[str, Any]:
        found = pretrain(root, made["data"])
        made["base"] = Run(root / found["run"])
        return found

    def inside() -> dict[str, Any]:
        run = Run(root / pretrain(root, made["data"], traced=3, inspect_every=10)["run"])
        (found,) = traces(run)
        assert found.by == "device_ms" and found.memory is not None and "logit_max.3" in run.rows("layers")[-1]
        return {"top operators": [row["op"] for row in found.ops[:5]], "layers": run.rows("layers")[-1]}

    def post(kind: type[SFT] | type[GRPO], **fields: Any) -> str:
        return stage(root, kind(model=made["base"].model, steps=3, seq_len=128, precision="bf16", **fields)).id

    return {
        "calibrate on the GPU": lambda: calibrate().accelerator.measured_tflops,
        "prepare": prepare,
        "pretrain bf16": base,
        "pretrain fp32": lambda: pretrain(root, made["data"], precision="fp32"),
        "pretrain bf16, selective recomputation": lambda: pretrain(root, made["data"], recompute="selective"),
        "pretrain bf16, full recomputation": lambda: pretrain(root, made["data"], recompute="full"),
        "pretrain bf16, torch.compile": lambda: pretrain(root, made["data"], compile=True),
        "pretrain bf16, traced and looked into": inside,
        "SFT bf16": lambda: post(SFT, data=TASK, batch_size=8),
        "SFT bf16, LoRA": lambda: post(SFT, data=TASK, batch_size=8, lora=LoRA()),
        "GRPO bf16": lambda: post(GRPO, task=TASK, prompts_per_step=4, group_size=4, max_new_tokens=8),
    }


def main(out: Path) -> int:
    """Run all checks; gives 0 where all passed, 1 where some failed, 2 without a GPU."""
    if not torch.cuda.is_available():
        print("no GPU here: nothing was exercised")
        return 2
    results = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LAB_HOME"] = str(Path(folder) / "home")
        for name, check in checks(Path(folder) / "runs").items():
            begun = time.perf_counter()
            try:
                row: dict[str, Any] = {"check": name, "passed": True, "found": check()}
            except Exception:  # one broken path must not hide the others
                row = {"check": name, "passed": False, "found": traceback.format_exc()[-2000:]}
            row["seconds"] = round(time.perf_counter() - begun, 1)
            print("ok  " if row["passed"] else "FAIL", name, f"{row['seconds']} s", flush=True)
            results.append(row)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"hardware": hardware(), "versions": versions(), "checks": results}, indent=1, default=str)
    )
    return 0 if all(row["passed"] for row in results) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "bench/results/gpu_check.json")))
