"""Tokens and keys are nowhere but where they belong, with everything logged that can be."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from lib import himds, machine
from lib.manager import eventually, journal, run, show, systemctl
from lib.machine import as_user
from lib.report import Report

RESOURCES = ("https://vault.azure.net", "https://storage.azure.com/")
HIMDS = "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https://vault.azure.net"
CONFIGURATION = Path("/etc/arcbroker/broker.toml")


def play(report: Report) -> None:
    machine.install_agent()
    machine.install()
    machine.add_user("alice", "arcbroker")
    machine.add_user("bob")
    configured = CONFIGURATION.read_text().replace('level = "info"', 'level = "debug"')
    report.check("everything is logged that can be", 'level = "debug"' in configured)
    CONFIGURATION.write_text(configured)
    systemctl("restart", "arcbroker.service")
    machine.allow("user", "alice", *RESOURCES)
    key = key_of_all_challenges()
    tokens = [machine.token_for("alice", resource) for resource in RESOURCES]
    systemctl("restart", "arcbroker.service")
    aborted(report)
    report.equal("a token outlives all that", machine.token_for("alice", RESOURCES[0]), tokens[0])
    secrets = {"a token": [token.rpartition(".")[2] for token in tokens] + ["eyJ"], "a challenge key": [key]}
    everywhere(report, secrets)
    strangers(report)


def key_of_all_challenges() -> str:
    """With this fault the simulator gives to all the key that it gives to us."""
    himds.control("PUT", "/fault", '{"name": "same-key"}')
    request = urllib.request.Request(HIMDS, headers={"Metadata": "true"})
    try:
        urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as challenge:
        realm = challenge.headers["Www-Authenticate"].partition("realm=")[2]
        return Path(realm).read_text()
    raise RuntimeError("HIMDS asked for no key")


def aborted(report: Report) -> None:
    """The daemon, and beside it a process that leaves a core, to see that one would be found."""
    crashed = machine.main_process()
    os.kill(crashed, signal.SIGABRT)
    eventually("another daemon serves", lambda: machine.main_process() not in (0, crashed) and machine.serving())
    report.equal("a daemon that aborts leaves no core", cores(), [])
    ordinary = ["setpriv", "--reuid=arcbrokerd", "--regid=arcbrokerd", "--clear-groups", "--"]
    ordinary += ["sh", "-c", "ulimit -c unlimited; kill -ABRT $$"]
    subprocess.run(ordinary, cwd="/var/log/arcbroker", check=False)
    if cores():
        report.check("an ordinary process of its user does", True)
    else:
        pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
        report.skipped("an ordinary process of its user does", f"cores of this machine go elsewhere: {pattern}")


def cores() -> list[str]:
    return run("find", "/", "-xdev", "-name", "core*", "-type", "f", "-newer", "/etc/arcbroker/policy.d", "-not", "-path",
               "/proc/*", "-not", "-path", "/sys/*").stdout.splitlines()


def everywhere(report: Report, secrets: dict) -> None:
    places = {
        "the journal": journal("--output=export"),
        "the audit log": "".join(path.read_text() for path in Path("/var/log/arcbroker").glob("audit*")),
        "systemctl show": systemctl("show", "arcbroker.service"),
        "systemctl status": run("systemctl", "status", "arcbroker.service", check=False).stdout,
        "arcbroker status": run("arcbroker", "status", "--json", check=False).stdout,
    }
    report.check("the journal has the records of these requests", places["the journal"].count("ARCBROKER_TOKEN_SHA256") >= 2)
    for place, text in places.items():
        for what, texts in secrets.items():
            report.check(f"{place} does not have {what}", not any(secret in text for secret in texts))


def strangers(report: Report) -> None:
    held = int(show("arcbroker.service", "NFileDescriptorStore"))
    report.check(f"systemd holds tokens for the next daemon ({held} descriptors)", held > 0)
    daemon = machine.main_process()
    for user in ("alice", "bob"):
        for path in ("/proc/1/fd", "/proc/1/mem", f"/proc/{daemon}/fd", f"/proc/{daemon}/mem", f"/proc/{daemon}/environ"):
            reader = "ls" if path.endswith("fd") else "cat"
            found = as_user(user, reader, path)
            report.check(f"{user} cannot read {re.sub(str(daemon), 'PID', path)}", "ermission denied" in found.stdout, found)
    listing = run("systemd-analyze", "fdstore", "arcbroker.service", check=False).stdout
    report.check("the names in the store are no tokens", "eyJ" not in listing)


STAGES = (play,)
