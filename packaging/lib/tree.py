"""The tree of files that both packages contain, with the mode and the time of each."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOC = "usr/share/doc/arcbroker"
UNITS = "usr/lib/systemd/system"

PROGRAMS = ("arcbroker", "arcbrokerd")

# What lies in the repository: where it goes, and what it is made from.
FILES = {
    f"{UNITS}/arcbroker.service": "systemd/arcbroker.service",
    f"{UNITS}/arcbroker.socket": "systemd/arcbroker.socket",
    f"{UNITS}/arcbroker-admin.socket": "systemd/arcbroker-admin.socket",
    "usr/lib/systemd/system-preset/50-arcbroker.preset": "systemd/arcbroker.preset",
    "usr/lib/sysusers.d/arcbroker.conf": "systemd/arcbroker.sysusers",
    "usr/lib/tmpfiles.d/arcbroker.conf": "systemd/arcbroker.tmpfiles",
    "etc/arcbroker/broker.toml": "packaging/broker.toml",
    "etc/logrotate.d/arcbroker": "packaging/logrotate.d/arcbroker",
    f"{DOC}/examples/policy.d/10-examples.toml": "packaging/examples/policy.d/10-examples.toml",
}

EMPTY_DIRECTORIES = ("etc/arcbroker/policy.d", "etc/arcbroker/policy.shadow.d")


@dataclass(frozen=True)
class Package:
    """What the names and headers of both packages say."""

    version: str
    arch: str
    epoch: int


def stage(tree: Path, binaries: Path) -> None:
    """Puts all that both packages have in common below `tree`."""
    for program in PROGRAMS:
        strip(binaries / program, place(tree, f"usr/bin/{program}"))
    for target, source in FILES.items():
        shutil.copyfile(ROOT / source, place(tree, target))
    for directory in EMPTY_DIRECTORIES:
        (tree / directory).mkdir(parents=True)
    write_compressed(tree, f"{DOC}/CHANGELOG.md.gz", (ROOT / "CHANGELOG.md").read_bytes())


def place(tree: Path, target: str) -> Path:
    path = tree / target
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(tree: Path, target: str, content: bytes) -> None:
    place(tree, target).write_bytes(content)


def write_compressed(tree: Path, target: str, content: bytes) -> None:
    """As `gzip -9n`: with neither a name nor a time."""
    write(tree, target, gzip.compress(content, 9, mtime=0))


def strip(source: Path, target: Path) -> None:
    """Debug symbols are not shipped: they are most of what the compiler writes.

    With the compiler's own tool, which also knows the other architectures.
    """
    sysroot = Path(rustc("sysroot"))
    objcopy = sysroot / "lib/rustlib" / rustc("host-tuple") / "bin/rust-objcopy"
    environment = os.environ | {"LD_LIBRARY_PATH": str(sysroot / "lib")}
    subprocess.run([objcopy, "--strip-all", source, target], check=True, env=environment)


def rustc(what: str) -> str:
    return subprocess.run(["rustc", "--print", what], check=True, capture_output=True, text=True).stdout.strip()


def settle(tree: Path, epoch: int) -> None:
    """Gives every file the mode and the time it has in the packages."""
    for path in [tree, *sorted(tree.rglob("*"))]:
        if path.is_symlink():
            os.utime(path, (epoch, epoch), follow_symlinks=False)
            continue
        path.chmod(0o755 if path.is_dir() or path.parent == tree / "usr/bin" else 0o644)
        os.utime(path, (epoch, epoch))


def files(tree: Path) -> list[str]:
    """Everything but directories, as paths from the root."""
    return sorted(f"/{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_symlink() or not path.is_dir())


def directories(tree: Path, below: tuple[str, ...]) -> list[str]:
    """The directories that are ours: those at or below one of `below`."""
    found = (f"/{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_dir() and not path.is_symlink())
    return sorted(name for name in found if any(name == own or name.startswith(own + "/") for own in below))


def conffiles(tree: Path) -> list[str]:
    """Everything below /etc is the administrator's to change."""
    return [name for name in files(tree) if name.startswith("/etc/")]
