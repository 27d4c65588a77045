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
from lib.report import Report

RATE = 1500
WANTED_RATE = 1000
RESOURCES = ("https://vault.azure.net", "https://storage.azure.com/")


@dataclass
class Traffic:
    """The figures are there when it has ended."""

    figures: dict = field(default_factory=dict)


@contextlib.contextmanager
def traffic(user: str):
    account = pwd.getpwnam(user)
    process = subprocess.Popen(
        ["/boot-test/tests/load", f"--rate={RATE}", *RESOURCES],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=os.getgrouplist(user, account.pw_gid),
    )
    result = Traffic()
    try:
        yield result
    finally:
        process.terminate()
        output, _ = process.communicate()
    result.figures = json.loads(output)


def paced(times: int, seconds: float):
    """Counts, at a pace that leaves room for traffic in between."""
    begin = time.monotonic()
    for number in range(times):
        time.sleep(max(0.0, begin + number * seconds - time.monotonic()))
        yield number


def inode() -> tuple[int, int]:
    status = TOKEN_SOCKET.stat()
    return status.st_dev, status.st_ino


def judge(report: Report, during: str, figures: dict) -> None:
    """Nobody noticed."""
    report.told(
        f"{during}: {figures['answered']:,} requests, {figures['rate']:,.0f} a second; {figures['again']} asked twice; "
        f"the slowest took {figures['worst'] * 1000:.0f} ms"
    )
    report.check(f"{during}: at least {WANTED_RATE:,} requests a second", figures["rate"] >= WANTED_RATE, figures["rate"])
    failures = figures["failures"]
    report.check(f"{during}: no request failed", not failures, f"{len(failures)}: {failures[:5]}")
