"""Which system calls a sandboxed program is refused: a seccomp filter of classic BPF (seccomp(2), linux/filter.h).

Namespaces, a read-only root and no capabilities already stop what most of these do; they are refused too because each is a
part of the kernel that a test needs not and that holes were found in, or a kind of memory that no other limit counts.
"""

from __future__ import annotations

import platform
import struct

EPERM, ENOSYS, ESOCKTNOSUPPORT, EAFNOSUPPORT = 1, 38, 94, 97
NEW = 0x7E020080
"""CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET of linux/sched.h."""
FAMILIES = 1, 2, 10
"""AF_UNIX, AF_INET, AF_INET6, which a network namespace confines; AF_VSOCK it does not."""
STREAM = 1
"""SOCK_STREAM of linux/net.h. Queues of datagrams, and of connections that nobody accepts, hold any amount of the kernel's memory."""
SNDBUF = 1, 7
"""SOL_SOCKET, SO_SNDBUF of asm-generic/socket.h: many machines allow buffers of many megabytes, each the kernel's memory."""
SHARED_ANONYMOUS, HUGE = 0x21, 0x40000
"""MAP_SHARED with MAP_ANONYMOUS of linux/mman.h, whose pages stay when they are no more in any process' size; MAP_HUGETLB."""
X32 = 0x40000000
"""Bit of x86's other set of numbers, by which the same calls could be made."""

_NAMES = [
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_setup",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "listen",
    "lookup_dcookie",
    "memfd_create",
    "memfd_secret",
    "mount",
    "mount_setattr",
    "move_mount",
    "mq_open",
    "msgget",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "personality",
    "pidfd_getfd",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "semget",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "shmget",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
]
_COMMON = {
    "pidfd_getfd": 438, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435, "mount_setattr": 442,
    "quotactl_fd": 443, "memfd_secret": 447,
}  # fmt: skip
_X86 = {
    "clone": 56, "socket": 41, "socketpair": 53, "mmap": 9, "prlimit64": 302, "io_setup": 206, "listen": 50, "setsockopt": 54, "acct": 163, "add_key": 248, "adjtimex": 159, "bpf": 321, "chroot": 161, "clock_adjtime": 305,
    "clock_settime": 227, "delete_module": 176, "fanotify_init": 300, "finit_module": 313, "init_module": 175, "kcmp": 312,
    "kexec_file_load": 320, "kexec_load": 246, "keyctl": 250, "lookup_dcookie": 212, "memfd_create": 319, "mount": 165,
    "mq_open": 240, "msgget": 68, "name_to_handle_at": 303, "nfsservctl": 180, "open_by_handle_at": 304,
    "perf_event_open": 298, "personality": 135, "pivot_root": 155, "process_vm_readv": 310, "process_vm_writev": 311,
    "ptrace": 101, "quotactl": 179, "reboot": 169, "request_key": 249, "semget": 64, "setdomainname": 171,
    "sethostname": 170, "setns": 308, "settimeofday": 164, "shmget": 29, "swapoff": 168, "swapon": 167, "syslog": 103,
    "umount2": 166, "unshare": 272, "userfaultfd": 323, "vhangup": 153,
}  # fmt: skip
_ARM = {
    "clone": 220, "socket": 198, "socketpair": 199, "mmap": 222, "prlimit64": 261, "io_setup": 0, "listen": 201, "setsockopt": 208, "acct": 89, "add_key": 217, "adjtimex": 171, "bpf": 280, "chroot": 51, "clock_adjtime": 266,
    "clock_settime": 112, "delete_module": 106, "fanotify_init": 262, "finit_module": 273, "init_module": 105, "kcmp": 272,
    "kexec_file_load": 294, "kexec_load": 104, "keyctl": 219, "lookup_dcookie": 18, "memfd_create": 279, "mount": 40,
    "mq_open": 180, "msgget": 186, "name_to_handle_at": 264, "nfsservctl": 42, "open_by_handle_at": 265,
    "perf_event_open": 241, "personality": 92, "pivot_root": 41, "process_vm_readv": 270, "process_vm_writev": 271,
    "ptrace": 117, "quotactl": 60, "reboot": 142, "request_key": 218, "semget": 190, "setdomainname": 162,
    "sethostname": 161, "setns": 268, "settimeofday": 170, "shmget": 194, "swapoff": 225, "swapon": 224, "syslog": 116,
    "umount2": 39, "unshare": 97, "userfaultfd": 282, "vhangup": 58,
}  # fmt: skip
MACHINES = {"x86_64": (0xC000003E, _X86 | _COMMON), "aarch64": (0xC00000B7, _ARM | _COMMON)}
"""Machine → its AUDIT_ARCH of linux/audit.h and the numbers of the calls above (asm/unistd_64.h, asm-generic/unistd.h)."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_Row = tuple[int, int, int, int]
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _FIRST, _SECOND, _THIRD, _FOURTH = 0, 4, 16, 24, 32, 40
"""Offsets in struct seccomp_data: the call, the architecture, the low halves of arguments."""

_ALLOWED: _Row = (_RETURN, 0, 0, _ALLOW)


def filter_for(machine: str = "") -> bytes | None:
    """struct sock_filter after struct sock_filter, 8 bytes each; None for a machine whose numbers are not known here."""
    arch, numbers = MACHINES.get(machine or platform.machine(), (0, {}))
    if not arch:
        return None
    rows = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if arch == MACHINES["x86_64"][0]:
        rows += [(_AT_LEAST, 0, 1, X32), _error(ENOSYS)]
    for name in _NAMES:
        rows += [(_EQUAL, 0, 1, numbers[name]), _error(EPERM)]
    rows += [
        (_EQUAL, 0, 1, numbers["clone3"]),
        _error(ENOSYS),
    ]  # its flags lie in memory; the C library then uses clone
    rows += _where(numbers["clone"], [(_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, NEW), _error(EPERM)])
    rows += _where(numbers["prlimit64"], [(_LOAD, 0, 0, _FIRST), (_EQUAL, 1, 0, 0), _error(EPERM)])  # another's limits
    rows += _where(numbers["mmap"], [(_LOAD, 0, 0, _FOURTH), (_ANY_BIT, 2, 0, HUGE), (_AND, 0, 0, SHARED_ANONYMOUS), (_EQUAL, 0, 1, SHARED_ANONYMOUS), _error(EPERM)])  # fmt: skip
    family = [(_LOAD, 0, 0, _FIRST), *((_EQUAL, len(FAMILIES) - at, 0, one) for at, one in enumerate(FAMILIES)), _error(EAFNOSUPPORT)]  # fmt: skip
    kind = [(_LOAD, 0, 0, _SECOND), (_AND, 0, 0, 0xF), (_EQUAL, 1, 0, STREAM), _error(ESOCKTNOSUPPORT)]
    larger = [
        (_LOAD, 0, 0, _SECOND),
        (_EQUAL, 0, 3, SNDBUF[0]),
        (_LOAD, 0, 0, _THIRD),
        (_EQUAL, 0, 1, SNDBUF[1]),
        _error(EPERM),
    ]
    rows += _where(numbers["setsockopt"], larger)
    for name in ("socket", "socketpair"):
        rows += _where(numbers[name], [*family, *kind])
    rows.append(_ALLOWED)
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


def _where(call: int, rows: list[_Row]) -> list[_Row]:
    """The rows for one call, which is allowed where none of them returns."""
    return [(_EQUAL, 0, len(rows) + 1, call), *rows, _ALLOWED]


def _error(number: int) -> _Row:
    return _RETURN, 0, 0, _ERROR | number
