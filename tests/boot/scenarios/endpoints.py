"""A program below `arcbroker exec` keeps its endpoint, whatever becomes of the daemon."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess

from lib import machine
from lib.manager import eventually, run, show, systemctl
from lib.report import Report

RESOURCE = "https://vault.azure.net"
# Of what systemd holds, those for a token.
TOKENS = 1


def play(report: Report) -> None:
    machine.install_agent()
    machine.install(machine.OLDER)
    machine.add_user("alice", "arcbroker")
    machine.allow("user", "alice", RESOURCE)
    before = held()
    with Program() as program:
        first = program.ask()
        report.equal("a program below arcbroker exec gets a token", first, "200")
        report.equal("systemd holds three descriptors for it", held() - before - TOKENS, 3)
        for what, event in EVENTS.items():
            event()
            report.equal(f"after {what} it gets one at the same address, with the same secret", program.ask(), "200")
        end_meanwhile = Program()
        report.equal("so does a second program", end_meanwhile.ask(), "200")
        report.equal("for which systemd holds as many", held() - before - TOKENS, 6)
        os.kill(machine.main_process(), signal.SIGSTOP)
        end_meanwhile.end()
        os.kill(machine.main_process(), signal.SIGKILL)
        eventually("systemd lets go of what it held for one that ended meanwhile", lambda: held() - before - TOKENS == 3)
        report.equal("an endpoint whose program ends while there is no daemon is let go of", held() - before - TOKENS, 3)
        report.equal("and the other one is served", program.ask(), "200")
    eventually("systemd has let go of it", lambda: held() - before - TOKENS == 0)
    report.equal("when the program ends, systemd holds nothing for it any more", held() - before - TOKENS, 0)


def held() -> int:
    return int(show("arcbroker.service", "NFileDescriptorStore"))


def kill() -> None:
    killed = machine.main_process()
    os.kill(killed, signal.SIGKILL)
    eventually("another daemon serves", lambda: machine.main_process() not in (0, killed) and machine.serving())


EVENTS = {
    "a restart": lambda: systemctl("restart", "arcbroker.service"),
    "a kill -9": kill,
    "an upgrade": lambda: run("dpkg", "--install", machine.NEWER),
    "a reload": lambda: systemctl("reload", "arcbroker.service"),
    "systemd's own restart": lambda: systemctl("daemon-reexec"),
    "one more restart": lambda: systemctl("restart", "arcbroker.service"),
}


class Program:
    """An unmodified one: it knows two variables of its environment, and asks whenever it is told to."""

    SCRIPT = f"""
import os, sys, urllib.error, urllib.request
url = os.environ["IDENTITY_ENDPOINT"] + "?api-version=2019-08-01&resource={RESOURCE}"
for _ in sys.stdin:
    request = urllib.request.Request(url, headers={{"X-IDENTITY-HEADER": os.environ["IDENTITY_HEADER"]}})
    try:
        print(urllib.request.urlopen(request, timeout=30).status, flush=True)
    except urllib.error.URLError as error:
        print(error, flush=True)
"""

    def __init__(self) -> None:
        account = pwd.getpwnam("alice")
        self.process = subprocess.Popen(
            ["arcbroker", "exec", "--", "python3", "-c", self.SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=os.getgrouplist("alice", account.pw_gid),
        )

    def ask(self) -> str:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_) -> None:
        self.end()


STAGES = (play,)
