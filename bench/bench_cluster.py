"""What submission and the board cost: ``python bench/bench_cluster.py``, JSON on stdout.

- `board`: seconds to list 300 finished runs of 5,000 logged steps each, beside reading their metrics whole.
- `overhead` (where a development Slurm is up, $SLURM_CONF): seconds from `submit` to a rank's first word, beside a plain
  ``sbatch`` of ``srun true`` on as many nodes, and beside the same with Python importing torch, in one run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster import jobs, submit
from lablib.runs import Run, heartbeat, jsonl
from lablib.specs import ModelSpec, Parallelism, Prepare, Pretrain, Profile

RUNS, STEPS, REPEATS = 300, 5_000, 3


def board(root: Path) -> dict[str, float]:
    """Listing beside reading everything."""
    rows = "".join(
        json.dumps({"step": n, "time": 1.7e9 + n, "loss": 5.0, "tokens_per_second": 1e5}) + "\n" for n in range(STEPS)
    )
    for _ in range(RUNS):
        run = Run.create(Prepare(vocab=512), root)
        (run.path / "metrics").mkdir()
        (run.path / "metrics" / "train.jsonl").write_text(rows)
        heart = heartbeat.Heart(run.path, 0, "running", leads=False)
        heart.stop(0)
        jsonl.append(run.path / "events.jsonl", {"kind": "completed", "seconds": 10.0})
    begun = time.perf_counter()
    assert len(jobs(root)) == RUNS
    listed = time.perf_counter()
    for folder in root.iterdir():
        jsonl.read(folder / "metrics" / "train.jsonl")
    return {"runs": RUNS, "list_seconds": listed - begun, "read_whole_seconds": time.perf_counter() - listed}


def overhead(root: Path) -> dict[str, float]:
    """Medians of the wait for the first word from two nodes."""
    data = submit(Prepare(corpus=str(Path(__file__).parent.parent / "docs"), vocab=512, heldout=0.1), root=root)
    data.wait()
    model = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=2, ffn=128, vocab=512)
    recipe = Pretrain(model=model, data=data.data, tokens=2 * 256, seq_len=64, batch_tokens=256, precision="fp32",
                      parallelism=Parallelism(dp_shard=2, micro_batch_size=2))  # fmt: skip
    where = Profile.load("slurm-dev").replace(gpus_per_node=1)
    found: dict[str, list[float]] = {"submit_returns": [], "submit_to_start": [], "submit_to_first_step": [], "sbatch_true": [], "sbatch_import_torch": []}  # fmt: skip
    for _ in range(REPEATS):
        begun = time.time()
        run = submit(recipe, where, root=root)
        found["submit_returns"].append(time.time() - begun)
        run.wait()
        found["submit_to_start"].append(
            next(event["time"] for event in run.events() if event["kind"] == "started") - begun
        )
        found["submit_to_first_step"].append(run.rows()[0]["time"] - begun)
        found["sbatch_true"].append(_plain("srun true"))
        found["sbatch_import_torch"].append(_plain(f"srun {sys.executable} -c 'import torch, transformers, submitit'"))
    return {name: sorted(values)[len(values) // 2] for name, values in found.items()}


def _plain(line: str) -> float:
    """To the end of the line, by a file that the job makes (``sbatch --wait`` looks every ten seconds only)."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        begun = time.time()
        subprocess.run(["sbatch", "-N2", "-n2", "-o", "/dev/null", "--wrap", f"{line}; touch {made}"], check=True, capture_output=True)  # fmt: skip
        while not made.exists():
            time.sleep(0.02)
        return time.time() - begun


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("LAB_HOME", folder + "/home")
        result: dict[str, object] = {"board": board(Path(folder) / "board")}
        if os.environ.get("SLURM_CONF"):
            result["overhead"] = overhead(Path(folder) / "runs")
        print(json.dumps(result, indent=1))
