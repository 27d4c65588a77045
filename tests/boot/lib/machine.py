"""The server on which the broker is installed: the agent's simulator, users, the package."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lib.manager import eventually, is_active, run, show, systemctl

BINARIES = Path("/boot-test/binaries")
OLDER, NEWER = "/boot-test/packages/older.deb", "/boot-test/packages/newer.deb"

UNITS = ("arcbroker.socket", "arcbroker-admin.socket", "arcbroker.service")
TOKEN_SOCKET = Path("/run/arcbroker/token.sock")
ADMIN_SOCKET = Path("/run/arcbroker/admin.sock")
POLICY = Path("/etc/arcbroker/policy.d")

AGENT = "/opt/azcmagent/bin/himds"
CONTROL = "/run/himds/control.sock"
# The simulator of HIMDS in the agent's place, where and as whom the agent runs.
AGENT_UNIT = f"""\
[Unit]
Description=Azure Connected Machine Agent Service (simulated)

[Service]
User=himds
Group=himds
RuntimeDirectory=himds
ExecStart={AGENT} --listen 127.0.0.1:40342 --tokens-dir /var/opt/azcmagent/tokens --control {CONTROL}

[Install]
WantedBy=multi-user.target
"""


def install_agent(start: bool = True) -> None:
    add_agents_user()
    os.makedirs("/opt/azcmagent/bin")
    run("install", "-m", "755", str(BINARIES / "himds-sim"), AGENT)
    run("install", "-d", "-m", "755", "/var/opt/azcmagent")
    run("install", "-d", "-m", "770", "-o", "himds", "-g", "himds", "/var/opt/azcmagent/tokens")
    run("install", "-d", "-m", "700", "-o", "himds", "-g", "himds", "/var/opt/azcmagent/certs")
    Path("/etc/systemd/system/himdsd.service").write_text(AGENT_UNIT)
    systemctl("daemon-reload")
    if start:
        start_agent()


def add_agents_user() -> None:
    """Its group is there already where the broker came first."""
    has_group = run("getent", "group", "himds", check=False).returncode == 0
    group = ("--gid", "himds") if has_group else ("--user-group",)
    run("useradd", "--system", *group, "--no-create-home", "--shell", "/usr/sbin/nologin", "himds")


def start_agent() -> None:
    systemctl("enable", "--now", "himdsd.service")
    eventually("the simulator listens", himds_listens)


def himds_listens() -> bool:
    return ":40342" in run("ss", "-Hltn").stdout


def apt(*words: str) -> str:
    """apt-get as an administrator types it, with nobody there to answer questions."""
    return run("apt-get", "--yes", *words).stdout


def install(package: str = NEWER) -> str:
    return apt("install", "--allow-downgrades", package)


def add_user(name: str, *groups: str) -> None:
    run("useradd", "--create-home", "--user-group", "--shell", "/bin/bash", name)
    for group in groups:
        run("usermod", "--append", "--groups", group, name)


def allow(subject: str, name: str, *resources: str) -> None:
    """A rule for a user or a unit, with the tool for it."""
    run("arcbroker", "allow", f"--{subject}", name, *resources)


def as_user(name: str, *command: str):
    """A command as somebody who has just logged in."""
    return run("runuser", "--user", name, "--", *command, check=False)


def main_process() -> int:
    """0 where there is none at the moment."""
    return int(show("arcbroker.service", "MainPID"))


def serving() -> bool:
    return all(is_active(unit) for unit in UNITS)


def token_for(user: str, resource: str) -> str:
    finished = as_user(user, "arcbroker", "token", resource)
    if finished.returncode != 0:
        raise RuntimeError(f"{user} gets no token for {resource}: {finished.stdout}")
    return finished.stdout.strip()


def rules() -> str:
    return run("arcbroker", "rules").stdout


def status() -> dict:
    return json.loads(run("arcbroker", "status", "--json", check=False).stdout)
