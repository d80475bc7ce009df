"""What stands between a program and the machine: run as a script, by `lablib.data.sandbox.outside` alone.

It reads what to run from its standard input, leaves for new namespaces, and there is three processes: this one, which only
waits; process 1 of the new process namespace, with whose end the kernel kills every other process in it; and the program.
It says what came of it as one line of JSON in the descriptor that it is told; a step that fails is a refusal, and the program
does not run. Nothing of the lab is imported: it has to begin quickly, and in a process that has no threads.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn

USER = 1000
"""The program's user and group in its namespace."""
NOBODY = 65534
"""The same outside, where root asks: files that only root may read stay closed to it."""
DESCRIPTORS = 64
"""Of a process: a socket's buffer is the kernel's memory, which no limit counts."""
TICK = 0.02
"""Seconds between looks at the memory that all its processes take."""
_NEW = 0x7E020000
"""CLONE_NEW* of linux/sched.h: mounts, control groups, host name, System V objects, users, processes, network."""
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_PIVOT_ROOT, _CAPSET = {"x86_64": (155, 126), "aarch64": (41, 91)}.get(os.uname().machine, (0, 0))
_MOUNT_SETATTR, _AT_FDCWD, _RECURSIVE = 442, -100, 0x8000
_PDEATHSIG, _DUMPABLE, _SECCOMP, _DROP, _NO_NEW_PRIVILEGES, _AMBIENT, _CLEAR = 1, 4, 22, 24, 38, 47, 4

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """A wall could not be put up."""


def _check(result: int, what: str) -> None:
    if result < 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None


def leave(root: bool) -> None:
    """Go into new namespaces, of which processes begun from now on are members. Of `root`'s users two are known there: root,
    for the walls, and `NOBODY` as `USER`, for the program; of any other user only that one."""
    if not root:
        user, group = os.getuid(), os.getgid()
        _check(libc.unshare(_NEW), "new namespaces")
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{USER} {user} 1")
        _write("/proc/self/gid_map", f"{USER} {group} 1")
        return
    pid, (ready, gone) = os.getpid(), os.pipe()
    helper = os.fork()
    if not helper:  # two users take a process that is still root outside
        os.close(gone)
        os.read(ready, 1)
        for name in ("uid_map", "gid_map"):
            _write(f"/proc/{pid}/{name}", f"0 0 1\n{USER} {NOBODY} 1\n")
        os._exit(0)
    _check(libc.unshare(_NEW), "new namespaces")
    os.close(gone)
    if os.waitpid(helper, 0)[1]:
        raise Refused("/proc/self/uid_map: root's users cannot be mapped")


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    texts = [text.encode() or None for text in (source, target, kind)]
    _check(libc.mount(*texts, ctypes.c_ulong(flags), data.encode() or None), f"mount of {target}")


def _bind(path: str, place: str = "", flags: int = _RDONLY | _NOSUID | _NODEV) -> None:
    """What lies at `path` outside, with all that is mounted below it."""
    place = place or path
    if os.path.isdir("/old" + path):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
    _mount("/old" + path, place, flags=_BIND | _REC)
    attributes = (ctypes.c_uint64 * 4)(flags)  # struct mount_attr
    done = libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, place.encode(), _RECURSIVE, attributes, ctypes.sizeof(attributes))
    _check(done, f"read-only mount of {path} (Linux 5.12 can)")


def build(job: dict[str, Any]) -> None:
    """A root of its own: system and interpreter to read, four devices, its own processes, and ``/tmp``, empty, in memory."""
    _mount("", "/", flags=_REC | _PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "size=1m,nr_inodes=4096,mode=755")
    os.mkdir("/tmp/old")
    _check(libc.syscall(_PIVOT_ROOT, b"/tmp", b"/tmp/old"), "pivot_root")
    os.chdir("/")
    os.mkdir("/tmp")
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, f"size={job['disk']},nr_inodes=4096,mode=1777")
    for path in job["paths"]:
        _bind(path)
    for path, target in job["links"].items():
        os.symlink(target, path)
    for name in ("null", "full", "random", "urandom"):  # a shared mapping of zero is memory of no process
        _bind(f"/dev/{name}", flags=_RDONLY | _NOSUID | _NOEXEC)  # devices are written all the same
    for path, target in {"/dev/shm": "/tmp", "/dev/fd": "/proc/self/fd"}.items():
        os.symlink(target, path)
    os.makedirs("/etc", exist_ok=True)
    _write("/etc/passwd", f"sandbox:x:{USER}:{USER}::/tmp:/bin/sh\n")
    os.makedirs("/proc")
    _mount("proc", "/proc", "proc", _RDONLY | _NOSUID | _NODEV | _NOEXEC, "hidepid=2")
    _check(libc.umount2(b"/old", 2), "leaving the old root")
    os.rmdir("/old")
    _mount("", "/", flags=_REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    _check(libc.sethostname(b"sandbox", 7), "sethostname")


def begin(job: dict[str, Any], root: bool) -> NoReturn:
    """Become the program: under limits, without any privilege."""
    os.setsid()
    cpu = math.ceil(job["seconds"]) + 1
    for limit, most in (
        (resource.RLIMIT_AS, job["memory"]), (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_NPROC, job["processes"]),
        (resource.RLIMIT_FSIZE, job["disk"]), (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_CORE, 1),  # 0 would still start the machine's handler of cores
    ):  # fmt: skip
        own = resource.getrlimit(limit)[1]
        most = most if own == resource.RLIM_INFINITY else min(most, own)
        resource.setrlimit(limit, (most, most))
    capability = 0
    while not libc.prctl(_DROP, capability, 0, 0, 0):
        capability += 1
    if capability < 32:
        raise Refused("capabilities cannot be dropped")
    _check(libc.prctl(_AMBIENT, _CLEAR, 0, 0, 0), "ambient capabilities")
    if root:
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    none = (ctypes.c_uint32 * 6)()
    _check(libc.syscall(_CAPSET, (ctypes.c_uint32 * 2)(0x20080522, 0), none), "capset")
    _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
    os.chdir("/tmp")
    for name, text in {**job["files"], "program.py": job["program"]}.items():
        try:
            os.makedirs(os.path.dirname(f"/tmp/{name}"), exist_ok=True)
            with open(f"/tmp/{name}", "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
                file.write(text)
        except (OSError, UnicodeError) as error:
            raise Refused(f"files: {name!r}: {getattr(error, 'strerror', None) or 'no name of a file'}") from None
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    code = bytes.fromhex(job["calls"])
    rules = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    told = Program(len(code) // 8, ctypes.addressof(rules))
    _check(libc.prctl(_SECCOMP, 2, ctypes.byref(told), 0, 0), "seccomp filter")
    os.execve(job["python"], [job["python"], "-s", "-S", "/tmp/program.py"], job["environment"])


def taken() -> tuple[int, int]:
    """Bytes that all processes beside this one hold, swapped ones too, with their files; and how many threads they have."""
    disk = os.statvfs("/tmp")
    total, threads = (disk.f_blocks - disk.f_bfree) * disk.f_frsize, 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or name == "1":
            continue
        try:
            with open(f"/proc/{name}/status", "rb") as file:
                told = dict(line.split(b":", 1) for line in file)
        except OSError:
            continue
        total += sum(int(told[field].split()[0]) << 10 for field in (b"VmRSS", b"VmSwap") if field in told)
        threads += int(told[b"Threads"])
    return total, threads


def guard(program: int, job: dict[str, Any], life: int) -> dict[str, Any]:
    """Wait for the program's end, or the end of what it may take; nobody waits any more where `life` ends."""
    until = time.monotonic() + job["seconds"]
    poll = select.poll()
    poll.register(life)
    poll.register(os.pidfd_open(program), select.POLLIN)
    while True:
        left = until - time.monotonic()
        events = poll.poll(1000 * max(0.0, min(TICK, left)))
        if any(descriptor == life for descriptor, _ in events):
            os._exit(1)
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == program:
                return {"exit": os.waitstatus_to_exitcode(ended[1])}
        if left <= 0:
            return {"why": "time"}
        held, threads = taken()
        if held > job["memory"]:
            return {"why": "memory"}
        if threads > job["processes"]:  # the kernel's own limit does not hold for root
            return {"why": "processes"}


def _first(job: dict[str, Any], root: bool, life: int, told: int) -> NoReturn:
    """Process 1 of the namespace."""
    libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    build(job)
    program = os.fork()
    if not program:
        _attempt(lambda: begin(job, root), told)
    os.write(told, json.dumps(guard(program, job, life)).encode() + b"\n")
    os._exit(0)


def _attempt(step: Any, told: int) -> NoReturn:
    """Take a step that does not come back, or say why it could not be taken."""
    try:
        step()
    except BaseException as error:
        os.write(told, json.dumps({"refused": str(error) or type(error).__name__}).encode() + b"\n")
    os._exit(1)


def main(life: int, told: int) -> NoReturn:
    """Read the job, go in, and wait."""
    for descriptor in (life, told):
        os.set_inheritable(descriptor, False)
    os.umask(0o022)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # process 1 is then deaf to all that the program could send
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    job = json.loads(sys.stdin.buffer.read())
    _write("/proc/self/oom_score_adj", "1000")
    leave(job["root"])
    _check(libc.prctl(_DUMPABLE, 0, 0, 0, 0), "dumpable")  # what stands of this in /proc is then root's
    first = os.fork()
    if not first:
        _attempt(lambda: _first(job, job["root"], life, told), told)
    os.close(told)
    os.waitpid(first, 0)
    os._exit(0)


if __name__ == "__main__":
    _attempt(lambda: main(int(sys.argv[1]), int(sys.argv[2])), int(sys.argv[2]))
