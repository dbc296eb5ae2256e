"""Confines a check to computing and writing to its own folder. Part of the fork server's script.

It uses two locks of the Linux kernel, both without privileges and both irrevocable for the process that enters them:
Landlock (Linux 5.13) limits which files can be opened, seccomp (Linux 3.5) which system calls can be made. System
calls are allowed by a list of what Lean needs, so that a call nobody thought of is refused too. `Confinement.missing`
names what the machine lacks.

Layouts and numbers are those of ``linux/landlock.h``, ``linux/seccomp.h`` and the x86-64 system call table.
"""

import ctypes
import errno
import fcntl
import os
import platform
import socket
import struct
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1

_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = (1 << bit for bit in (1, 2, 3, 5, 8, 14))
_CONNECTIONS, _SCOPES = 3, 3
_RIGHTS_BY_VERSION = (0, 13, 14, 15, 15, 16)
"""Number of file access rights that each version of Landlock knows; all known ones are taken away."""

CALLS = {
    **{"futex": 202, "mmap": 9, "mprotect": 10, "munmap": 11, "mremap": 25, "madvise": 28, "brk": 12},
    **{"read": 0, "write": 1, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "lseek": 8, "close": 3},
    **{"openat": 257, "fstat": 5, "newfstatat": 262, "statx": 332, "readlink": 89, "getcwd": 79, "access": 21},
    **{"rename": 82, "unlink": 87, "ftruncate": 77, "fcntl": 72, "pipe2": 293, "ioctl": 16},
    **{"rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sigaltstack": 131, "tgkill": 234},
    **{"getpid": 39, "gettid": 186, "getuid": 102, "geteuid": 107, "uname": 63, "sysinfo": 99, "getrusage": 98},
    **{"clone": 56, "exit": 60, "exit_group": 231, "set_robust_list": 273, "rseq": 334, "set_tid_address": 218},
    **{"sched_yield": 24, "sched_getaffinity": 204, "getcpu": 309, "nanosleep": 35, "clock_nanosleep": 230},
    **{"clock_gettime": 228, "gettimeofday": 96, "getrandom": 318, "prlimit64": 302, "poll": 7},
    **{"epoll_wait": 232, "epoll_pwait": 281, "epoll_ctl": 233},
}
"""The system calls Lean makes, with their numbers; some are allowed only with harmless arguments (`_filter`)."""

_CLONE3 = 435
# The commands of fcntl that are left out include the one that has signals sent to another process.
_GET_DESCRIPTOR_FLAGS, _SET_DESCRIPTOR_FLAGS, _GET_FLAGS, _DUPLICATE_CLOSING = 1, 2, 3, 1030
_CLONE_THREAD, _PROT_EXEC, _TCGETS = 0x10000, 4, 0x5401
_X86_64 = 0xC000003E
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_OWN_PID = 0x5AFE_C0DE
"""Placeholder for the process's own id in the filter, replaced once there is a process."""
_LOAD, _AND, _IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

_MOST_DESCRIPTORS = 1 << 16
_NO_LANDLOCK = "no Landlock: a check could read and write files outside its folder"

_Instruction = tuple[int, int, int, int]
"""A step of the filter: code, how many steps to skip if true and if false, operand."""


class Confinement:
    """The locks this machine offers, prepared once so that each fork only has to enter them.

    Args:
        readable: folders that a check may read besides its own.
        writable: the check's own folder.

    Attributes:
        missing: descriptions of what the machine does not offer; empty where both locks work.
    """

    def __init__(self, readable: list[str], writable: str) -> None:
        self.missing: list[str] = []
        # Packing takes longer than entering the lock, and only one of the steps depends on the process.
        self._code = b"".join(struct.pack("HBBI", *step) for step in _filter(_OWN_PID))
        self._pid_place = self._code.index(struct.pack("I", _OWN_PID))
        self._rules = self._landlock(readable, writable)
        self._seccomp = platform.machine() == "x86_64" and _works(self._turn_seccomp)
        if not self._seccomp:
            self.missing.append("no seccomp: a check could start programs and open connections")
        if self._rules >= 0 and not _works(self._turn_landlock):
            self._rules = -1
            self.missing.append(_NO_LANDLOCK)

    def enter(self) -> None:
        """Enter both locks in this process, a fork; this cannot be undone.

        Raises:
            OSError: if the kernel refuses a lock that it offered.
        """
        if self._rules >= 0:
            self._turn_landlock()
        # All other descriptors belong to the fork server: its pipes, and what its copy of Lean has opened.
        os.closerange(3, _MOST_DESCRIPTORS)
        if self._seccomp:
            self._turn_seccomp()

    def _turn_landlock(self) -> None:
        _require(LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
        _require(LIBC.syscall(_RESTRICT_SELF, self._rules, 0), "Landlock")

    def _turn_seccomp(self) -> None:
        _require(LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
        held = ctypes.create_string_buffer(self._code, len(self._code))
        struct.pack_into("I", held, self._pid_place, os.getpid())
        program = struct.pack("HxxxxxxQ", len(self._code) // 8, ctypes.addressof(held))
        _require(LIBC.prctl(_SET_SECCOMP, _FILTER_MODE, program, 0, 0), "seccomp")

    def _landlock(self, readable: list[str], writable: str) -> int:
        version = LIBC.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
        if version < 1:
            self.missing.append(_NO_LANDLOCK)
            return -1
        known = (1 << _RIGHTS_BY_VERSION[min(version, 5)]) - 1
        # Later versions also restrict connections (4) and signals and sockets beyond the process's own domain (6).
        more = (_CONNECTIONS if version >= 4 else 0, _SCOPES if version >= 6 else 0)
        taken = struct.pack("QQQ", known, *more)[: 24 if version >= 6 else 16 if version >= 4 else 8]
        rules = LIBC.syscall(_CREATE_RULESET, taken, len(taken), 0)
        _require(rules if rules < 0 else 0, "Landlock")
        own = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
        for folder, rights in (*((each, _READ_FILE | _READ_DIR) for each in readable), (writable, own)):
            place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", rights & known, place)
            _require(LIBC.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0), f"Landlock for {folder}")
            os.close(place)
        return rules


def _works(lock: Callable[[], None]) -> bool:
    """Whether a lock can be entered, tried in a process of its own: containers may forbid what the kernel offers."""
    pid = os.fork()
    if pid == 0:
        try:
            lock()
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _require(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what} cannot be turned on")


def _filter(pid: int) -> list[_Instruction]:
    """The decision for every system call, as a classic BPF program: what is not listed fails with EPERM.

    New processes are refused, new threads are allowed: ``clone`` shows its flags; ``clone3`` passes them through a
    pointer and fails as if the kernel did not have it, so that the C library falls back. Memory cannot be made
    executable, so no library can be loaded. Signals can go to the process itself only (``abort``), no descriptor can
    be told to send one elsewhere, and limits cannot be set for other processes.
    """
    harmless = {
        "clone": (_argument(0), (_AND, 0, 0, _CLONE_THREAD), (_IF_EQUAL, 0, 1, _CLONE_THREAD)),
        "mmap": (_argument(2), (_AND, 0, 0, _PROT_EXEC), (_IF_EQUAL, 0, 1, 0)),
        "mprotect": (_argument(2), (_AND, 0, 0, _PROT_EXEC), (_IF_EQUAL, 0, 1, 0)),
        "ioctl": (_argument(1), (_IF_EQUAL, 0, 1, _TCGETS)),
        "fcntl": _one_of(1, (_GET_FLAGS, _GET_DESCRIPTOR_FLAGS, _SET_DESCRIPTOR_FLAGS, _DUPLICATE_CLOSING)),
        "tgkill": (_argument(0), (_IF_EQUAL, 0, 1, pid)),
        "prlimit64": (_argument(0), (_IF_EQUAL, 0, 1, 0)),
    }
    refuse = (_RETURN, 0, 0, _FAIL | errno.EPERM)
    steps: list[_Instruction] = [
        *((_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, _X86_64), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)),
        *((_IF_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _FAIL | errno.ENOSYS)),
    ]
    for call, number in CALLS.items():
        allowed = (*harmless.get(call, ()), (_RETURN, 0, 0, _ALLOW))
        body = (*allowed, refuse) if call in harmless else allowed
        steps += [(_IF_EQUAL, 0, len(body), number), *body]
    return [*steps, refuse]


def _one_of(index: int, values: tuple[int, ...]) -> tuple[_Instruction, ...]:
    """Steps that continue with the next step if an argument is one of ``values``, else skip it."""
    *others, last = values
    early = [(_IF_EQUAL, len(values) - 1 - place, 0, value) for place, value in enumerate(others)]
    return (_argument(index), *early, (_IF_EQUAL, 0, 1, last))


def _argument(index: int) -> _Instruction:
    """The lower half of an argument; the upper half of a flag word or a process id says nothing."""
    return (_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * index)


def probe(outside: str) -> dict[str, str]:
    """Try, in a confined process, what it must not be able to do; each attempt with ``allowed`` or its error.

    Args:
        outside: path of an existing file outside all permitted folders.
    """
    attempts: dict[str, Callable[[], object]] = {
        "read a file elsewhere": lambda: os.open(outside, os.O_RDONLY),
        "write a file elsewhere": lambda: os.open(outside, os.O_WRONLY),
        "make a file elsewhere": lambda: os.open(f"{outside}.new", os.O_WRONLY | os.O_CREAT, 0o600),
        "make a folder": lambda: os.mkdir("folder"),
        "make a link": lambda: os.symlink(outside, "link"),
        "make a pipe with a name": lambda: os.mkfifo("pipe"),
        "open a connection": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "run a program": lambda: os.execv("/bin/true", ["true"]),
        "start a process": lambda: os.fork() or os._exit(0),
        "signal its parent": lambda: os.kill(os.getppid(), 0),
        "have its parent signalled": lambda: fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid()),
        "use its server's descriptors": _use_inherited,
        "leave its group": lambda: os.setpgid(0, 0),
        "trace its parent": lambda: _require(LIBC.ptrace(0x4206, os.getppid(), 0, 0), "ptrace"),
        "make memory executable": lambda: _require(LIBC.mprotect(_page(), 4096, 7), "mprotect"),
    }
    found: dict[str, str] = {}
    for attempt, action in attempts.items():
        try:
            action()
            found[attempt] = "allowed"
        except OSError as error:
            found[attempt] = errno.errorcode.get(error.errno or 0, str(error))
    return found


def _use_inherited() -> None:
    for descriptor in range(3, 1024):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        return
    raise OSError(errno.EBADF, "no descriptor is open")


def _page() -> ctypes.c_void_p:
    LIBC.mmap.restype = ctypes.c_void_p
    return ctypes.c_void_p(LIBC.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_size_t(0)))
