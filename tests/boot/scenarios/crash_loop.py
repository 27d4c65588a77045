"""A daemon that ends at once, while callers keep coming: when a good one is there, they are served, without a hand."""

from __future__ import annotations

import os
from pathlib import Path

from lib import machine, traffic
from lib.machine import UNITS
from lib.manager import eventually, is_active, show, systemctl
from lib.report import Report

DAEMON = Path("/usr/bin/arcbrokerd")
ASIDE = Path("/usr/bin/arcbrokerd.good")
STARTS = 12


def play(report: Report) -> None:
    machine.install_agent()
    machine.install()
    machine.add_user("alice", "arcbroker")
    machine.allow("user", "alice", *traffic.RESOURCES)
    for resource in traffic.RESOURCES:
        machine.token_for("alice", resource)
    before = traffic.inode()
    with traffic.traffic("alice") as result:
        crash(report)
        repair(report)
    figures = result.figures
    report.told(f"the slowest request took {figures['worst']:.1f} s; {figures['again']} were asked twice")
    report.check("no request failed: all of them have waited", not figures["failures"], figures["failures"][:5])
    report.equal("the socket is the same", traffic.inode(), before)


def crash(report: Report) -> None:
    DAEMON.rename(ASIDE)
    replace_daemon("#!/bin/sh\nexit 1\n")
    begun = starts()
    os.kill(machine.main_process(), 9)
    eventually("it has been started again and again", lambda: starts() >= begun + STARTS, 60)
    report.check(f"after {STARTS} crashes under load, both sockets are active", all(is_active(unit) for unit in UNITS[:2]))
    report.equal("and systemd goes on trying", show("arcbroker.service", "ActiveState"), "activating")
    DAEMON.unlink()
    gone = starts()
    eventually("it has been tried again without a program", lambda: starts() >= gone + 3, 60)
    report.check("a program that is missing changes nothing", all(is_active(unit) for unit in UNITS[:2]))


def repair(report: Report) -> None:
    ASIDE.rename(DAEMON)
    eventually("the service is active", lambda: is_active("arcbroker.service"), 10)
    report.check("with a good program the service comes back by itself", machine.token_for("alice", traffic.RESOURCES[0]))
    report.equal("nothing has failed", systemctl("list-units", "--failed", "--no-legend", "arcbroker*"), "")


def replace_daemon(text: str) -> None:
    DAEMON.write_text(text)
    DAEMON.chmod(0o755)


def starts() -> int:
    return int(show("arcbroker.service", "NRestarts"))


STAGES = (play,)
