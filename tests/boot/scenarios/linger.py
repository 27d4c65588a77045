"""A program that passes a socket whose last close waits for ever must not hold up PID 1."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Callable

from lib import machine
from lib.manager import eventually, show
from lib.report import Report

# For this long, the last one to close the socket would wait.
LINGER = 60
PATIENCE = 5.0
PROGRAM = "/boot-test/tests/lingering"


def play(report: Report) -> None:
    machine.install_agent()
    machine.install()
    machine.add_user("mallory", "arcbroker")
    before = held()
    misuse(report, lambda: None)
    watch(report, "a daemon that sees it", before)
    # The next one is given what is left of the socket, and finds it of no use.
    misuse(report, lambda: os.kill(machine.main_process(), signal.SIGSTOP))
    os.kill(machine.main_process(), signal.SIGKILL)
    watch(report, "a daemon that comes after it", before)


def misuse(report: Report, meanwhile: Callable[[], None]) -> None:
    with subprocess.Popen(
        ["setpriv", "--reuid=mallory", "--regid=mallory", "--init-groups", PROGRAM, str(LINGER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        report.equal("a program gets an endpoint", program.stdout.readline(), "registered\n")
        meanwhile()
        program.communicate("\n", timeout=60)
    report.equal("and makes of it a socket that lingers", program.returncode, 0)


def watch(report: Report, daemon: str, before: int) -> None:
    begin, worst = time.monotonic(), 0.0
    while time.monotonic() - begin < 2 * PATIENCE:
        asked = time.monotonic()
        remaining = held() - before
        worst = max(worst, time.monotonic() - asked)
        time.sleep(0.1)
    report.equal(f"{daemon} has systemd let go of it", remaining, 0)
    report.check(f"and systemd answers within {PATIENCE:.0f} s all the while", worst < PATIENCE, f"{worst:.1f} s")
    report.check("the daemon serves others", eventually("it serves", machine.serving))


def held() -> int:
    return int(show("arcbroker.service", "NFileDescriptorStore"))


STAGES = (play,)
