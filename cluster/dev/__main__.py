"""The development Slurm from a shell.

python -m cluster.dev up --nodes 4        start it (again: nothing happens)
eval "$(python -m cluster.dev env)"       have this shell's sbatch, squeue and lab use it
python -m cluster.dev status
python -m cluster.dev down --wipe         end it and leave no trace
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from cluster.dev import DevSlurm, Shape
from lablib.specs import LabError


def main(words: list[str]) -> int:
    """Do one thing; errors are one line."""
    parser = argparse.ArgumentParser(prog="python -m cluster.dev", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("what", choices=["up", "down", "status", "env"])
    parser.add_argument("--folder", type=Path, help="where it keeps everything")
    parser.add_argument("--nodes", type=int, default=Shape.nodes)
    parser.add_argument("--cpus", type=int, default=Shape.cpus, help="CPUs that each node pretends to have")
    parser.add_argument("--memory-mib", type=int, default=Shape.memory_mib)
    parser.add_argument("--gpus", type=int, default=Shape.gpus, help="fake GPUs a node")
    parser.add_argument("--cgroups", action="store_true", help="real memory and device limits (cgroup v1)")
    parser.add_argument(
        "--no-accounting", action="store_true", help="neither database nor sacct; starts in under a second"
    )
    parser.add_argument("--port", type=int, default=Shape.port, help="first of its ports")
    parser.add_argument("--wipe", action="store_true", help="with down: remove its folder too")
    args = parser.parse_args(words)
    shape = Shape(args.nodes, args.cpus, args.memory_mib, args.gpus, args.cgroups, not args.no_accounting, args.port)
    slurm = DevSlurm(args.folder, shape if args.what == "up" else None)
    try:
        if args.what == "up":
            slurm.up()
        elif args.what == "down":
            slurm.down(wipe=args.wipe)
    except LabError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if args.what == "env":
        sys.stdout.write(f"export SLURM_CONF={shlex.quote(str(slurm.conf))}\n")
    elif args.what != "down":
        sys.stdout.write(slurm.status().rstrip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
