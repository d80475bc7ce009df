"""`run`: a program that nobody trusts, in namespaces of its own, and what came of it."""

from __future__ import annotations

import json
import math
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lablib.data.sandbox import inside
from lablib.data.sandbox.calls import filter_for
from lablib.specs import LabError

Why = Literal["", "exit", "signal", "time", "memory", "output", "processes"]
SECONDS, MEMORY_BYTES, OUTPUT_BYTES = 10.0, 512 << 20, 1 << 20
DISK_BYTES = 64 << 20
"""Of all files that a program writes, which lie in memory."""
PROCESSES = 32
"""With threads."""
GRACE = 30.0
"""Seconds beyond a program's own that its walls may take to put up and down, on a busy machine."""
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
"""All that a program is told."""
_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")


@dataclass(frozen=True)
class Outcome:
    """What came of a program."""

    passed: bool
    """Whether it ended by itself with status 0."""
    exit: int | None
    """Its status; None where it was killed."""
    stdout: str
    stderr: str
    why: Why
    """Why it did not pass: its own ``exit`` status, a ``signal``, or the limit that it met: ``time``, ``memory``, ``output``,
    ``processes``."""


def run(
    program: str,
    *,
    files: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
    memory_bytes: int = MEMORY_BYTES,
    output_bytes: int = OUTPUT_BYTES,
) -> Outcome:
    """Run Python source where it can do no harm; from any thread, and never in this process.

    It has the interpreter's standard library, the system's programs to read, an empty folder in memory (``/tmp``, at most
    `DISK_BYTES`) with `files` by relative name, and nothing else: no network, no other process, no home, no environment, no
    standard input, no privilege; of shared memory only files, of sockets only streams between its own processes. All its processes (`PROCESSES` at most) end with it. `seconds` are by the clock;
    `memory_bytes` bound each process' address space, and what all hold together with their files, which is looked at every
    `inside.TICK`; more than `output_bytes` on either stream end it. Raises `LabError` where this machine cannot wall it off
    (`available`), or for a name that is not inside the folder.
    """
    if why := available():
        raise LabError(f"sandbox: {why}")
    limits = {"seconds": seconds, "memory": memory_bytes}
    if bad := [name for name, value in {**limits, "output": output_bytes}.items() if not 0 < value < math.inf]:
        raise LabError(f"sandbox: {', '.join(bad)} must be positive and finite")
    return _run(_job(program, dict(files or {}), limits), seconds, output_bytes)


def available() -> str | None:
    """Why this machine cannot run programs walled off, with the remedy; None where it can, which was tried."""
    try:
        _tried()
    except LabError as error:
        return str(error)
    return None


@cache  # of what stood; what was refused may be allowed by now
def _tried() -> None:
    if sys.platform != "linux":
        raise LabError(f"{sys.platform} has no namespaces; use Linux")
    if filter_for() is None:
        raise LabError(f"system calls of {os.uname().machine} are not known; use x86_64 or aarch64")
    found = _run(_job("", {}, {"seconds": SECONDS, "memory": MEMORY_BYTES}), SECONDS, OUTPUT_BYTES)
    if not found.passed:
        raise LabError(f"Python does not start in it ({found.why} {found.exit}: {found.stderr[-300:].strip()})")


def _job(program: str, files: dict[str, str], limits: Mapping[str, float]) -> dict[str, Any]:
    """What `inside.main` reads."""
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name or name == "program.py":
            raise LabError(f"files: {name!r} must be a relative path inside the folder, and not program.py")
    if (size := sum(len(text.encode("utf-8", "replace")) for text in [program, *files.values()])) > DISK_BYTES // 2:
        raise LabError(f"files: {size:,} bytes with the program; at most {DISK_BYTES // 2:,} fit beside what it writes")
    calls = filter_for()
    assert calls is not None
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return {
        "program": program,
        "files": files,
        "python": python,
        "environment": ENVIRONMENT,
        "calls": calls.hex(),
        "paths": _paths(python),
        "links": {path: os.readlink(path) for path in _LINKS if os.path.islink(path)},
        "disk": DISK_BYTES,
        "processes": PROCESSES,
        "root": _is_root(),
        **limits,
    }


def _paths(python: str) -> list[str]:
    """What of this machine can be read: its programs and libraries, and those of the interpreter."""
    prefix = Path(os.path.realpath(sys.base_prefix))
    wanted = [*_LINKS, "/etc/ld.so.cache", "/etc/alternatives", str(prefix / "bin"), str(prefix / "lib"), python]
    paths = ["/usr"]
    for path in wanted:
        inside_of = any(PurePosixPath(path).is_relative_to(other) for other in paths)
        if os.path.exists(path) and not os.path.islink(path) and not inside_of:
            paths.append(path)
    return paths


def _is_root() -> bool:
    """Whether there is a user with fewer rights to give a program to."""
    rows = [[int(word) for word in row.split()] for row in Path("/proc/self/uid_map").read_text().splitlines()]
    return os.geteuid() == 0 and any(first <= inside.NOBODY < first + count for first, _, count in rows)


def _run(job: dict[str, Any], seconds: float, output_bytes: int) -> Outcome:
    with ExitStack() as stack:
        (life, alive), (told, telling) = os.pipe(), os.pipe()
        stack.callback(os.close, told)
        stack.callback(os.close, alive)
        try:
            child = _start(life, telling)
        finally:
            os.close(life)
            os.close(telling)
        stack.callback(_end, child)
        assert child.stdin and child.stdout and child.stderr
        try:
            child.stdin.write(json.dumps(job).encode())
            child.stdin.close()
        except BrokenPipeError:
            pass  # what it says of its end tells more
        texts, over = _read(child, time.monotonic() + seconds + GRACE, output_bytes)
        if not over:
            child.wait()
        said = b"" if over else _all(told)
    stdout, stderr = (text.decode("utf-8", "replace") for text in texts)
    if over:
        return Outcome(False, None, stdout, stderr, over)
    return _outcome(said, stdout, stderr)


def _start(life: int, telling: int) -> subprocess.Popen[bytes]:
    command = [os.path.realpath(getattr(sys, "_base_executable", sys.executable)), "-I", "-S", "-B", inside.__file__]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, str(life), str(telling)], stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=(life, telling), env={}, cwd="/", start_new_session=True
    )  # fmt: skip


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nothing of it is left: the kernel kills process 1 of its namespace with it, and all others with that one."""
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            with suppress(BrokenPipeError):
                stream.close()


def _read(child: subprocess.Popen[bytes], until: float, most: int) -> tuple[list[bytes], Why]:
    """Both streams until their ends, held up to `most` bytes each, and the limit that was met first."""
    texts = [bytearray(), bytearray()]
    with selectors.DefaultSelector() as selector:
        for held, stream in zip(texts, (child.stdout, child.stderr), strict=True):
            assert stream
            selector.register(stream, selectors.EVENT_READ, held)
        while selector.get_map():
            left = until - time.monotonic()
            ready = selector.select(max(0.0, left))
            if left <= 0:
                return [bytes(held) for held in texts], "time"
            for key, _ in ready:
                if not (data := os.read(key.fd, 1 << 16)):
                    selector.unregister(key.fileobj)
                    continue
                key.data.extend(data[: most + 1 - len(key.data)])
                if len(key.data) > most:
                    return [bytes(held[:most]) for held in texts], "output"
    return [bytes(held) for held in texts], ""


def _all(descriptor: int) -> bytes:
    said = b""
    while data := os.read(descriptor, 1 << 16):
        said += data
    return said


def _outcome(said: bytes, stdout: str, stderr: str) -> Outcome:
    """Of what the walls say. Raises `LabError` where they did not stand."""
    rows = [json.loads(line) for line in said.splitlines()]
    if refused := next(
        (row["refused"] for row in rows if "refused" in row), None if rows else stderr[-300:] or "no word"
    ):
        raise LabError(refused if refused.startswith("files: ") else f"{refused}; {_remedy()}")
    found = rows[0]
    if "why" in found:
        return Outcome(False, None, stdout, stderr, found["why"])
    status = found["exit"]
    if status < 0:
        return Outcome(False, None, stdout, stderr, "time" if -status == 24 else "signal")  # SIGXCPU
    return Outcome(status == 0, status, stdout, stderr, "" if status == 0 else "exit")


def _remedy() -> str:
    """What to do where namespaces are refused, by what the machine says of them."""
    switches = {
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "kernel.unprivileged_userns_clone=1"),
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        "/proc/sys/user/max_user_namespaces": ("0", "user.max_user_namespaces=10000"),
    }  # fmt: skip
    for path, (refuses, setting) in switches.items():
        if Path(path).is_file() and Path(path).read_text(encoding="utf-8").strip() == refuses:
            return f"have an administrator run `sysctl {setting}`"
    return "let this machine make user, mount and process namespaces (in a container: its seccomp profile and masked /proc forbid them)"
