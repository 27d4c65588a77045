"""Installs clients from their registries, once for each state of their manifests."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import rig

CLIENTS = Path(__file__).resolve().parent / "clients"
DONE = "installed"
OUTPUT = 3000


class Skipped(Exception):
    """Why something cannot be done on this machine."""


@dataclass(frozen=True)
class Toolkit:
    """Clients of one language, installed together."""

    name: str
    needs: tuple[str, ...]
    """Commands."""
    package: str
    version: Callable[[], str]
    """That of the package."""
    install: Callable[[Path, Path], None]
    """From the directory with the sources, into an empty one."""

    @property
    def sources(self) -> Path:
        return CLIENTS / self.name


def pinned(manifest: str, expression: str) -> Callable[[], str]:
    """The version that a manifest below `clients` asks for, as the expression finds it there."""
    return lambda: re.search(expression, (CLIENTS / manifest).read_text()).group(1)


def version_of_terraform() -> str:
    done = subprocess.run(["terraform", "version", "-json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout)["terraform_version"]


def installed(toolkit: Toolkit, cache: Path) -> Path:
    """The directory with the clients of a toolkit, which are installed first if they are not there."""
    missing = [command for command in toolkit.needs if shutil.which(command) is None]
    if missing:
        raise Skipped(f"{' and '.join(missing)} not installed")
    directory = cache / f"{toolkit.name}-{digest_of(toolkit.sources)}"
    with locked(cache):
        if not (directory / DONE).exists():
            for old in cache.glob(f"{toolkit.name}-*"):
                shutil.rmtree(old)
            directory.mkdir()
            toolkit.install(toolkit.sources, directory)
            (directory / DONE).touch()
    return directory


def digest_of(sources: Path) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Two runs do not install at the same time."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*words: object, **options) -> None:
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if done.returncode != 0:
        raise rig.Failure(f"{words[0]} {words[1]} failed:\n{done.stdout[-OUTPUT:]}")


def python(sources: Path, into: Path) -> None:
    run(sys.executable, "-m", "venv", into)
    run(into / "bin" / "pip", "install", "--quiet", "--requirement", sources / "requirements.txt")


def javascript(sources: Path, into: Path) -> None:
    shutil.copytree(sources, into, dirs_exist_ok=True)
    run("npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", cwd=into)


def go(sources: Path, into: Path) -> None:
    run("go", "build", "-mod=readonly", "-o", into / "tokens", ".", cwd=sources)


def java(sources: Path, into: Path) -> None:
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    libraries = into / "lib"
    options = ["-DincludeScope=runtime", f"-DoutputDirectory={libraries}"]
    run("mvn", "--quiet", "--batch-mode", "--file", sources, goal, *options)
    run("javac", "-cp", f"{libraries}/*", "-d", into / "classes", sources / "Tokens.java")


def rust(sources: Path, into: Path) -> None:
    build = into / "build"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(build)}
    run("cargo", "build", "--quiet", "--locked", "--manifest-path", sources / "Cargo.toml", env=environment)
    (build / "debug" / "tokens").rename(into / "tokens")
    shutil.rmtree(build)


def nothing(_sources: Path, _into: Path) -> None:
    """It is on the machine, or it is not."""
