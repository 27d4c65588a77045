"""The agent is installed after the broker, and later anew: its user does not exist yet, or gets another number."""

from __future__ import annotations

from lib import machine
from lib.client import ask_once
from lib.manager import eventually, journal, run, systemctl
from lib.report import Report

RESOURCES = ("https://vault.azure.net", "https://storage.azure.com/", "https://management.azure.com/")


def play(report: Report) -> None:
    machine.install()
    machine.allow("user", "root", *RESOURCES)
    process = machine.main_process()
    status, _, _ = ask_once(RESOURCES[0])
    report.equal("without an agent, a request gets 503", status, 503)

    machine.install_agent()
    gets_token(report, "of an agent that is installed after the broker, a request gets its token", RESOURCES[0])

    systemctl("stop", "himdsd.service")
    run("usermod", "--uid", "54321", "himds")
    run("chown", "--recursive", "himds:himds", "/var/opt/azcmagent/tokens", "/var/opt/azcmagent/certs")
    machine.start_agent()
    gets_token(report, "and also when the agent's user has got another number", RESOURCES[1])

    systemctl("stop", "himdsd.service")
    machine.add_user("stranger")
    impostor = ["systemd-run", "--unit=impostor", "--property=User=stranger", "--property=RuntimeDirectory=impostor"]
    run(*impostor, machine.AGENT, "--listen", "127.0.0.1:40342", "--tokens-dir", "/run/impostor")
    eventually("the impostor listens", machine.himds_listens)
    status, _, _ = ask_once(RESOURCES[2])
    report.equal("another user in its place is not believed", status, 502)
    said = journal("--unit=arcbroker.service")
    report.check("and the log says whose the port is", "is held by uid" in said, said[-2000:])
    report.equal("all by the same process", machine.main_process(), process)


def gets_token(report: Report, what: str, resource: str) -> None:
    """At once, or when the failure before it is forgotten."""
    eventually(what, lambda: ask_once(resource)[0] == 200)
    report.equal(what, ask_once(resource)[0], 200)


STAGES = (play,)
