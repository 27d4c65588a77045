"""Installs clients from their registries, once for each state of their manifests."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
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
    version: tuple[str, str]
    """A manifest, and the expression that finds the version of the package in it."""
    install: Callable[[Path, Path], None]
    """From the directory with the sources, into an empty one."""

    @property
    def sources(self) -> Path:
        return CLIENTS / self.name

    def package_version(self) -> str:
        manifest, expression = self.version
        return re.search(expression, (self.sources / manifest).read_text()).group(1)


def installed(toolkit: Toolkit, cache: Path) -> Path:
    """The directory with the clients of a toolkit, which are installed first if they are not there."""
    missing = [need for need in toolkit.needs if shutil.which(need) is None]
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
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    libraries = into / "lib"
    run("mvn", "--quiet", "--batch-mode", "--file", sources, copy, "-DincludeScope=runtime", f"-DoutputDirectory={libraries}")
    run("javac", "-cp", f"{libraries}/*", "-d", into / "classes", sources / "Tokens.java")


def rust(sources: Path, into: Path) -> None:
    environment = {**os.environ, "CARGO_TARGET_DIR": str(into)}
    run("cargo", "build", "--quiet", "--locked", "--manifest-path", sources / "Cargo.toml", env=environment)


def nothing(_sources: Path, _into: Path) -> None:
    """It is on the machine, or it is not."""
