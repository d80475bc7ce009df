"""Servers beside a job's ranks: started with each attempt, waited for, and sharing its fate.

``python -m cluster.components RUN NAME`` carries one: it takes a port, writes ``components/NAME.json`` (host, port), runs
the server with its output in ``logs/NAME.log``, and leaves ``components/NAME.exit`` when that ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from lablib.runs import Run
from lablib.specs import Component, LabError, write_atomic

LOOK = 0.3
"""Seconds between questions whether a server answers."""
GRACE = 10.0
"""Seconds that a server gets between SIGTERM and SIGKILL."""


def vllm_server(model: str, tensor_parallel: int = 1) -> Component:
    """The sampler that TRL's GRPO asks in its server mode (``trl vllm-serve``), on a node of its own."""
    words = ("trl", "vllm-serve", "--model", model, "--tensor-parallel-size", str(tensor_parallel))
    return Component(
        name="sampler", command=(*words, "--host", "{host}", "--port", "{port}"), nodes=1, ready="/health/"
    )


def start(run: Run) -> list[subprocess.Popen[bytes]]:
    """Start the run's components on this machine, each in a session of its own."""
    started = []
    for one in run.order.components:
        for kind in ("json", "exit"):
            (run.path / "components" / f"{one.name}.{kind}").unlink(missing_ok=True)
        command = [sys.executable, "-m", "cluster.components", str(run.path), one.name]
        started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True))
    return started


def end(started: list[subprocess.Popen[bytes]]) -> None:
    """End what `start` began."""
    for carrier in started:
        carrier.terminate()
    for carrier in started:
        carrier.wait()


def ended(run: Run) -> str:
    """Name of a component of this attempt that has ended; empty where none has."""
    names = (one.name for one in run.order.components)
    return next((name for name in names if (run.path / "components" / f"{name}.exit").is_file()), "")


def addresses(run: Run) -> dict[str, str]:
    """Environment variables with every component's address, once all of them answer.

    Raises `LabError` for one that ended, and `TimeoutError` for one that does not answer within its patience.
    """
    return {one.variable: _ready(run, one) for one in run.order.components}


def _ready(run: Run, one: Component) -> str:
    until = time.monotonic() + one.ready_seconds
    while time.monotonic() < until:
        if ended(run):
            break  # the guard ends this attempt; saying so first is better than a silent death
        address = _address(run, one)
        if address and _answers(address + one.ready):
            return address
        time.sleep(LOOK)
    else:
        raise TimeoutError(f"component {one.name} did not answer at {one.ready} within {one.ready_seconds:.0f} s; see logs/{one.name}.log")  # fmt: skip
    raise RuntimeError(f"component {ended(run)} ended before it could serve; see logs/{ended(run)}.log")


def _address(run: Run, one: Component) -> str:
    try:
        told = json.loads((run.path / "components" / f"{one.name}.json").read_text())
    except (OSError, ValueError):
        return ""
    return f"http://{told['host']}:{told['port']}"


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as reply:
            return bool(reply.status < 400)
    except (OSError, urllib.error.URLError):
        return False


def carry(run: Run, name: str) -> int:
    """Run one component to its end, or until this process is told to end; gives its exit status."""
    one = next((found for found in run.order.components if found.name == name), None)
    if one is None:
        raise LabError(f"run {run.id} has no component {name!r}")
    alone = run.order.profile.scheduler == "local"
    host = "127.0.0.1" if alone else os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    port = one.port or _free_port()
    (run.path / "logs").mkdir(exist_ok=True)
    words = [word.replace("{host}", host).replace("{port}", str(port)) for word in one.command]
    with (run.path / "logs" / f"{name}.log").open("ab") as log:
        server = subprocess.Popen(
            one.container.within(words) if one.container else words, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    signal.signal(signal.SIGTERM, lambda *_: _end(server))
    write_atomic(run.path / "components" / f"{name}.json", json.dumps({"host": host, "port": port, "pid": server.pid}))
    code = _wait(server, os.getppid() if alone else 0)
    write_atomic(run.path / "components" / f"{name}.exit", str(code))
    return code


def _wait(server: subprocess.Popen[bytes], parent: int) -> int:
    """Until the server ends; on this machine also until the supervisor that started us is gone, with which it ends."""
    while True:
        try:
            return server.wait(1.0 if parent else None)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        server.kill()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    sys.exit(carry(Run(Path(sys.argv[1])), sys.argv[2]))
