"""Starts the stand-ins for Azure's services (`tests/standins`) beside a simulated upstream."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import rig

PROGRAM = rig.REPOSITORY / "tests" / "standins" / "azure-standins"


@dataclass(frozen=True)
class Standins:
    """Addresses without a slash at the end, and PEM files."""

    arm: str
    keyvault: str
    ca: str
    certificate: str
    key: str


def start(stack: contextlib.ExitStack, upstream: rig.Upstream, directory: Path) -> Standins:
    rig.tool("openssl")
    directory.mkdir(mode=0o750)
    log = directory / "standins.log"
    process = rig.start(stack, [PROGRAM, "--upstream", upstream.endpoint, "--directory", directory], log)

    def first_line() -> str | None:
        line, newline, _ = log.read_text(errors="replace").partition("\n")
        return line if newline and line.startswith("{") else None

    return Standins(**json.loads(rig.wait_for("the stand-ins print their addresses", process, log, first_line)))
