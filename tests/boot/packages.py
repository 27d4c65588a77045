"""The package that is tested, and an older one that it takes the place of."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Below every version that there was.
OLDER = "0.0.0"


def provide(package: Path | None, binaries: Path, directory: Path) -> None:
    """Puts `newer.deb` and `older.deb` into a directory; the package is built if none is given."""
    directory.mkdir()
    shutil.copyfile(package or build(binaries, directory / "built"), directory / "newer.deb")
    renumber(directory / "newer.deb", directory / "older.deb")


def build(binaries: Path, directory: Path) -> Path:
    command = [REPOSITORY / "packaging/build", "--binaries", binaries, "--output", directory]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    (built,) = directory.glob("arcbroker_*.deb")
    return built


def renumber(package: Path, older: Path) -> None:
    """The same package with a lower number: to dpkg, all of its files are others."""
    with tempfile.TemporaryDirectory() as unpacked:
        dpkg_deb("--raw-extract", package, unpacked)
        control = Path(unpacked) / "DEBIAN/control"
        control.write_text(re.sub("(?m)^Version: .*$", f"Version: {OLDER}", control.read_text()))
        dpkg_deb("--root-owner-group", "-Zgzip", "-z1", "--build", unpacked, older)


def dpkg_deb(*words) -> None:
    subprocess.run(["dpkg-deb", *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
