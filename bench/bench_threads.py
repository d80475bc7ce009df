"""What a busy machine does to a step of two threads: spinning against sleeping while they wait (``OMP_WAIT_POLICY``).

Times the same small matrix products with one and two threads, alone and beside processes that keep every core busy, and
prints each as a ratio to one thread alone. Why `cluster` starts jobs with PASSIVE, and the tour takes one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

WORK = """
import time, torch
torch.set_num_threads(int({threads}))
a, b = torch.randn(4096, 192), torch.randn(192, 576)
def steps(n):
    for _ in range(n):
        torch.relu(a @ b) @ b.T
steps(20)
begun = time.perf_counter(); steps(150); print(time.perf_counter() - begun)
"""


def seconds(threads: int, policy: str, busy: int) -> float:
    """Wall seconds of the work beside `busy` processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": policy}
    try:
        done = subprocess.run(
            [sys.executable, "-c", WORK.format(threads=threads)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout)


def main() -> None:
    """Print a JSON object: each case as a multiple of one thread alone."""
    base = seconds(1, "PASSIVE", 0)
    cores = os.cpu_count() or 1
    cases = {
        f"{threads} thread{'s' * (threads > 1)}, {policy.lower()}, {'busy' if busy else 'alone'}": (
            threads,
            policy,
            busy,
        )
        for threads in (1, 2)
        for policy in ("ACTIVE", "PASSIVE")
        for busy in (0, cores)
    }
    print(
        json.dumps(
            {"seconds of one thread alone": base, **{k: seconds(*case) / base for k, case in cases.items()}}, indent=1
        )
    )


if __name__ == "__main__":
    main()
