"""Syscalls that do the same work as one that a profile denies, and so walk around it.

Only for profiles that let through what they do not name: under a denying default an equivalent is denied already. It
refuses to judge what a profile is for; it names the way around.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent.controls.seccomp import syscalls
from agent.controls.seccomp.profile import ENOSYS, Rule
from agent.controls.seccomp.resolver import Platform, Resolved, denied

# io_uring does these for a process without the syscall ever being made, so seccomp never sees them (io_uring_enter(2)).
RING: Final = "io_uring_setup"


@dataclass(frozen=True, slots=True)
class Family:
    """Syscalls that do the same. what: in words. ring: whether io_uring does it too."""

    what: str
    members: tuple[str, ...]
    ring: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """What a profile denies of one family, and what it leaves open."""

    what: str
    denied: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what}: denies {', '.join(self.denied)} and not {', '.join(self.missing)}"


_FAMILIES = """
changing a file's mode: chmod fchmod fchmodat fchmodat2
changing a file's owner: chown chown32 fchown fchown32 fchownat lchown lchown32
opening a file: open openat openat2 creat open_by_handle_at +ring
making a folder: mkdir mkdirat +ring
making a device or FIFO: mknod mknodat
making a hard link: link linkat +ring
making a symlink: symlink symlinkat +ring
renaming: rename renameat renameat2 +ring
removing a file: unlink unlinkat rmdir +ring
truncating: truncate truncate64 ftruncate ftruncate64 +ring
reading a symlink: readlink readlinkat
asking for access: access faccessat faccessat2
a file's state: stat stat64 lstat lstat64 fstat fstat64 newfstatat fstatat64 statx oldstat oldlstat oldfstat +ring
setting a file's times: utime utimes futimesat utimensat utimensat_time64
setting extended attributes: setxattr lsetxattr fsetxattr setxattrat +ring
removing extended attributes: removexattr lremovexattr fremovexattr removexattrat
listing a folder: readdir getdents getdents64
running a program: execve execveat
starting a process: clone clone3 fork vfork
a new namespace: clone(flags) clone3 unshare
sending a signal: kill tkill tgkill pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo
mounting: mount fsmount move_mount fsopen fsconfig open_tree open_tree_attr mount_setattr
unmounting: umount umount2
opening a socket: socket socketcall +ring
connecting: connect socketcall +ring
listening: bind listen socketcall +ring
accepting a connection: accept accept4 socketcall +ring
a pair of sockets: socketpair socketcall
sending: send sendto sendmsg sendmmsg socketcall +ring
receiving: recv recvfrom recvmsg recvmmsg recvmmsg_time64 socketcall +ring
looking into another process: ptrace process_vm_readv process_vm_writev pidfd_getfd
changing the user: setuid setuid32 setreuid setreuid32 setresuid setresuid32
changing the group: setgid setgid32 setregid setregid32 setresgid setresgid32
changing the file system user: setfsuid setfsuid32
changing the file system group: setfsgid setfsgid32
setting groups: setgroups setgroups32
I/O ports: iopl ioperm
loading a kernel module: init_module finit_module
another kernel: kexec_load kexec_file_load
setting the clock: clock_settime clock_settime64 settimeofday stime clock_adjtime clock_adjtime64 adjtimex
the kernel's keys: add_key request_key keyctl
making memory executable: mprotect pkey_mprotect
mapping memory: mmap mmap2
setting limits: setrlimit prlimit64
setting priorities: nice setpriority
scheduling: sched_setscheduler sched_setparam sched_setattr
memory without a file: memfd_create memfd_secret
System V shared memory: shmget shmat ipc
System V semaphores: semget semop semtimedop semtimedop_time64 ipc
System V messages: msgget msgsnd msgrcv ipc
disk quotas: quotactl quotactl_fd
asynchronous I/O: io_setup io_submit +ring
the ring itself: io_uring_setup
watching files: fanotify_init inotify_init inotify_init1
"""


def families() -> tuple[Family, ...]:
    """Every family of the table."""
    found: list[Family] = []
    for line in _FAMILIES.strip().splitlines():
        what, names = line.split(": ")
        members = names.split()
        found.append(Family(what, tuple(name for name in members if name != "+ring"), "+ring" in members))
    return tuple(found)


def gaps(resolved: Resolved) -> tuple[Gap, ...]:
    """The families of which the profile denies some and leaves others open on the node's architectures.

    A rule that answers ENOSYS does not count as denying: it makes programs fall back to another syscall.
    """
    rules = denied(resolved)
    covered = set(_names(rules))
    meant = _names(rule for rule in rules if rule.errno != ENOSYS)
    found: list[Gap] = []
    for family in families():
        mine = tuple(name for name in family.members if name in meant)
        if not mine:
            continue
        members = [*family.members, *((RING,) if family.ring else ())]
        missing = tuple(name for name in members if name not in covered and _is_here(name, resolved.architectures))
        if missing:
            found.append(Gap(family.what, mine, missing))
    return tuple(found)


def unknown_to(resolved: Resolved, platform: Platform, library: tuple[int, int, int] | None) -> tuple[str, ...]:
    """Syscalls of this kernel that the profile denies and that this libseccomp does not know: it skips their rules.

    library None: what the oldest one in use (2.5.4) does not know. Under a denying default an unknown name is denied
    (runc answers ENOSYS), so nothing is lost there.
    """
    known = library or (0, 0, 0)
    young = syscalls.younger()
    return tuple(
        name
        for name in dict.fromkeys(name for rule in denied(resolved) for name in rule.names)
        if name in young
        and young[name].libseccomp > known
        and (platform.kernel is None or platform.kernel >= young[name].kernel)
        and syscalls.exists_on(name, resolved.architectures)
    )


def _names(rules: Iterable[Rule]) -> set[str]:
    """Names that rules deny, by whatever arguments. A clone judged by its flags is about namespaces, not processes."""
    found: set[str] = set()
    for rule in rules:
        for name in rule.names:
            if name == "clone" and rule.args:
                found.add("clone(flags)")
            elif name == "clone":
                found |= {"clone", "clone(flags)"}
            else:
                found.add(name)
    return found


def _is_here(name: str, architectures: tuple[str, ...]) -> bool:
    return syscalls.exists_on(name.removesuffix("(flags)"), architectures)
