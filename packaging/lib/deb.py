"""The package for Debian and Ubuntu, with dpkg-deb."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from email.utils import formatdate
from pathlib import Path

import contents
import crates
import elf
import tree
from tree import DOC, ROOT, Package

SCRIPTS = ("postinst", "prerm", "postrm")
MAINTAINER = "The arcbroker authors <arcbroker@localhost.localdomain>"


def build(common: Path, work: Path, package: Package, output: Path) -> Path:
    root = work / "deb"
    shutil.copytree(common, root, symlinks=True)
    documents(root, package)
    tree.settle(root, package.epoch)
    control_files(root, package)
    target = output / f"arcbroker_{package.version}_{package.arch}.deb"
    # xz: what dpkg of every supported release reads.
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, target]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(package.epoch)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return target


def documents(root: Path, package: Package) -> None:
    entry = f"""arcbroker ({package.version}) stable; urgency=medium

  * What changed is in CHANGELOG.md.gz.

 -- {MAINTAINER}  {formatdate(package.epoch)}
"""
    tree.write_compressed(root, f"{DOC}/changelog.gz", entry.encode())
    shutil.copyfile(ROOT / "packaging/deb/lintian-overrides", tree.place(root, "usr/share/lintian/overrides/arcbroker"))
    tree.write(root, f"{DOC}/copyright", copyright_file(package).encode())


def copyright_file(package: Package) -> str:
    """Debian's form of it, with the licence of everything that is linked in."""
    foreign = [crate for crate in crates.linked(contents.TARGETS[package.arch]) if crate.checksum]
    lines = [f"  {crate.name} {crate.version}: {crate.licence}" for crate in foreign]
    return (ROOT / "packaging/deb/copyright").read_text().format(crates="\n".join(lines))


def control_files(root: Path, package: Package) -> None:
    names = tree.files(root)
    sums = "".join(f"{md5(root / name[1:])}  {name[1:]}\n" for name in names)
    size = sum((root / name[1:]).stat().st_size for name in names)
    control = (ROOT / "packaging/deb/control").read_text().format(
        version=package.version,
        arch=package.arch,
        size=-(-size // 1024),
        maintainer=MAINTAINER,
        libraries=libraries(root),
    )
    debian = root / "DEBIAN"
    debian.mkdir(mode=0o755)
    (debian / "control").write_text(control)
    (debian / "md5sums").write_text(sums)
    (debian / "conffiles").write_text("".join(f"{name}\n" for name in tree.conffiles(root)))
    for script in SCRIPTS:
        shutil.copyfile(ROOT / "packaging/deb" / script, debian / script)
    for path in debian.iterdir():
        path.chmod(0o755 if path.name in SCRIPTS else 0o644)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def libraries(root: Path) -> str:
    """The packages of the libraries that the programs need, in the version they need."""
    programs = [root / "usr/bin" / program for program in contents.PROGRAMS]
    glibc = ".".join(map(str, max(map(elf.glibc, programs))))
    needed = set().union(*map(elf.libraries, programs))
    unwinder = ["libgcc-s1"] if "libgcc_s.so.1" in needed else []
    return ", ".join([f"libc6 (>= {glibc})", *unwinder])
