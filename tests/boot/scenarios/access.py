"""Installed as an administrator does it: who gets a token, and who does not."""

from __future__ import annotations

import stat

from lib import machine
from lib.machine import add_user, allow, as_user
from lib.manager import run, show, systemctl
from lib.report import Report


def play(report: Report) -> None:
    machine.install_agent()
    output = machine.install()
    report.check("apt warns of nothing", "warning" not in output.lower() and "\nW:" not in output, output)
    units(report)
    sockets(report)
    users(report)
    system_units(report)


def units(report: Report) -> None:
    for unit in machine.UNITS:
        state = f"{show(unit, 'UnitFileState')}, {show(unit, 'ActiveState')}"
        report.equal(f"{unit} is enabled, and active after the installation", state, "enabled, active")
    report.equal("no unit of the system has failed", systemctl("list-units", "--failed", "--no-legend"), "")


def sockets(report: Report) -> None:
    for path, wanted in ((machine.TOKEN_SOCKET, "srw-rw---- root:arcbroker"), (machine.ADMIN_SOCKET, "srw------- root:root")):
        report.equal(f"{path} is {wanted}", f"{stat.filemode(path.stat().st_mode)} {path.owner()}:{path.group()}", wanted)


def users(report: Report) -> None:
    add_user("alice", "arcbroker")
    add_user("bob")
    add_user("carol", "arcbroker")
    allow("user", "alice", "keyvault")
    allow("user", "bob", "keyvault")

    token = as_user("alice", "arcbroker", "token", "keyvault")
    report.check("a user in group arcbroker with a rule gets a token", is_token(token), token)
    other = as_user("alice", "arcbroker", "token", "storage")
    report.equal("but none for a resource that the rule does not name", other.returncode, 3)
    outside = as_user("bob", "arcbroker", "token", "keyvault")
    report.equal("without the group a user cannot connect, whatever the rules say", outside.returncode, 4)
    report.check("and reads that it is for want of permission", "ermission" in outside.stdout, outside.stdout)
    without = as_user("carol", "arcbroker", "token", "keyvault")
    report.equal("without a rule a user in the group is denied", without.returncode, 3)
    report.check("with 403", status_of("carol") == "403", status_of("carol"))


def system_units(report: Report) -> None:
    allow("unit", "backup.service", "storage")
    ours = in_unit("backup.service")
    report.check("the unit that a rule names gets a token", is_token(ours), ours)
    theirs = in_unit("restore.service")
    report.equal("another unit of the same user does not", theirs.returncode, 3)
    template = in_unit("backup@1.service")
    report.equal("nor does a template of that name", template.returncode, 3)
    user = as_user("carol", "arcbroker", "token", "storage")
    report.equal("nor does the user outside of it", user.returncode, 3)


def in_unit(unit: str):
    command = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--unit={unit}", "--property=User=carol")
    return run(*command, "arcbroker", "token", "storage", check=False)


def is_token(finished) -> bool:
    return finished.returncode == 0 and finished.stdout.startswith("eyJ")


def status_of(user: str) -> str:
    """The status of the answer itself."""
    script = "\n".join((
        "import socket",
        "s = socket.socket(socket.AF_UNIX)",
        f"s.connect('{machine.TOKEN_SOCKET}')",
        "s.sendall(b'GET /metadata/identity/oauth2/token?api-version=2020-06-01&resource=keyvault HTTP/1.1\\r\\n'",
        "          b'Host: localhost\\r\\nMetadata: true\\r\\n\\r\\n')",
        "print(s.recv(4096).split()[1].decode(), end='')",
    ))
    return as_user(user, "python3", "-c", script).stdout


STAGES = (play,)
