"""What a job's processes find in their environment."""

from __future__ import annotations

import os
from pathlib import Path

from lablib.runs import Run


def of(run: Run, code: Path) -> dict[str, str]:
    """This process's environment without a foreign job's variables, with the run's threads and `code` importable."""
    foreign = ("SLURM_", "SBATCH_", "SUBMITIT_", "TORCHELASTIC_")
    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or not name.startswith(foreign)}
    # PYTHONSAFEPATH: the folder that one submits from must not come before the copy of the code.
    path = os.pathsep.join([str(code), *filter(None, [kept.get("PYTHONPATH")])])
    # Waiting threads sleep instead of spinning: on busy cores a step of two threads is 2.5 times faster (docs/log.md).
    openmp = {"OMP_NUM_THREADS": str(run.recipe.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    # NCCL and gloo keep what each collective did, so that a hang can be read afterwards.
    recorder = {"TORCH_FR_BUFFER_SIZE": "2000", "TORCH_NCCL_DUMP_ON_TIMEOUT": "1", "TORCH_FR_DUMP_TEMP_FILE": str(run.path / "logs" / "collectives-")}  # fmt: skip
    return {**kept, **openmp, **recorder, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "TOKENIZERS_PARALLELISM": "false"}
