"""What the simulator of HIMDS was asked."""

from __future__ import annotations

import http.client
import json
import socket

from lib.machine import CONTROL

TOKEN = "/metadata/identity/oauth2/token"


class Control(http.client.HTTPConnection):
    def __init__(self) -> None:
        super().__init__("himds", timeout=30)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(CONTROL)


def control(method: str, path: str, body: str | None = None) -> bytes:
    connection = Control()
    connection.request(method, path, body)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"himds-sim answers {answer.status} to {method} {path}: {text!r}")
    return text


def asked() -> int:
    """How often it was asked for a token; each daemon also asks once which cloud the machine is in."""
    return sum(entry["path"] == TOKEN for entry in json.loads(control("GET", "/journal")))
