"""A machine that boots while HIMDS does not come: callers wait, or are told when to come again."""

from __future__ import annotations

import threading
import time
import urllib.request

from lib import machine
from lib.client import ask_once
from lib.machine import UNITS
from lib.manager import eventually, is_active, show, systemctl
from lib.report import Report

RESOURCE = "https://vault.azure.net"


def install(report: Report) -> None:
    machine.install_agent(start=False)
    machine.install()
    machine.allow("user", "root", RESOURCE)
    report.check("the service is ready although HIMDS has never been there", machine.serving())


def boot(report: Report) -> None:
    for unit in UNITS:
        eventually(f"{unit} is active", lambda unit=unit: is_active(unit))
        report.check(f"after a boot without HIMDS, {unit} is active", is_active(unit))
    report.check("HIMDS is not", not is_active("himdsd.service"))
    report.told(f"the daemon has {show('arcbroker.service', 'NRestarts')} restarts behind it")
    without_himds(report)
    himds_comes(report)


def without_himds(report: Report) -> None:
    begin = time.monotonic()
    status, headers, _ = ask_once(RESOURCE)
    report.told(f"without HIMDS, a request got {status} after {time.monotonic() - begin:.1f} s")
    report.equal("a request gets 503 as long as HIMDS does not come", status, 503)
    report.check("and is told when to come again", headers.get("retry-after", "").isdigit(), headers)


def himds_comes(report: Report) -> None:
    waiting = Waiting()
    eventually("the broker has the request", lambda: machine.status()["tokens"])
    systemctl("start", "himdsd.service")
    eventually("HIMDS listens", machine.himds_listens)
    # The simulator makes itself a key after it has begun to listen, which takes it a second or several.
    urllib.request.urlopen("http://127.0.0.1:40342/.well-known/jwks.json", timeout=60).close()
    begin = time.monotonic()
    waiting.thread.join()
    late = max(0.0, waiting.ended - begin)
    report.equal("a request that waits gets its token when HIMDS comes", waiting.status, 200)
    report.check(f"within 2 s of its being able to: {late:.2f} s", late <= 2.0)


class Waiting:
    """A request under way."""

    def __init__(self) -> None:
        self.status = 0
        self.ended = 0.0
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()

    def ask(self) -> None:
        self.status, _, _ = ask_once(RESOURCE)
        # Here, where nobody has yet to wake up for it.
        self.ended = time.monotonic()


STAGES = (install, boot)
