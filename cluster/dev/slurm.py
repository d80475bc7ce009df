"""`DevSlurm`: munge, controller, several node daemons and accounting on this machine, in a folder and on ports of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from cluster.dev import config
from cluster.dev.config import Shape
from cluster.dev.daemons import Daemons
from lablib.specs import LabError, write_atomic
from lablib.specs.paths import home

PACKAGES = "slurmctld slurmd slurm-client munge"
ACCOUNTING = "slurmdbd slurm-wlm-mysql-plugin mariadb-server"
HOSTS = Path("/etc/hosts")
DEFAULT = Path("/etc/slurm/slurm.conf")
"""Where Slurm's commands look without $SLURM_CONF, as jobs that submit jobs do."""
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_DATABASE_USERS = """create database if not exists slurm_acct_db;
create user if not exists 'slurm'@'127.0.0.1' identified by 'slurm'; create user if not exists 'slurm'@'localhost' identified by 'slurm';
grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1'; grant all on slurm_acct_db.* to 'slurm'@'localhost';"""


def missing(accounting: bool = True) -> str:
    """Why no development Slurm can run here; empty where it can."""
    programs = ["slurmctld", "slurmd", "sbatch", "munged", *(["slurmdbd", "mariadbd"] if accounting else [])]
    absent = [name for name in programs if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"{', '.join(absent)} not installed; on Debian: apt-get install --no-install-recommends {PACKAGES} {ACCOUNTING}"  # fmt: skip
    return "" if os.geteuid() == 0 else "its daemons start as root"


class DevSlurm:
    """The Slurm of one folder. `up` and `down` may be called at any time, any number of times."""

    def __init__(self, folder: Path | None = None, shape: Shape | None = None) -> None:
        """`folder` keeps everything of it (``~/.cache/llm-lab/dev-slurm``); `shape` is the one it has, or the default."""
        self.folder = (folder or home() / "dev-slurm").absolute()
        self.shape = shape or self._kept or Shape()
        self.conf = self.folder / "etc" / "slurm.conf"
        self._daemons = Daemons(self.folder, {**os.environ, "PATH": _PATH, "SLURM_CONF": str(self.conf)})

    @property
    def _kept(self) -> Shape | None:
        """The shape that the folder was set up with."""
        kept = self.folder / "shape.json"
        return Shape(**json.loads(kept.read_text())) if kept.is_file() else None

    def up(self) -> None:
        """Start what does not run. Raises `LabError` where Slurm is not installed or a daemon does not come up."""
        reason = missing(self.shape.accounting)
        if reason:
            raise LabError(f"no development Slurm here: {reason}")
        if any(letter.isspace() for letter in str(self.folder)):
            raise LabError(f"folder={str(self.folder)!r}: slurm.conf takes no spaces in paths; choose another folder")
        if self._kept not in (None, self.shape) and self.running:
            raise LabError(f"it runs with another shape, {self._kept}; end it first (down), or leave the options out")
        for name in ("etc", "state", "spool", "log", "run", "dev", "db"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._start_munge()
        self._configure()
        if self.shape.accounting:
            self._start_accounting()
        self.start_controller()
        for node in self.shape.names:
            self.start_node(node)
        self._daemons.wait_for("slurmd", self._all_up, 60)

    def down(self, wipe: bool = False) -> None:
        """End its jobs and daemons and take its lines out of the system's files; `wipe` removes its folder too."""
        if self._daemons.alive("slurmctld"):
            self._try("scancel", "-u", "root", "--full")
            self._wait_for_the_end_of_jobs()
        ours = self._daemons.names()
        last = ["slurmctld", "slurmdbd", "mariadbd", "munged"]
        for name in [*(name for name in ours if name not in last), *(name for name in last if name in ours)]:
            self._daemons.kill(name)
        self._name_nodes([])
        if self.shape.cgroups:
            _remove_cgroups(self.shape.names)
        if DEFAULT.is_symlink() and DEFAULT.readlink() == self.conf:
            DEFAULT.unlink()
        if wipe:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether its controller answers."""
        return self._daemons.alive("slurmctld") and "UP" in self._try("scontrol", "ping")

    def status(self) -> str:
        """Nodes and partitions as sinfo shows them; one line that says so where it is down."""
        return self._try("sinfo", "-o", "%P %D %t %G %c %m") if self.running else f"down ({self.folder})"

    def kill_node(self, name: str) -> None:
        """End a node without a word, its jobs' processes included: what a power cut looks like to the controller."""
        tasks = _processes_of(name)
        self._daemons.kill(f"slurmd-{name}", signal.SIGKILL)
        for pid in [*_step_daemons(tasks), *tasks]:
            _kill(pid)

    def start_node(self, name: str) -> None:
        """Start a node's daemon."""
        (self.folder / "spool" / name).mkdir(exist_ok=True)
        self._daemons.start(f"slurmd-{name}", "slurmd", "-D", "-N", name)

    def stop_controller(self) -> None:
        """End the controller, as its machine's restart would."""
        self._daemons.kill("slurmctld")

    def start_controller(self) -> None:
        """Start the controller and wait until it answers."""
        self._daemons.start("slurmctld", "slurmctld", "-D", "-i")
        self._daemons.wait_for("slurmctld", lambda: "UP" in self._try("scontrol", "ping"))

    def _start_munge(self) -> None:
        key, run = self.folder / "etc" / "munge.key", self.folder / "run"
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        files = {"key-file": key, "socket": run / "munge.sock", "pid-file": run / "munged.own.pid", "seed-file": run / "munged.seed",
                 "log-file": self.folder / "log" / "munged.log"}  # fmt: skip
        self._daemons.start("munged", "munged", "--foreground", "--force", *(f"--{k}={v}" for k, v in files.items()))
        self._daemons.wait_for("munged", lambda: bool(self._try("munge", "-n", "-S", str(run / "munge.sock"))))

    def _configure(self) -> None:
        etc, shape = self.folder / "etc", self.shape
        write_atomic(self.folder / "shape.json", json.dumps(asdict(shape)))
        write_atomic(self.conf, config.slurm_conf(self.folder, socket.gethostname().partition(".")[0], shape))
        write_atomic(etc / "gres.conf", config.gres_conf(self.folder, shape))
        (etc / "cgroup.conf").unlink(missing_ok=True)
        if shape.cgroups:
            write_atomic(etc / "cgroup.conf", config.cgroup_conf())
        for number in range(shape.gpus):
            device = self.folder / "dev" / f"nvidia{number}"
            if not device.exists():
                os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(195, number))
        self._name_nodes(shape.names)
        if not DEFAULT.exists():
            DEFAULT.parent.mkdir(parents=True, exist_ok=True)
            DEFAULT.unlink(missing_ok=True)  # a link to nowhere
            DEFAULT.symlink_to(self.conf)

    def _name_nodes(self, names: list[str]) -> None:
        """Nodes' names must resolve (MASTER_ADDR is one). Each folder has lines of its own, for several Slurms may be up."""
        mark = f"{config.MARK} {self.folder}"
        with HOSTS.open("r+", encoding="utf-8") as file:  # in place, for containers mount this file
            fcntl.flock(file, fcntl.LOCK_EX)
            before = file.read()
            kept = [line for line in before.splitlines() if not line.endswith(mark)]
            after = "\n".join([*kept, *(f"127.0.0.1 {name} {mark}" for name in names)]) + "\n"
            if after != before:
                file.seek(0)
                file.write(after)
                file.truncate()

    def _start_accounting(self) -> None:
        data, run = self.folder / "db", self.folder / "run"
        if not (data / "mysql").is_dir():
            self._run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}",
                      "--auth-root-authentication-method=normal", "--skip-test-db")  # fmt: skip
        self._daemons.start("mariadbd", "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={run}/mysqld.sock",
                            f"--pid-file={run}/mariadbd.own.pid", "--bind-address=127.0.0.1", f"--port={self.shape.port + 6}",
                            "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900",
                            "--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF")  # fmt: skip
        client = ("mariadb", "--no-defaults", "-uroot", "-S", f"{run}/mysqld.sock", "-e")
        self._daemons.wait_for("mariadbd", lambda: bool(self._try(*client, "select 1")))
        self._run(*client, _DATABASE_USERS)
        secret = self.folder / "etc" / "slurmdbd.conf"
        secret.touch(0o600)
        secret.write_text(config.slurmdbd_conf(self.folder, self.shape))
        secret.chmod(0o600)
        self._daemons.start("slurmdbd", "slurmdbd", "-D")
        self._daemons.wait_for("slurmdbd", self._accounts, 60)
        if not self._try("sacctmgr", "-n", "-P", "show", "cluster", "lab").strip():
            self._run("sacctmgr", "-i", "add", "cluster", "lab")

    def _accounts(self) -> bool:
        return self._done("sacctmgr", "-n", "-i", "show", "cluster").returncode == 0

    def _all_up(self) -> bool:
        return (
            len(self._try("sinfo", "-h", "-N", "-p", "gpu", "-t", "idle,alloc,mix", "-o", "%N").split())
            == self.shape.nodes
        )

    def _wait_for_the_end_of_jobs(self) -> None:
        end = time.monotonic() + 3 * config.KILL_WAIT
        while self._try("squeue", "-h", "-t", "CG,R", "-o", "%i").strip() and time.monotonic() < end:
            time.sleep(0.1)

    def _done(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(self.conf)}
        return subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment, check=False)

    def _try(self, *words: str) -> str:
        """What a command printed; nothing where it failed."""
        try:
            done = self._done(*words)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout if done.returncode == 0 else ""

    def _run(self, *words: str) -> None:
        done = self._done(*words)
        if done.returncode:
            raise LabError(f"{words[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")


def _remove_cgroups(nodes: list[str]) -> None:
    """Folders that slurmd made for its jobs; those of another Slurm's live jobs are not empty and stay."""
    for node in nodes:
        for top in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}"):
            for folder in [*sorted(top.rglob("*/"), reverse=True), top]:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _processes_of(node: str) -> list[int]:
    """Pids that Slurm started on a node, by their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"SLURMD_NODENAME={node}".encode() in words:
            found.append(int(process.name))
    return found


def _step_daemons(tasks: list[int]) -> set[int]:
    """The slurmstepd processes above them, which would report the tasks' end."""
    parents = set()
    for pid in tasks:
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if b"slurmstepd" in Path(f"/proc/{parent}/cmdline").read_bytes():
                parents.add(parent)
        except OSError:
            continue
    return parents


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
