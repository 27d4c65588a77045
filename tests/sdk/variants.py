"""What each client is put through, and what must have come of it by its own word and by the server's record."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path
from typing import Callable

import rig
from catalogue import Client
from install import Skipped
from scene import FORBIDDEN, STRANGER, Scene
from session import Answer, Session

HERE = Path(__file__).resolve().parent
# A client may count from when the token came.
CLOCK_TOLERANCE = 5
# Seconds after which a client has given up on what is refused, and has ended.
PATIENCE = 10.0


class Trial:
    """One client with a server of its own."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path, client: Client, installation: Path, scene: Scene):
        self.stack = stack
        self.directory = directory
        self.client = client
        self.installation = installation
        self.scene = scene
        self.around = client.surroundings(stack, scene, directory)
        self.home = directory / "home"
        self.home.mkdir()

    def start(self, variables: dict[str, str] | None = None, wrapper: list | None = None, **options) -> Session:
        """`wrapper` goes around all, so that it sees nothing of what `exec` sets."""
        program = self.client.command(self.installation, self.client.credential)
        command = [*(wrapper or []), *self.scene.command(program, **options)]
        return Session(self.stack, command, {**self.environment(), **(variables or {})}, self.directory)

    def environment(self) -> dict[str, str]:
        """Little of the machine's own, so that no other credential and no proxy of its is found."""
        base = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        return {**base, **self.scene.environment(), **self.around}

    def fetch_all(self, session: Session, between: Callable[[], None] = lambda: None) -> None:
        """Each resource once, and the first one once more; `between` comes after the first answer."""
        first, *others = self.client.resources
        asked = [first, *others, first]
        answers = [session.ask(first)]
        between()
        answers += [session.ask(resource) for resource in asked[1:]]
        session.finish()
        requested = asked[:-1] if self.client.remembers else asked
        self.expect_requests(session, [("issued", resource) for resource in requested])
        self.expect_tokens(session, asked, answers)

    def expect_requests(self, session: Session, expected: list[tuple[str, str | None]]) -> None:
        wanted = [*(("issued", resource) for resource in self.client.first), *expected]
        seen = [(request.outcome, request.resource) for request in self.scene.requests()]
        if seen != wanted:
            raise rig.Failure(f"requests {seen} instead of {wanted}\n{session.output()}")

    def expect_tokens(self, session: Session, asked: list[str], answers: list[Answer]) -> None:
        issued = {request.resource: request for request in self.scene.requests()}
        for resource, answer in zip(asked, answers):
            request = issued[resource]
            if answer.sha256 != request.sha256:
                raise rig.Failure(f"the token is not the one that was issued for {resource}\n{session.output()}")
            if abs(answer.expires_on - request.expires_on) > CLOCK_TOLERANCE:
                raise rig.Failure(f"{answer.expires_on} is not when it ends: {request.expires_on}\n{session.output()}")


def plain(trial: Trial) -> None:
    trial.fetch_all(trial.start())


def dead_proxy(trial: Trial) -> None:
    with contextlib.closing(socket.socket()) as nobody:
        # Bound and not listening: nothing else can have the port, and a connection is refused.
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        trial.fetch_all(trial.start({name: address for name in names if name not in trial.around}))


def arc_agent(trial: Trial) -> None:
    if os.getuid() != 0:
        raise Skipped("a mount namespace needs root")
    unshare = shutil.which("unshare")
    if unshare is None:
        raise Skipped("unshare not installed")
    trial.fetch_all(trial.start(wrapper=[unshare, "--mount", HERE / "with-arc-agent"]))


def own_client_id(trial: Trial) -> None:
    trial.fetch_all(trial.start({"AZURE_CLIENT_ID": trial.scene.client_id}))


def other_client_id(trial: Trial) -> None:
    session = trial.start({"AZURE_CLIENT_ID": STRANGER})
    session.ask_in_vain(trial.client.resources[0])
    requests = trial.scene.requests()
    wanted = (*trial.client.first, *trial.client.resources)[0]
    if [(request.outcome, request.resource) for request in requests] != [("denied", wanted)]:
        raise rig.Failure(f"requests {requests} instead of one that is denied for {wanted}\n{session.output()}")


def restart(trial: Trial) -> None:
    trial.fetch_all(trial.start(), between=trial.scene.restart)


def denied(trial: Trial) -> None:
    session = trial.start()
    first = trial.client.resources[0]
    session.ask(first)
    seconds = session.ask_in_vain(FORBIDDEN)
    trial.expect_requests(session, [("issued", first), ("denied", FORBIDDEN)])
    if seconds > PATIENCE:
        raise rig.Failure(f"it took {seconds:.1f} s to give up\n{session.output()}")


def imds(trial: Trial) -> None:
    environment = ["env", "-u", "IDENTITY_ENDPOINT", "-u", "IDENTITY_HEADER"]
    program = [*environment, *trial.client.command(trial.installation, trial.client.credential)]
    session = Session(trial.stack, trial.scene.command(program, imds=True), trial.environment(), trial.directory)
    trial.fetch_all(session)


VARIANTS: dict[str, Callable[[Trial], None]] = {
    "plain": plain,
    "dead proxy": dead_proxy,
    "Arc agent": arc_agent,
    "own client id": own_client_id,
    "other client id": other_client_id,
    "restart": restart,
    "denied": denied,
    "exec --imds": imds,
}
