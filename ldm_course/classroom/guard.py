"""What keeps a student's code from doing harm, as far as the system offers it. README of the limits: docs/grading.md.

Three walls, from the outside: bubblewrap hides the user's files and the network (`command`); resource limits and a
system call filter keep the process from taking much memory, and from writing, connecting, signalling and starting
programs (`shut`); the grader ends what takes too long. Windows and macOS have the last one only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

# System calls that a check of an exercise does not need, as their numbers on x86_64 and aarch64 (Linux's
# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h; None where there is no such call).
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other programs, and other processes
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "setpriority": (141, 140),
    # the network, and other ways to another process
    "socket": (41, 198), "socketpair": (53, 199), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "memfd_create": (319, 279),
    # changes to files
    "creat": (85, None), "truncate": (76, 45), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None), "mkdir": (83, None), "mkdirat": (258, 34),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None),
    "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    # the system
    "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "reboot": (169, 142), "sethostname": (170, 161),
}  # fmt: skip
ABSENT = {"clone3": (435, 435), "openat2": (437, 437), "io_uring_setup": (425, 425)}  # callers then use an older call
OPEN, OPENAT, CLONE, PRLIMIT = (2, None), (257, 56), (56, 220), (302, 261)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH_...

ALLOW, REFUSE, PRETEND_ABSENT = (
    0x7FFF0000,
    0x00050001,
    0x00050026,
)  # SECCOMP_RET_ALLOW, _ERRNO with EPERM, with ENOSYS
WRITING = 0o3 | 0o100 | 0o1000  # O_WRONLY or O_RDWR, O_CREAT, O_TRUNC
CLONE_THREAD = 0x10000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of classic BPF, linux/bpf_common.h
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def filter_program(machine: str) -> bytes:
    """The filter as struct sock_filter[]: (code, jump if true, jump if false, constant), 8 bytes each."""
    column, architecture = ARCHITECTURES[machine]
    program: list[tuple[int, int, int, int]] = []

    def add(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> None:
        program.append((code, if_true, if_false, constant))

    def when(call: tuple[int | None, int | None], *then: tuple[int, int, int, int]) -> None:
        number = call[column]
        if number is not None:
            add(EQUAL, number, 0, len(then))
            program.extend(then)

    def refuse_if(code: int, constant: int, argument: int) -> list[tuple[int, int, int, int]]:
        load = (LOAD, 0, 0, ARGUMENTS + 8 * argument)
        return [load, (code, 0, 1, constant), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]

    add(LOAD, ARCH)
    add(EQUAL, architecture, 1, 0)
    add(RETURN, REFUSE)
    add(LOAD, NUMBER)
    add(AT_LEAST, 0x40000000, 0, 1)  # the x32 numbers of x86_64
    add(RETURN, REFUSE)
    for call in REFUSED.values():
        when(call, (RETURN, 0, 0, REFUSE))
    for call in ABSENT.values():
        when(call, (RETURN, 0, 0, PRETEND_ABSENT))
    when(OPEN, *refuse_if(ANY_BIT, WRITING, 1))
    when(OPENAT, *refuse_if(ANY_BIT, WRITING, 2))
    threads_only = [(LOAD, 0, 0, ARGUMENTS), (ANY_BIT, 1, 0, CLONE_THREAD), (RETURN, 0, 0, REFUSE)]
    when(CLONE, *threads_only, (RETURN, 0, 0, ALLOW))
    own_limits_only = [(LOAD, 0, 0, ARGUMENTS), (EQUAL, 1, 0, 0), (RETURN, 0, 0, REFUSE)]
    when(PRLIMIT, *own_limits_only, (RETURN, 0, 0, ALLOW))
    add(RETURN, ALLOW)
    return b"".join(struct.pack("HBBI", *step) for step in program)


def shut(megabytes: int) -> bool:
    """From here on this process may take so much more memory, and do no more than compute and read.

    Returns False where the system has no such filter; limits of memory are set wherever there are any.
    """
    try:
        import resource
    except ImportError:  # Windows
        return False
    if sys.platform == "linux":
        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        most = now + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux" or platform.machine() not in ARCHITECTURES:
        return False
    program = filter_program(platform.machine())
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))  # struct sock_fprog
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong]
    no_new_privileges = prctl(38, 1, None, 0, 0) == 0
    return no_new_privileges and prctl(22, 2, header, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def most_megabytes() -> float:
    """The most memory that this process has had; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 2**10 if sys.platform == "linux" else 1  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@cache
def bubblewrap() -> str | None:
    """Where bubblewrap is, if it works here: some systems forbid it to ordinary users."""
    found = shutil.which("bwrap") if sys.platform == "linux" else None
    if found is None:
        return None
    done = subprocess.run([found, "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True)
    return found if done.returncode == 0 else None


def command(arguments: list[str], readable: list[Path]) -> list[str]:
    """The command in bubblewrap, where there is one: without the network and the home folder, and all read-only.

    readable: folders that it needs to read even if they are in the home folder.
    """
    found = bubblewrap()
    if found is None:
        return arguments
    options = ["--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/", "--dev", "/dev"]
    options += ["--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", str(Path.home())]
    for folder in dict.fromkeys(str(each) for each in readable if each.is_dir()):
        options += ["--ro-bind", folder, folder]
    return [found, *options, "--chdir", "/", "--", *arguments]


@cache
def can_shut() -> bool:
    """Whether the system call filter works here, tried in a process of its own."""
    code = "from ldm_course.classroom.guard import shut; import sys; sys.exit(not shut(4096))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode == 0


def sentence() -> str:
    """What a teacher should know about the walls that stand here."""
    can = "it can neither write, nor use the network, nor start programs" if can_shut() else ""
    if bubblewrap():
        return f"Students' code runs in bubblewrap, without your files and the network{can and '; ' + can}."
    if can:
        return f"Students' code runs as you: it can read your files, but {can}."
    return (
        f"Students' code runs as you, with all your rights, because {platform.system()} has no wall that this "
        "program can use: grade only what you would run yourself, or grade on Linux."
    )
