"""A tree of files, with the mode and the time that each has in the packages."""

from __future__ import annotations

import gzip
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOC = "usr/share/doc/arcbroker"
# The directories of what is run.
EXECUTABLES = ("usr/bin", "usr/lib/arcbroker", "usr/lib/systemd/system-generators", "etc/needrestart/restart.d")


@dataclass(frozen=True)
class Package:
    """What the names and headers of both packages say."""

    version: str
    arch: str
    epoch: int


def place(tree: Path, target: str) -> Path:
    path = tree / target
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(tree: Path, target: str, content: bytes) -> None:
    place(tree, target).write_bytes(content)


def write_compressed(tree: Path, target: str, content: bytes) -> None:
    """As `gzip -9n`: with neither a name nor a time."""
    write(tree, target, gzip.compress(content, 9, mtime=0))


def rustc(what: str) -> str:
    """What the compiler says of itself."""
    command = ["rustc", "--print", what]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def settle(tree: Path, epoch: int) -> None:
    """Gives every file the mode and the time it has in the packages."""
    programs = [tree / directory for directory in EXECUTABLES]
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.parent in programs else 0o644)
        os.utime(path, (epoch, epoch))


def files(tree: Path) -> list[str]:
    """Everything but directories, as paths from the root."""
    return sorted(f"/{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_file())


def directories(tree: Path, own: tuple[str, ...]) -> list[str]:
    """Those that belong to the package alone: `own`, and what is below."""
    found = (f"/{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_dir())
    return sorted(name for name in found if any(name == top or name.startswith(f"{top}/") for top in own))


def conffiles(tree: Path) -> list[str]:
    """Everything below /etc is the administrator's to change."""
    return [name for name in files(tree) if name.startswith("/etc/")]
