"""Puts itself under the daemon's profile, with all the power of root, and tries what the daemon must not be able to do.

With the name of a file it only tries to read that, and its status is the number of the error.

Otherwise, each line it prints has three fields: whether it went as it must, or is skipped; what must hold; what was seen.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from typing import Callable

PROFILE = "arcbrokerd"
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000


def opened(path: str, flags: int) -> Callable[[], None]:
    def attempt() -> None:
        os.close(os.open(path, flags, 0o600))
        if flags & os.O_CREAT:
            os.unlink(path)

    return attempt


def executed(*command: str) -> Callable[[], None]:
    """In a child, which says through a pipe why not; the pipe closes where it is executed."""

    nowhere = os.open("/dev/null", os.O_WRONLY)

    def attempt() -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            try:
                os.execv(command[0], command)
            except OSError as error:
                os.write(writer, bytes([error.errno]))
            os._exit(0)
        os.close(writer)
        reason = os.read(reader, 1)
        os.close(reader)
        os.waitpid(child, 0)
        if reason:
            raise OSError(reason[0], command[0])

    return attempt


def traced() -> None:
    parent = os.getppid()
    system("ptrace", PTRACE_ATTACH, parent, None, None)
    os.waitpid(parent, WALL)
    system("ptrace", PTRACE_DETACH, parent, None, None)


def system(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def made(family: int, kind: int) -> Callable[[], None]:
    return lambda: socket.socket(family, kind).close()


def connected(path: str) -> Callable[[], None]:
    def attempt() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    return attempt


def mounted() -> None:
    system("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    system("umount", b"/mnt")


READ, WRITE = os.O_RDONLY, os.O_WRONLY
ALLOWED = {
    "its configuration can be read": opened("/etc/arcbroker/broker.toml", READ),
    "the rules can be read": opened("/etc/arcbroker/policy.d/50-test.toml", READ),
    "the names of users can be read": opened("/etc/passwd", READ),
    "another process's control group can be read": opened("/proc/1/cgroup", READ),
    "a TCP socket can be made": made(socket.AF_INET, socket.SOCK_STREAM),
}
REFUSED = {
    "/etc/shadow cannot be read": opened("/etc/shadow", READ),
    "another process's environment cannot be read": opened("/proc/1/environ", READ),
    "another process's memory cannot be read": opened("/proc/1/mem", READ),
    "its own memory cannot be written through /proc": opened("/proc/self/mem", WRITE),
    "the configuration cannot be written": opened("/etc/arcbroker/broker.toml", WRITE),
    "a rule cannot be written": opened("/etc/arcbroker/policy.d/51-mine.toml", WRITE | os.O_CREAT),
    "the audit file of another owner cannot be opened": opened("/var/log/arcbroker/audit.jsonl", READ),
    "a key file cannot be written": opened("/var/opt/azcmagent/tokens/mine.key", WRITE | os.O_CREAT),
    "the agent's other files cannot be read": opened("/opt/azcmagent/bin/himds", READ),
    "a file cannot be made in /tmp": opened("/tmp/mine", WRITE | os.O_CREAT),
    "a file cannot be made in /dev/shm": opened("/dev/shm/mine", WRITE | os.O_CREAT),
    "a control group cannot be joined": opened("/sys/fs/cgroup/cgroup.procs", WRITE),
    "a shell cannot be executed": executed("/bin/sh", "-c", ":"),
    "kill, which the unit uses, cannot be executed": executed("/bin/kill", "-L"),
    "the daemon itself cannot be executed": executed("/usr/bin/arcbrokerd", "--version"),
    "a process cannot be traced": traced,
    "a process outside cannot be sent a signal": lambda: os.kill(os.getppid(), 0),
    "a UDP socket cannot be made": made(socket.AF_INET, socket.SOCK_DGRAM),
    "a raw socket cannot be made": made(socket.AF_INET, socket.SOCK_RAW),
    "a packet socket cannot be made": made(socket.AF_PACKET, socket.SOCK_RAW),
    "nothing can be mounted": mounted,
    "no capability can be used": lambda: os.chroot("/"),
}

REFUSED_BY_PATH = {
    "systemd's private socket cannot be reached": connected("/run/systemd/private"),
    "the bus cannot be reached": connected("/run/dbus/system_bus_socket"),
}
# Ubuntu's kernels have it; others look at no path when a socket is connected to.
MEDIATES_SOCKETS = "/sys/kernel/security/apparmor/features/network/af_unix"


def outcome(attempt: Callable[[], None]) -> int:
    try:
        attempt()
    except OSError as error:
        return error.errno
    return 0


def tell(statement: str, number: int, good: tuple[int, ...]) -> None:
    print("yes" if number in good else "no", statement, errno.errorcode.get(number, "done"), sep="\t", flush=True)


def enter() -> None:
    with open("/proc/self/attr/current", "w", encoding="ascii") as current:
        current.write(f"changeprofile {PROFILE}")


def main() -> None:
    refused, skipped = dict(REFUSED), {}
    (refused if os.path.exists(MEDIATES_SOCKETS) else skipped).update(REFUSED_BY_PATH)
    for statement, attempt in refused.items():
        if outcome(attempt) in (errno.EACCES, errno.EPERM):
            raise SystemExit(f"refused without the profile as well, so it proves nothing: {statement}")
    enter()
    for statement, attempt in ALLOWED.items():
        tell(statement, outcome(attempt), (0,))
    for statement, attempt in refused.items():
        tell(statement, outcome(attempt), (errno.EACCES, errno.EPERM))
    for statement in skipped:
        print("skip", statement, "this kernel's AppArmor does not look at the paths of sockets", sep="\t")


if len(sys.argv) == 1:
    main()
else:
    enter()
    sys.exit(outcome(opened(sys.argv[1], READ)))
