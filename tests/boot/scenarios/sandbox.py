"""The sandbox, looked at from inside: by a program in the daemon's place, and by what wants to look into the daemon."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

from lib import machine
from lib.manager import drop_in, remove_drop_in, run, systemctl
from lib.report import Report

TESTS = "/boot-test/tests"
OUTPUT = Path("/root/probe")
MOST_EXPOSED = 1.3
DENIED = "Permission denied (os error 13)"
ADDRESSES = ("10.99.99.1", "169.254.169.254")

AS_THE_DAEMON = ("setpriv", "--reuid=arcbrokerd", "--regid=arcbrokerd", "--init-groups", "--")

# What systemd's own sandbox makes of each attempt.
WANTED = {
    "write to /srv": "EROFS",
    "write to /run": "EROFS",
    "write to /dev/shm": "EROFS",
    "write to /var/log/arcbroker": "done",
    "write to /tmp": "done",
    "read from /home": "EACCES",
    "read from /var/opt/azcmagent/certs": "EACCES",
    "read /proc/1/cgroup": "done",
    "read /proc/sys": "ENOENT",
    "reach 127.0.0.1": "done",
    "reach ::1": "done",
    "reach 169.254.169.254": "ETIMEDOUT",
    "reach 10.99.99.1": "ETIMEDOUT",
    "a socket of netlink": "done",
    "a socket for packets": "EAFNOSUPPORT",
    "a socket for virtual machines": "EAFNOSUPPORT",
    # By a filter of system calls or, with newer versions of systemd and of the kernel, by the kernel itself.
    "memory to write and execute": ("EPERM", "EACCES"),
    "a user namespace": "EPERM",
    "another personality": "EPERM",
    "to be traced": "EPERM",
    "to choose a processor": "EPERM",
    "a program that changes its user": "EPERM",
    "NoNewPrivs": "1",
    "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000",
    "Seccomp": "2",
}


def play(report: Report) -> None:
    machine.install_agent()
    machine.install()
    units(report)
    from_inside(report)
    landlock(report)
    from_outside(report)


def units(report: Report) -> None:
    # In a unit of its own: older versions of `verify` move whoever calls it to another control group.
    command = ("systemd-run", "--quiet", "--pipe", "--wait", "systemd-analyze", "--man=no", "verify", *machine.UNITS)
    report.equal("systemd-analyze verify has nothing to say", run(*command, check=False).stdout, "")
    complaints = [line for line in pid_1_says() if "/systemd/system/arcbroker" in line]
    report.equal("nor had systemd when it read the units", complaints, [])
    output = run("systemd-analyze", "security", "--no-pager", "arcbroker.service").stdout
    found = re.search(r"exposure level for arcbroker.service: ([0-9.]+)", output)
    exposure = float(found[1]) if found else 10.0
    report.check(f"systemd-analyze security: {exposure}, at most {MOST_EXPOSED}", exposure <= MOST_EXPOSED, output)


def pid_1_says() -> list[str]:
    return run("journalctl", "--no-pager", "--quiet", "_PID=1").stdout.splitlines()


def from_inside(report: Report) -> None:
    furnish()
    with listening() as port:
        inside = json.loads(in_the_daemons_place(f"{TESTS}/probe sandbox {port}"))
        report.check("/tmp is its own", not os.path.exists("/tmp/probe"))
        outside = json.loads(run(*AS_THE_DAEMON, f"{TESTS}/probe", "sandbox", str(port)).stdout)
        azure_vm(report, port)
    for name, wanted in WANTED.items():
        found, allowed = inside[name], wanted if isinstance(wanted, tuple) else (wanted,)
        without = "" if outside[name] == found else f" (without the sandbox: {outside[name]})"
        report.check(f"{name}: {found}{without}", found in allowed, f"wanted {' or '.join(allowed)}")


def azure_vm(report: Report, port: int) -> None:
    """The signs of one: only then is there anything for the daemon at this address."""
    run("mount", "-t", "tmpfs", "tmpfs", "/sys/class")
    os.makedirs("/sys/class/dmi/id")
    Path("/sys/class/dmi/id/chassis_asset_tag").write_text("7783-7084-3265-9085-8269-3286-77\n")
    found = json.loads(in_the_daemons_place(f"{TESTS}/probe sandbox {port}"))
    report.equal("reach 169.254.169.254 on an Azure VM: done", found["reach 169.254.169.254"], "done")
    report.equal("and nothing else: 10.99.99.1 there: ETIMEDOUT", found["reach 10.99.99.1"], "ETIMEDOUT")
    run("umount", "/sys/class")
    systemctl("daemon-reload")


def furnish() -> None:
    """What only the sandbox keeps the daemon from: all the rest lets everybody in."""
    machine.add_user("alice", "arcbroker")
    for directory in ("/srv/open", "/run/open"):
        os.mkdir(directory)
        os.chmod(directory, 0o777)
    os.chmod("/var/opt/azcmagent/certs", 0o755)
    os.chmod("/home/alice", 0o755)
    for path in ("/home/alice/open", "/var/opt/azcmagent/certs/open"):
        Path(path).write_text("open to all\n")
    for address in ADDRESSES:
        run("ip", "address", "add", f"{address}/32", "dev", "lo")


@contextlib.contextmanager
def listening():
    """On every address of the machine."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        yield server.getsockname()[1]


def in_the_daemons_place(command: str) -> str:
    """What a command prints that the unit runs instead of the daemon."""
    OUTPUT.write_text("")
    drop_in(
        "arcbroker.service",
        "probe",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecReload=\nExecStart=\n"
        f"ExecStart={command}\nStandardOutput=file:{OUTPUT}\n",
    )
    try:
        systemctl("restart", "arcbroker.service")
    finally:
        remove_drop_in("arcbroker.service", "probe")
    systemctl("restart", "arcbroker.service")
    return OUTPUT.read_text()


def landlock(report: Report) -> None:
    """What the daemon takes away from itself: everything here is allowed by systemd."""
    here = run(f"{machine.BINARIES}/sandbox-probe", check=False).stdout
    if "GLIBC_" in here:
        report.skipped("Landlock, from inside", "sandbox-probe needs a newer glibc than this suite has")
        return
    with listening() as port, socket.create_server(("127.0.0.1", 40_343)):
        wanted = {
            "connect 127.0.0.1:40342": "ok",
            "connect 127.0.0.1:40343": DENIED,
            f"connect 127.0.0.1:{port}": DENIED,
            "bind 127.0.0.1:0": DENIED,
            "run /bin/true": DENIED,
            "read /srv/open/readable": DENIED,
            "read /etc/arcbroker/broker.toml": "ok",
            "list /var/opt/azcmagent/tokens": "ok",
            "list /opt/azcmagent/bin": DENIED,
            "read /proc/1/cgroup": "ok",
            "make /var/log/arcbroker/made": "ok",
            "make /tmp/made": DENIED,
        }
        Path("/srv/open/readable").write_text("open to all\n")
        words = " ".join(wanted)
        output = in_the_daemons_place(f"{machine.BINARIES}/sandbox-probe {words}")
    confined, *lines = output.splitlines()
    report.told(confined)
    found = dict(line.rpartition(": ")[::2] for line in lines)
    for attempt, outcome in wanted.items():
        report.equal(f"with Landlock, {attempt}: {outcome}", found.get(attempt, output), outcome)


def from_outside(report: Report) -> None:
    """The daemon's own user is the most that somebody may be who is not root."""
    attempts = debugger(machine.main_process())
    with an_ordinary_process() as pid:
        ordinary = debugger(pid)
    for name, outcome in attempts.items():
        report.check(f"another process of its user cannot {name}", outcome in ("EPERM", "EACCES"), outcome)
        report.equal(f"while it can with an ordinary one ({name})", ordinary[name], "done")


def debugger(pid: int) -> dict:
    return json.loads(run(*AS_THE_DAEMON, f"{TESTS}/probe", "debugger", str(pid)).stdout)


@contextlib.contextmanager
def an_ordinary_process():
    process = subprocess.Popen([*AS_THE_DAEMON, "sleep", "600"])
    try:
        deadline = time.monotonic() + 30
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n" and time.monotonic() < deadline:
            time.sleep(0.01)
        yield process.pid
    finally:
        process.kill()
        process.wait()


STAGES = (play,)
