"""Where a client gets its tokens: a broker as it ships, or the stand-in that answers at once and always the same."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import rig
from store import Store

HERE = Path(__file__).resolve().parent
VAULT = "https://vault.azure.net"
STORAGE = "https://storage.azure.com/"
# As terraform writes it.
STORAGE_WITHOUT_SLASH = "https://storage.azure.com"
# What az asks for when it logs in, and for itself.
RESOURCE_MANAGER = "https://management.core.windows.net/"
FORBIDDEN = "https://graph.microsoft.com/"
ALLOWED = [VAULT, STORAGE, STORAGE_WITHOUT_SLASH, RESOURCE_MANAGER]
STRANGER = "00000000-1111-4222-8333-444444444444"


@dataclass(frozen=True)
class Request:
    """What the server wrote down of one request for a token."""

    outcome: str
    resource: str | None
    sha256: str | None
    expires_on: int | None

    @classmethod
    def of(cls, line: str) -> Request:
        record = json.loads(line)
        return cls(record["outcome"], record["resource"], record["token_sha256"], record["expires_on"])


class Scene:
    """A server in a directory of its own; `upstream` is the simulator behind it."""

    upstream: rig.Upstream
    journal: Path

    def requests(self) -> list[Request]:
        """Those of clients: `rig.RESOURCE` is what only the scene itself asks for."""
        requests = map(Request.of, self.journal.read_text().splitlines())
        return [request for request in requests if request.resource != rig.RESOURCE]


class Broker(Scene):
    def __init__(self, stack: contextlib.ExitStack, binaries: Path, directory: Path):
        self.stack = stack
        self.binaries = binaries
        self.store = Store(directory / "notify.sock")
        stack.callback(self.store.close)
        self.upstream = rig.start_upstream(stack, binaries, directory)
        self.files = rig.write_configuration(directory / "broker", self.upstream, rules=1)
        rig.write_owned(self.files.directory / "policy.d" / "sdk.toml", policy_text())
        self.journal = self.files.audit
        self.start()
        self.client_id = claims_of(json.loads(rig.fetch(self.files.socket))["access_token"])["appid"]

    def start(self) -> None:
        launcher, descriptors = self.store.launch()
        options = {"env": self.store.environment(), "pass_fds": descriptors}
        self.process = rig.start_broker(self.stack, self.binaries, self.files, launcher, **options)

    def restart(self) -> None:
        """As systemd does it: the old daemon ends, and the new one gets what it left."""
        rig.stop(self.process)
        if self.process.returncode != 0:
            raise rig.Failure(f"arcbrokerd ended with status {self.process.returncode} on SIGTERM")
        self.start()

    def command(self, program: list, imds: bool = False) -> list:
        arcbroker = rig.binary(self.binaries, "arcbroker")
        options = ["--imds"] if imds else []
        return [arcbroker, "--socket", self.files.socket, "exec", *options, "--", *program]

    def environment(self) -> dict[str, str]:
        """`arcbroker exec` sets what a client needs."""
        return {}


class StandIn(Scene):
    def __init__(self, stack: contextlib.ExitStack, binaries: Path, directory: Path):
        self.upstream = start_imds(stack, binaries, directory)
        self.journal = directory / "stub.jsonl"
        log = directory / "stub.log"
        command = [HERE / "stub", "--upstream", self.upstream.endpoint, "--journal", self.journal, *ALLOWED]
        process = rig.start(stack, command, log)
        line = rig.wait_for("the stand-in prints its variables", process, log, lambda: first_line(log))
        self.variables = json.loads(line)

    def command(self, program: list) -> list:
        return program

    def environment(self) -> dict[str, str]:
        return self.variables


def start_imds(stack: contextlib.ExitStack, binaries: Path, directory: Path) -> rig.Upstream:
    """A simulator that needs no challenge, for tokens as large and as signed as those of the broker."""
    log = directory / "imds.log"
    tokens = directory / "none"
    command = [rig.binary(binaries, "himds-sim"), "--imds", "--no-rate-limits", "--tokens-dir", tokens]
    process = rig.start(stack, command, log)
    return rig.Upstream(rig.wait_for("himds-sim prints its address", process, log, lambda: first_line(log)), tokens)


def first_line(log: Path) -> str | None:
    line, newline, _ = log.read_text(errors="replace").partition("\n")
    return line if newline and line.startswith(("http://", "{")) else None


def policy_text() -> str:
    resources = ", ".join(f'"{resource}"' for resource in ALLOWED)
    return f'version = 1\n\n[[rule]]\nname = "the clients"\nuser = "{os.getuid()}"\nresources = [{resources}]\n'


def claims_of(token: str) -> dict:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
