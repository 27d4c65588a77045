"""Callers who ask all the time, while something else happens."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import subprocess
import time
from dataclasses import dataclass, field

from lib.machine import TOKEN_SOCKET
from lib.manager import eventually
from lib.report import Report

RATE = 1500
# For each second of a pace: a busy machine takes longer, and has no less load.
WANTED_RATE = 1000
RESOURCES = ("https://vault.azure.net", "https://storage.azure.com/")


@dataclass
class Traffic:
    """The figures are there when it has ended."""

    process: subprocess.Popen
    wanted: int = 0
    figures: dict = field(default_factory=dict)

    def paced(self, times: int, seconds: float):
        """Counts, at a pace that leaves room for traffic in between, and goes on only when there was as much of it."""
        each = round(seconds * WANTED_RATE)
        for number in range(times):
            begin, over = time.monotonic(), self.over()
            yield number
            time.sleep(max(0.0, begin + seconds - time.monotonic()))
            eventually(f"{each} more requests are over", lambda: self.over() >= over + each)
            self.wanted += each

    def over(self) -> int:
        """How many requests are, answered or failed, so far."""
        print(file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@contextlib.contextmanager
def traffic(user: str):
    account = pwd.getpwnam(user)
    process = subprocess.Popen(
        ["/boot-test/tests/load", f"--rate={RATE}", *RESOURCES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=os.getgrouplist(user, account.pw_gid),
    )
    result = Traffic(process)
    try:
        yield result
    finally:
        # Closes its input, at which it ends.
        output, _ = process.communicate()
    result.figures = json.loads(output)


def inode() -> tuple[int, int]:
    status = TOKEN_SOCKET.stat()
    return status.st_dev, status.st_ino


def judge(report: Report, during: str, result: Traffic) -> None:
    """Nobody noticed."""
    figures, failures = result.figures, result.figures["failures"]
    report.told(
        f"{during}: {figures['answered']:,} requests, {figures['rate']:,.0f} a second; {figures['again']} asked twice; "
        f"the slowest took {figures['worst'] * 1000:.0f} ms"
    )
    answered = figures["answered"]
    report.check(f"{during}: at least {result.wanted:,} requests are answered", answered >= result.wanted, answered)
    report.check(f"{during}: no request failed", not failures, f"{len(failures)}: {failures[:5]}")
