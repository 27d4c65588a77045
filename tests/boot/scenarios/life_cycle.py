"""What an administrator has set stays, from the installation to the removal; after a purge nothing of ours is left."""

from __future__ import annotations

import os
from pathlib import Path

from lib import machine
from lib.machine import NEWER, OLDER, POLICY, UNITS, add_user, allow, apt, as_user, install
from lib.manager import is_active, run, show, systemctl
from lib.report import Report

CONFIGURATION = Path("/etc/arcbroker/broker.toml")
MARK = "# An administrator was here.\n"
ACCOUNTS = (("passwd", "arcbrokerd"), ("group", "arcbrokerd"), ("group", "arcbroker"))


def play(report: Report) -> None:
    machine.install_agent()
    install(OLDER)
    add_user("alice", "arcbroker")
    allow("user", "alice", "keyvault")
    CONFIGURATION.write_text(CONFIGURATION.read_text() + MARK)
    upgrade(report)
    disabled(report)
    remove(report)
    reinstall(report)
    purge(report)
    begin_again(report)


def upgrade(report: Report) -> None:
    install(NEWER)
    report.check("an upgrade keeps the configuration", MARK in CONFIGURATION.read_text())
    report.check("and the service", gets_a_token("alice"))
    with_a_mistake(report)


def with_a_mistake(report: Report) -> None:
    before = machine.main_process()
    mistaken = POLICY / "mistaken.toml"
    mistaken.write_text("version = 1\n[[rule]]\nusr = 1\n")
    said = install(OLDER)
    report.check("with a mistake in a rule, the package names it", f"{mistaken}:3:1: unknown key `usr`" in said, said)
    report.check("and what to do then", "systemctl restart arcbroker" in said, said)
    report.equal("the daemon of before goes on", machine.main_process(), before)
    report.check("with the rules that it has", gets_a_token("alice"))
    mistaken.write_text("version = 1\n")
    mistaken.chmod(0o600)
    said = install(NEWER)
    report.check("so it is with a file that only root may read", f"{mistaken}: cannot be read" in said, said)
    needrestart = run("/etc/needrestart/restart.d/arcbroker.service", check=False)
    report.check("needrestart is told the same", needrestart.returncode == 1, needrestart)
    report.equal("and still the daemon of before goes on", machine.main_process(), before)
    mistaken.unlink()
    install(OLDER)
    report.check("without it, the next upgrade starts another daemon", machine.main_process() not in (0, before))
    report.check("which serves", gets_a_token("alice"))
    before = machine.main_process()
    run("/etc/needrestart/restart.d/arcbroker.service")
    report.check("and needrestart starts another", machine.main_process() not in (0, before))
    install(NEWER)


def disabled(report: Report) -> None:
    systemctl("disable", "--now", *UNITS)
    install(OLDER)
    states = [show(unit, "UnitFileState") for unit in UNITS]
    report.equal("what an administrator has disabled stays disabled", states, ["disabled"] * 3)
    report.equal("and is not started", [is_active(unit) for unit in UNITS], [False] * 3)
    systemctl("enable", "--now", *UNITS)
    install(NEWER)


def remove(report: Report) -> None:
    apt("remove", "arcbroker")
    report.equal("after a removal nothing is active", [is_active(unit) for unit in UNITS], [False] * 3)
    report.check("no sockets are left", not os.path.exists("/run/arcbroker"), os.path.exists("/run/arcbroker"))
    report.check("no programs are left", not os.path.exists("/usr/bin/arcbrokerd"))
    report.check("the configuration stays", MARK in CONFIGURATION.read_text())
    report.check("the rules stay", list(POLICY.iterdir()))
    report.check("the audit log stays", Path("/var/log/arcbroker/audit.jsonl").stat().st_size)


def reinstall(report: Report) -> None:
    install()
    report.check("installed again, it is active", machine.serving())
    report.check("with the rules and the users of before", gets_a_token("alice"))
    report.check("and with the configuration of before", MARK in CONFIGURATION.read_text())


def purge(report: Report) -> None:
    apt("purge", "arcbroker")
    for database, name in ACCOUNTS:
        found = run("getent", database, name, check=False).stdout
        report.equal(f"after a purge there is no {name} in {database}", found, "")
    report.check("group himds stays: it is the agent's", run("getent", "group", "himds", check=False).stdout)
    left = run("find", "/", "-xdev", "-name", "*arcbroker*", "-not", "-path", "/proc/*", "-not", "-path", "/sys/*").stdout
    report.equal("and no file, link or directory has our name", left, "")
    run_left = run("find", "/run", "-name", "*arcbroker*", check=False).stdout
    report.equal("nor below /run", run_left, "")
    report.equal("no unit is left behind", systemctl("list-units", "--all", "--no-legend", "arcbroker*"), "")


def begin_again(report: Report) -> None:
    install()
    report.check("it can be installed anew", machine.serving())
    denied = as_user("alice", "arcbroker", "token", "keyvault")
    report.check("and then nobody may have what was allowed long ago", denied.returncode in (3, 4), denied)


def gets_a_token(user: str) -> bool:
    return machine.token_for(user, "keyvault").startswith("eyJ")


STAGES = (play,)
