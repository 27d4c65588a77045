"""systemd as an administrator speaks to it, and programs as they start."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Callable, TypeVar

PATIENCE = 30.0

T = TypeVar("T")


def run(*command: str, **options) -> subprocess.CompletedProcess:
    """What a command printed; one that fails is an error unless `check=False` says that it may."""
    options = {"check": True, "stdin": subprocess.DEVNULL, **options}
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options
        )
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{' '.join(command)} ended with {error.returncode}: {error.stdout}") from error


def systemctl(*words: str) -> str:
    return run("systemctl", *words).stdout


def environment(name: str) -> str:
    """A variable of the manager's own environment."""
    for line in systemctl("show-environment").splitlines():
        key, _, value = line.partition("=")
        if key == name:
            return value
    raise KeyError(name)


def show(unit: str, name: str) -> str:
    return systemctl("show", f"--property={name}", "--value", unit).rstrip("\n")


def is_active(unit: str) -> bool:
    return show(unit, "ActiveState") == "active"


def drop_in(unit: str, name: str, text: str) -> None:
    directory = Path("/etc/systemd/system") / f"{unit}.d"
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.conf").write_text(text)
    systemctl("daemon-reload")


def remove_drop_in(unit: str, name: str) -> None:
    (Path("/etc/systemd/system") / f"{unit}.d" / f"{name}.conf").unlink()
    systemctl("daemon-reload")


def journal(*words: str) -> str:
    run("journalctl", "--sync")
    return run("journalctl", "--no-pager", "--quiet", *words).stdout


def eventually(what: str, condition: Callable[[], T], patience: float = PATIENCE) -> T:
    """What the condition gives, as soon as it is something; an error when that takes too long."""
    deadline = time.monotonic() + patience
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience:.0f} s: {what}")
        time.sleep(0.01)
    return result
