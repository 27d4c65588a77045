"""What the recipes need and the system does not have: installed once, and again when a manifest changes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import rig

HERE = Path(__file__).resolve().parent
RUST = rig.REPOSITORY / "docs" / "recipes" / "rust"


class Missing(Exception):
    """Something that this machine does not have; the message says what."""


@dataclass(frozen=True)
class Cache:
    directory: Path

    @property
    def python(self) -> Path:
        return self.directory / "python"

    @property
    def node(self) -> Path:
        return self.directory / "node"

    @property
    def rust(self) -> Path:
        return self.directory / "rust"

    def install_python(self) -> None:
        """az and the SDKs of Python, as `requirements.txt` pins them, in an environment of their own."""

        def install() -> None:
            run("the Python SDKs", [sys.executable, "-m", "venv", "--clear", self.python])
            pip = [self.python / "bin" / "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            run("the Python SDKs", [*pip, "--requirement", HERE / "requirements.txt"])

        self.once(self.python, [HERE / "requirements.txt"], sys.version, install)

    def install_azurite(self) -> list:
        """The command that starts Azurite's blob service."""
        need("node", "npm")

        def install() -> None:
            shutil.rmtree(self.node, ignore_errors=True)
            self.node.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, self.node)
            run("Azurite", ["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=self.node)

        self.once(self.node, [HERE / "package.json", HERE / "package-lock.json"], "", install)
        return ["node", self.node / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"]

    @property
    def rust_environment(self) -> dict[str, str]:
        """The same for the build and the runs, or they build anew."""
        return {"CARGO_TARGET_DIR": str(self.rust), "CARGO_PROFILE_DEV_DEBUG": "0"}

    def build_rust(self) -> None:
        need("cargo")
        environment = {**os.environ, **self.rust_environment}
        manifest = RUST / "Cargo.toml"
        command = ["cargo", "build", "--quiet", "--locked", "--manifest-path", manifest]
        remedy = f"if the lock file is behind crates/client: cargo update --workspace --manifest-path {manifest}"
        run("the programs in Rust", command, remedy, env=environment)

    def once(self, directory: Path, manifests: list[Path], more: str, install) -> None:
        """Installs unless that was done for the same manifests; two runs do not do it at the same time."""
        self.directory.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(more.encode())
        for manifest in manifests:
            digest.update(manifest.read_bytes())
        stamp = self.directory / f"{directory.name}.stamp"
        with open(self.directory / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if stamp.read_text() == digest.hexdigest():
                    return
            stamp.unlink(missing_ok=True)
            install()
            stamp.write_text(digest.hexdigest())


def need(*names: str) -> None:
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise Missing(f"{' and '.join(missing)} not installed")


def run(what: str, command: list, remedy: str = "", **options) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if done.returncode != 0:
        raise rig.Failure(f"{what} cannot be had:\n{done.stdout[-3000:]}{remedy}")
