"""What `systemctl status` shows, and a daemon that hangs."""

from __future__ import annotations

import os
import signal
import time

from lib import machine
from lib.client import ask_once
from lib.manager import drop_in, eventually, run, show, systemctl
from lib.report import Report

HEALTH = ("healthy", "starting", "degraded", "failing")
RESOURCE = "https://vault.azure.net"


def play(report: Report) -> None:
    machine.install_agent()
    machine.install()
    machine.allow("user", "root", RESOURCE)
    status_line(report)
    reload(report)
    watchdog(report)


def status_line(report: Report) -> None:
    report.equal("a token is to be had", ask_once(RESOURCE)[0], 200)
    text = eventually("there is a line of health", lambda: show("arcbroker.service", "StatusText"))
    report.check("systemctl status shows one line of health", text.split(":")[0].split()[0] in HEALTH, text)
    report.told(text)
    report.check("where an administrator looks for it", eventually("systemctl status shows it", is_shown))


def is_shown() -> bool:
    """Whether two looks have the same line; the daemon may tell another one in between."""
    text = show("arcbroker.service", "StatusText")
    return f'Status: "{text}"' in run("systemctl", "status", "arcbroker.service", check=False).stdout


def reload(report: Report) -> None:
    systemctl("reload", "arcbroker.service")
    eventually("the service is active again", machine.serving)
    report.check("a reload ends, and the service is active", machine.serving())


def watchdog(report: Report) -> None:
    report.equal("systemd waits 90 s for a sign of life", show("arcbroker.service", "WatchdogUSec"), "1min 30s")
    drop_in("arcbroker.service", "watchdog", "[Service]\nWatchdogSec=2\n")
    systemctl("restart", "arcbroker.service")
    first = show("arcbroker.service", "WatchdogTimestampMonotonic")
    alive = eventually("a sign of life", lambda: show("arcbroker.service", "WatchdogTimestampMonotonic") != first)
    report.check("the daemon gives signs of life", alive)
    stopped = eventually("there is a daemon", machine.main_process)
    begin = time.monotonic()
    os.kill(stopped, signal.SIGSTOP)
    eventually("another daemon serves", lambda: machine.main_process() not in (0, stopped) and machine.serving())
    report.check("a daemon that hangs is replaced", machine.main_process() != stopped)
    report.told(f"after {time.monotonic() - begin:.1f} s, of which systemd waits 2")
    said = run("journalctl", "--no-pager", "--quiet", "_PID=1").stdout
    report.check("by systemd's watchdog", "arcbroker.service: Watchdog timeout" in said, said[-2000:])
    report.equal("and callers are served", ask_once(RESOURCE)[0], 200)


STAGES = (play,)
