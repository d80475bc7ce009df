"""Which system calls a sandboxed program is refused: a seccomp filter of classic BPF (seccomp(2), linux/filter.h).

Namespaces, a read-only root and no capabilities already stop what most of these do; they are refused too because each is a
part of the kernel that a test needs not and that holes were found in, or a kind of memory that no other limit counts.
"""

from __future__ import annotations

import platform
import struct

EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
NEW = 0x7E020080
"""CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET of linux/sched.h."""
FAMILIES = 1, 2, 10
"""AF_UNIX, AF_INET, AF_INET6, which a network namespace confines; AF_VSOCK it does not."""
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
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
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
    "clone": 56, "socket": 41, "acct": 163, "add_key": 248, "adjtimex": 159, "bpf": 321, "chroot": 161, "clock_adjtime": 305,
    "clock_settime": 227, "delete_module": 176, "fanotify_init": 300, "finit_module": 313, "init_module": 175, "kcmp": 312,
    "kexec_file_load": 320, "kexec_load": 246, "keyctl": 250, "lookup_dcookie": 212, "memfd_create": 319, "mount": 165,
    "mq_open": 240, "msgget": 68, "name_to_handle_at": 303, "nfsservctl": 180, "open_by_handle_at": 304,
    "perf_event_open": 298, "personality": 135, "pivot_root": 155, "process_vm_readv": 310, "process_vm_writev": 311,
    "ptrace": 101, "quotactl": 179, "reboot": 169, "request_key": 249, "semget": 64, "setdomainname": 171,
    "sethostname": 170, "setns": 308, "settimeofday": 164, "shmget": 29, "swapoff": 168, "swapon": 167, "syslog": 103,
    "umount2": 166, "unshare": 272, "userfaultfd": 323, "vhangup": 153,
}  # fmt: skip
_ARM = {
    "clone": 220, "socket": 198, "acct": 89, "add_key": 217, "adjtimex": 171, "bpf": 280, "chroot": 51, "clock_adjtime": 266,
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

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _FIRST = 0, 4, 16
"""Offsets in struct seccomp_data: the call, the architecture, the low half of the first argument."""


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
    rows += [(_EQUAL, 0, 4, numbers["clone"]), (_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, NEW), _error(EPERM), (_RETURN, 0, 0, _ALLOW)]  # fmt: skip
    rows += [(_EQUAL, 0, 5, numbers["socket"]), (_LOAD, 0, 0, _FIRST)]
    rows += [(_EQUAL, len(FAMILIES) - at, 0, family) for at, family in enumerate(FAMILIES)]
    rows += [_error(EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


def _error(number: int) -> tuple[int, int, int, int]:
    return _RETURN, 0, 0, _ERROR | number
