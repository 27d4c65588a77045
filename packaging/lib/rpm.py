"""The package for RHEL, SLES and their like, with rpmbuild."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import contents
import tree
from tree import DOC, ROOT, Package

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
# The directories that no other package has.
OWN = ("/etc/arcbroker", f"/{DOC}", "/usr/lib/arcbroker", "/usr/share/licenses/arcbroker")


def build(common: Path, work: Path, package: Package, output: Path) -> Path:
    staged = work / "rpm-tree"
    shutil.copytree(common, staged, symlinks=True)
    shutil.copyfile(ROOT / "LICENSE", tree.place(staged, "usr/share/licenses/arcbroker/LICENSE"))
    zsh = staged / contents.COMPLETIONS["zsh"]
    zsh.rename(tree.place(staged, zsh_completion(contents.COMPLETIONS["zsh"])))
    zsh.parent.rmdir()
    tree.settle(staged, package.epoch)
    top = work / "rpm"
    top.mkdir()
    (top / "files").write_text("".join(f"{line}\n" for line in file_list(staged)))
    shutil.copyfile(ROOT / "packaging/rpm/arcbroker.spec", top / "arcbroker.spec")
    arch = ARCHITECTURES[package.arch]
    defines = {
        "_topdir": top,
        "staged": staged,
        "version": package.version,
    }
    command = ["rpmbuild", "-bb", "--quiet", "--target", arch]
    for name, value in defines.items():
        command += ["--define", f"{name} {value}"]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(package.epoch), "LC_ALL": "C"}
    subprocess.run([*command, top / "arcbroker.spec"], check=True, env=environment, stdout=subprocess.DEVNULL)
    name = f"arcbroker-{package.version}-1.{arch}.rpm"
    return Path(shutil.copyfile(top / "RPMS" / arch / name, output / name))


def zsh_completion(debian: str) -> str:
    """Where zsh looks outside Debian."""
    return debian.replace("vendor-completions", "site-functions")


def file_list(staged: Path) -> list[str]:
    """The entries of %files."""
    return [f"%dir {name}" for name in tree.directories(staged, OWN)] + [entry(name) for name in tree.files(staged)]


def entry(name: str) -> str:
    if name.startswith("/etc/"):
        return f"%config(noreplace) {name}"
    if name.startswith("/usr/share/licenses/") or name == f"/{DOC}/THIRD-PARTY.gz":
        return f"%license {name}"
    if name.startswith("/usr/share/doc/"):
        return f"%doc {name}"
    return name
