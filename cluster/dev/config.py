"""What the development Slurm is made of, and the configuration files that say so. Pure text, no processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MARK = "# llm-lab dev slurm"
"""Ends, with the folder's path, the lines that nodes' names need in /etc/hosts; what carries it is ours to remove."""
KILL_WAIT = 5
"""Seconds between SIGTERM and SIGKILL of a cancelled job."""
CREDENTIAL = KILL_WAIT + 5
"""Seconds that a job's credential lasts. A requeued job waits that long; one that is shorter than `KILL_WAIT` and a few
seconds has it start beside its dying self, and Slurm drains the node ("Duplicate jobid")."""


@dataclass(frozen=True)
class Shape:
    """How many nodes there are, and what each pretends to have."""

    nodes: int = 4
    cpus: int = 8
    memory_mib: int = 16_000
    gpus: int = 0
    cgroups: bool = False
    """Real memory and device limits through cgroup v1."""
    accounting: bool = True
    port: int = 26800
    """First of the ports: 6 database, 17 controller, 19 accounting, 21 and on one a node."""

    @property
    def names(self) -> list[str]:
        """The nodes."""
        return [f"lab{number}" for number in range(1, self.nodes + 1)]


def slurm_conf(folder: Path, host: str, shape: Shape) -> str:
    """slurm.conf: quick reactions, requeue by default, preemption of two partitions by a third."""
    socket, last, port = folder / "run/munge.sock", shape.nodes, shape.port
    gpus = f" Gres=gpu:h100:{shape.gpus}" if shape.gpus else ""
    return f"""\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port + 17}
AuthType=auth/munge
AuthInfo=socket={socket},cred_expire={CREDENTIAL}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.own.pid
SlurmdPidFile={folder}/run/slurmd-%n.own.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
{_tracking(shape)}
JobAcctGatherFrequency=task=1
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SlurmdTimeout=15
SlurmctldTimeout=30
KillWait={KILL_WAIT}
MinJobAge=600
MaxArraySize=64
ReturnToService=1
JobRequeue=1
RebootProgram=/bin/true
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
{"GresTypes=gpu" if shape.gpus else ""}
{_accounting(folder, shape)}
JobCompType=jobcomp/none
NodeName=lab[1-{last}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{port + 21}-{port + 20 + last}] CPUs={shape.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={shape.cpus} ThreadsPerCore=1 RealMemory={shape.memory_mib} TmpDisk=0{gpus} State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES PriorityTier=10 DefaultTime=10 MaxTime=1-00:00:00 State=UP PreemptMode=OFF
PartitionName=short Nodes=ALL Default=NO PriorityTier=10 DefaultTime=2 MaxTime=5 MaxNodes=2 State=UP PreemptMode=OFF
PartitionName=scav Nodes=ALL Default=NO PriorityTier=1 DefaultTime=10 MaxTime=1-00:00:00 State=UP PreemptMode=REQUEUE GraceTime=20
PartitionName=scav-now Nodes=ALL Default=NO PriorityTier=1 DefaultTime=10 MaxTime=1-00:00:00 State=UP PreemptMode=REQUEUE GraceTime=0
"""


def _tracking(shape: Shape) -> str:
    kind = "cgroup" if shape.cgroups else "pgid"
    gather = "jobacct_gather/cgroup" if shape.cgroups else "jobacct_gather/linux\nJobAcctGatherParams=OverMemoryKill"
    return f"ProctrackType=proctrack/{kind}\nTaskPlugin=task/{'cgroup' if shape.cgroups else 'none'}\nJobAcctGatherType={gather}"


def _accounting(folder: Path, shape: Shape) -> str:
    if not shape.accounting:
        return "AccountingStorageType=accounting_storage/none"
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={shape.port + 19}
AccountingStoragePass={folder}/run/munge.sock
AccountingStorageTRES=gres/gpu"""


def cgroup_conf() -> str:
    """cgroup.conf for version 1, which Slurm 22.05 knows."""
    return "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint=/sys/fs/cgroup\nConstrainRAMSpace=yes\nConstrainSwapSpace=no\nConstrainDevices=yes\nConstrainCores=no\n"


def gres_conf(folder: Path, shape: Shape) -> str:
    """gres.conf that takes device files of our own for GPUs; empty without."""
    return f"AutoDetect=off\nName=gpu Type=h100 File={folder}/dev/nvidia[0-{shape.gpus - 1}]\n" if shape.gpus else ""


def slurmdbd_conf(folder: Path, shape: Shape) -> str:
    """slurmdbd.conf on a database of its own, reached through loopback only."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={shape.port + 19}
SlurmUser=root
PidFile={folder}/run/slurmdbd.own.pid
LogFile={folder}/log/slurmdbd.log
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={shape.port + 6}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CommitDelay=0
"""
