"""Upgrades of the package under load, and ways back: nobody notices."""

from __future__ import annotations

from lib import machine, traffic
from lib.machine import add_user, allow, install, main_process
from lib.manager import run
from lib.report import Report

UPGRADES = 50
DURING = f"{UPGRADES} upgrades, and as many ways back"


def play(report: Report) -> None:
    machine.install_agent()
    install(machine.OLDER)
    add_user("alice", "arcbroker")
    allow("user", "alice", *traffic.RESOURCES)
    for resource in traffic.RESOURCES:
        machine.token_for("alice", resource)
    before = traffic.inode()
    served_by = {main_process()}
    with traffic.traffic("alice") as result:
        for number in result.paced(2 * UPGRADES, 0.25):
            upgrade(number)
            served_by.add(main_process())
    traffic.judge(report, DURING, result)
    report.equal(f"{DURING}: each starts another daemon", len(served_by), 2 * UPGRADES + 1)
    report.equal(f"{DURING}: the socket is the same", traffic.inode(), before)
    report.check(f"{DURING}: everything is enabled and active", machine.serving())


def upgrade(number: int) -> None:
    """With what apt calls for it: apt itself spends most of its time on reading lists."""
    run("dpkg", "--install", machine.OLDER if number % 2 else machine.NEWER)


STAGES = (play,)
