"""What a job's processes find in their environment."""

from __future__ import annotations

import os
from pathlib import Path

from lablib.runs import Run
from lablib.specs import Prepare

FLIGHT_RECORDER = "TORCH_FR_DUMP_TEMP_FILE"
EXPORTED = ("PYTHONPATH", "PYTHONSAFEPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "LAB_HOME", "LAB_RUNS",
        "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_DUMP_ON_TIMEOUT")  # fmt: skip
"""What a job on another machine is told; the rest it has from its own login, and no token travels in a script."""


LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher such as torchrun tells its processes; submitit starts no job where they are set already."""


def of(run: Run, code: Path) -> dict[str, str]:
    """This process's environment without a foreign job's variables, with the run's threads and `code` importable."""
    foreign = ("SLURM_", "SBATCH_", "SUBMITIT_", "TORCHELASTIC_")
    given = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    kept = {name: value for name, value in given.items() if name == "SLURM_CONF" or not name.startswith(foreign)}
    # PYTHONSAFEPATH: the folder that one submits from must not come before the copy of the code.
    path = os.pathsep.join([str(code), *filter(None, [kept.get("PYTHONPATH")])])
    # Waiting threads sleep instead of spinning: on busy cores a step of two threads is 2.5 times faster (docs/log.md).
    openmp = {"OMP_NUM_THREADS": str(run.recipe.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    # NCCL and gloo keep what each collective did, so that a hang can be read afterwards.
    recorder = {"TORCH_FR_BUFFER_SIZE": "2000", "TORCH_NCCL_DUMP_ON_TIMEOUT": "1", FLIGHT_RECORDER: str(run.path / "logs" / "collectives-")}  # fmt: skip
    # What the hub has was fetched before; a job that asks it again may wait for ever on a node without a network.
    recipe = run.recipe
    corpora = recipe.corpora if isinstance(recipe, Prepare) else (getattr(recipe, "data", None),)
    streams = any(isinstance(corpus, str) and corpus.startswith("hf:") for corpus in corpora)
    hub = {} if streams else {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return {
        **kept,
        **hub,
        **openmp,
        **recorder,
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
