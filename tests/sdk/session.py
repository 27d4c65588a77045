"""One run of a client: it reads a resource from a line, and answers in a line with what shows the token it got."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import rig

DEADLINE = 60.0
TOKEN = re.compile(r"eyJ[\w-]{10,}(\.[\w-]*)*")
SECRET = re.compile(r"\b[0-9a-f]{64}\b")
OUTPUT = 3000


@dataclass(frozen=True)
class Answer:
    sha256: str
    expires_on: int


class Session:
    """Ends the program, and all that it started, at the deadline or when the stack unwinds."""

    def __init__(self, stack: contextlib.ExitStack, command: list, environment: dict[str, str], directory: Path):
        self.printed: list[str] = []
        self.log = directory / "client.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=directory,
                start_new_session=True,
            )
        stack.callback(self.end)
        self.deadline = threading.Timer(DEADLINE, self.kill)
        self.deadline.start()

    def ask(self, resource: str) -> Answer:
        self.write(resource)
        line = self.process.stdout.readline()
        self.printed.append(line)
        sha256, _, expires_on = line.strip().partition(" ")
        if not expires_on.isdigit():
            raise self.failure(f"no token for {resource}")
        return Answer(sha256, int(expires_on))

    def ask_in_vain(self, resource: str) -> float:
        """Seconds until the program has given up, which it shows by its exit status."""
        started = time.monotonic()
        self.write(resource)
        self.printed.append(self.process.stdout.read())
        status = self.process.wait()
        if status <= 0 or self.printed[-1]:
            raise self.failure(f"a refusal of {resource} did not make it fail")
        return time.monotonic() - started

    def write(self, resource: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{resource}\n")
            self.process.stdin.flush()

    def finish(self) -> None:
        self.process.stdin.close()
        self.printed.append(self.process.stdout.read())
        if self.process.wait() != 0:
            raise self.failure("it failed at its end")

    def failure(self, what: str) -> rig.Failure:
        status = self.process.poll()
        state = "still runs" if status is None else f"ended with status {status}"
        return rig.Failure(f"{what}; the program {state}\n{self.output()}")

    def output(self) -> str:
        return without_secrets("".join(self.printed) + self.log.read_text(errors="replace"))[-OUTPUT:]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        self.deadline.cancel()
        self.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def without_secrets(text: str) -> str:
    return SECRET.sub("<secret>", TOKEN.sub("<token>", text))
