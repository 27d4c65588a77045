"""A process whose children and mounts all end with it, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

CLONE_NEWNS, CLONE_NEWPID = 0x0002_0000, 0x2000_0000
MS_REC, MS_PRIVATE = 0x4000, 0x4_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def contained(body) -> int:
    """Runs `body` as the first process of a namespace of processes, and gives its exit status.

    When that process ends, the kernel ends all others in there, and the last one takes the mounts along. It is killed
    when its parent is.
    """
    own = os.getpid()
    called(libc.unshare(CLONE_NEWPID))
    child = os.fork()
    if child == 0:
        called(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        # Inside, the number of the parent is 0 as long as it lives, and afterwards too: ask the old /proc.
        if not os.path.exists(f"/proc/{own}"):
            os._exit(1)
        os._exit(body_status(body))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) % 256


def body_status(body) -> int:
    # The first process of a namespace ignores every signal that it has no handler for. Nothing waits for anything then.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    called(libc.unshare(CLONE_NEWNS))
    mount("none", "/", None, MS_REC | MS_PRIVATE, None)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    try:
        status = body()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    called(libc.mount(*words, ctypes.c_ulong(flags), None if options is None else os.fsencode(options)))


def called(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def unmount(target: str) -> None:
    """At once for all who look for it, and wholly when the last one has let go of it."""
    called(libc.umount2(os.fsencode(target), MNT_DETACH))
