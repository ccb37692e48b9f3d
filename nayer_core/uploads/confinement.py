"""Remove from this process, permanently, every right that parsing a file does not need.

Two layers always hold: resource limits, and seccomp with a list of the few system calls that are allowed. Two
more hold if kernel and container allow it: Landlock (no path can be opened) and a network namespace of its
own. Works as root, who becomes `nobody`, and as any other user.

Linux on x86-64 and arm64. Uses ctypes alone, because Python packages for this need extra C libraries.
"""

import ctypes
import errno
import os
import platform
import resource
from dataclasses import dataclass

NOBODY = 65534

_PR_SET_DUMPABLE, _PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 1, 22, 38
_SIGKILL, _SECCOMP_MODE_FILTER = 9, 2
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same on every architecture

# The calls of a parser: read its file, manage memory, write its answer, end.
_CALLS_X86_64 = {
    **{"read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11},
    **{"brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "writev": 20},
    **{"sched_yield": 24, "mremap": 25, "madvise": 28, "getpid": 39, "exit": 60, "gettimeofday": 96},
    **{"getrusage": 98, "sigaltstack": 131, "gettid": 186, "futex": 202, "sched_getaffinity": 204},
    **{"restart_syscall": 219, "fadvise64": 221, "clock_gettime": 228, "exit_group": 231},
    **{"newfstatat": 262, "getcpu": 309, "getrandom": 318, "membarrier": 324},
}
_CALLS_AARCH64 = {
    **{"read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62, "mmap": 222, "mprotect": 226},
    **{"munmap": 215, "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139},
    **{"pread64": 67, "writev": 66, "sched_yield": 124, "mremap": 216, "madvise": 233, "getpid": 172},
    **{"exit": 93, "gettimeofday": 169, "getrusage": 165, "sigaltstack": 132, "gettid": 178, "futex": 98},
    **{"sched_getaffinity": 123, "restart_syscall": 128, "fadvise64": 223, "clock_gettime": 113},
    **{"exit_group": 94, "newfstatat": 79, "getcpu": 168, "getrandom": 278, "membarrier": 283},
}
_MACHINES = {  # uname -m -> (AUDIT_ARCH of linux/audit.h, numbers of the calls)
    "x86_64": (0xC000003E, _CALLS_X86_64),
    "aarch64": (0xC00000B7, _CALLS_AARCH64),
}


@dataclass(frozen=True)
class ParseLimits:
    """Resources that one parse may use.

    Args:
        memory_bytes: address space in addition to the process's own when it is confined.
        cpu_seconds: of CPU time; then the kernel kills.
        output_bytes: size of the one file it may write to.
    """

    memory_bytes: int
    cpu_seconds: int
    output_bytes: int


def confine(limits: ParseLimits) -> list[str]:
    """Confine this process. This cannot be undone.

    All later imports and files must be loaded and open already; threads cannot be started.

    Returns:
        Names of the layers that this machine does not offer.

    Raises:
        OSError: a required layer could not be set up.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    missing = [] if _leave_network(libc) else ["a network namespace"]
    if not _become_nobody():
        missing.append("another user to become")
    _limit(limits)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_PDEATHSIG, _SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        _checked(libc.prctl(option, value, 0, 0, 0))
    if not _close_file_system(libc):
        missing.append("Landlock")
    _filter_system_calls(libc)
    return missing


def _leave_network(libc: ctypes.CDLL) -> bool:
    alone = _CLONE_NEWNET | _CLONE_NEWIPC
    return bool(libc.unshare(alone) == 0 or libc.unshare(alone | _CLONE_NEWUSER) == 0)


def _become_nobody() -> bool:
    """Give up root; false if root may not, as in a container without capabilities."""
    if os.geteuid() != 0:
        return True
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except PermissionError:
        return False
    return True


def _limit(limits: ParseLimits) -> None:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - read just before paths are gone
        has = int(statm.read().split()[0]) * resource.getpagesize()
    for what, value in (
        (resource.RLIMIT_AS, has + limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.output_bytes),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(what)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        # The soft limit sends SIGXCPU, which distinguishes time from memory; the hard limit kills.
        hard = value + 1 if what == resource.RLIMIT_CPU and most == resource.RLIM_INFINITY else value
        resource.setrlimit(what, (value, hard))


class _LandlockRuleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def _close_file_system(libc: ctypes.CDLL) -> bool:
    """Restrict every right that this kernel's Landlock supports, and grant none."""
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)  # bits of LANDLOCK_ACCESS_FS_*
    ruleset = _LandlockRuleset((1 << rights) - 1, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    known_bytes = 8 * (1 + (version >= 4) + (version >= 6))
    descriptor = libc.syscall(
        _LANDLOCK_CREATE, ctypes.byref(ruleset), ctypes.c_size_t(known_bytes), ctypes.c_uint32(0)
    )
    if descriptor < 0:
        return False
    is_restricted = libc.syscall(_LANDLOCK_RESTRICT, ctypes.c_int(descriptor), ctypes.c_uint32(0)) == 0
    os.close(descriptor)
    return bool(is_restricted)


class _Instruction(ctypes.Structure):  # struct sock_filter
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("yes", ctypes.c_uint8),
        ("no", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _FilterProgram(ctypes.Structure):  # struct sock_fprog
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def _filter_system_calls(libc: ctypes.CDLL) -> None:
    """Allow the listed calls; answer all others with EPERM; kill on another architecture."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(
            errno.ENOSYS, f"no list of system calls for {machine}; there is one for {list(_MACHINES)}"
        )
    architecture, calls = _MACHINES[machine]
    load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    kill, refuse, allow = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000
    numbers = sorted(calls.values())
    program = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 1, 0, architecture),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),  # seccomp_data.nr
        *((equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)),
        (answer, 0, 0, refuse),
        (answer, 0, 0, allow),
    ]
    instructions = (_Instruction * len(program))(*(_Instruction(*line) for line in program))
    argument = ctypes.byref(_FilterProgram(len(program), instructions))
    _checked(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, argument, 0, 0))


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
