"""Restarts, reloads and kills under load: nobody notices."""

from __future__ import annotations

import os
import signal

from lib import himds, machine, traffic
from lib.machine import add_user, allow, main_process
from lib.manager import eventually, systemctl
from lib.report import Report

RESTARTS, RELOADS, KILLS = 50, 20, 20


def play(report: Report) -> None:
    machine.install_agent()
    machine.install()
    add_user("alice", "arcbroker")
    allow("user", "alice", *traffic.RESOURCES)
    warm_up()
    before = traffic.inode()
    restarts(report)
    reloads(report)
    kills(report)
    report.equal("the socket is the same all the while", traffic.inode(), before)


def warm_up() -> None:
    for resource in traffic.RESOURCES:
        machine.token_for("alice", resource)


def restarts(report: Report) -> None:
    with traffic.traffic("alice") as result:
        for _ in result.paced(RESTARTS, 0.25):
            systemctl("restart", "arcbroker.service")
    traffic.judge(report, f"{RESTARTS} restarts", result)


def reloads(report: Report) -> None:
    before = main_process()
    with traffic.traffic("alice") as result:
        for number in result.paced(RELOADS, 0.1):
            change_a_rule(number)
            systemctl("reload", "arcbroker.service")
            eventually("the rule is in force", lambda: f" number {number} " in machine.rules())
    traffic.judge(report, f"{RELOADS} reloads", result)
    report.equal(f"{RELOADS} reloads: the process is the same", main_process(), before)


def change_a_rule(number: int) -> None:
    rule = f'version = 1\n[[rule]]\nname = "number {number}"\nuser = "alice"\nresources = ["sql"]\n'
    (machine.POLICY / "changing.toml").write_text(rule)


def kills(report: Report) -> None:
    before = himds.asked()
    with traffic.traffic("alice") as result:
        for _ in result.paced(KILLS, 0.9):
            kill()
    traffic.judge(report, f"{KILLS} times kill -9", result)
    most = KILLS * result.figures["callers"]
    report.check(
        f"{KILLS} times kill -9: no more are asked twice than were under way", result.figures["again"] <= most,
        f"{result.figures['again']}, and {most} at most were under way",
    )
    report.equal(f"{KILLS} times kill -9: HIMDS is not asked again for what was warm", himds.asked() - before, 0)


def kill() -> None:
    killed = main_process()
    os.kill(killed, signal.SIGKILL)
    eventually("another process serves", lambda: main_process() not in (0, killed) and machine.serving())


STAGES = (play,)
