"""What both packages contain."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import crates
import manual
from tree import DOC, ROOT, Package, place, rustc, write, write_compressed

TARGETS = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
PROGRAMS = ("arcbroker", "arcbrokerd")
UNITS = "usr/lib/systemd/system"
SBOM = f"{DOC}/sbom.cdx.json"

# What lies in the repository: where it goes, and what it is a copy of.
FILES = {
    f"{UNITS}/arcbroker.service": "systemd/arcbroker.service",
    f"{UNITS}/arcbroker.socket": "systemd/arcbroker.socket",
    f"{UNITS}/arcbroker-admin.socket": "systemd/arcbroker-admin.socket",
    "usr/lib/systemd/system-generators/arcbroker": "systemd/arcbroker.generator",
    "usr/lib/systemd/system-preset/50-arcbroker.preset": "systemd/arcbroker.preset",
    "usr/lib/sysusers.d/arcbroker.conf": "systemd/arcbroker.sysusers",
    "usr/lib/tmpfiles.d/arcbroker.conf": "systemd/arcbroker.tmpfiles",
    "usr/lib/arcbroker/when-usable": "packaging/when-usable",
    "etc/arcbroker/broker.toml": "packaging/broker.toml",
    "etc/logrotate.d/arcbroker": "packaging/logrotate.d/arcbroker",
    "etc/apparmor.d/arcbrokerd": "packaging/apparmor/arcbrokerd",
    "etc/needrestart/restart.d/arcbroker.service": "packaging/needrestart",
    f"{DOC}/selinux/arcbroker.te": "packaging/selinux/arcbroker.te",
    f"{DOC}/selinux/arcbroker.if": "packaging/selinux/arcbroker.if",
    f"{DOC}/selinux/arcbroker.fc": "packaging/selinux/arcbroker.fc",
    f"{DOC}/examples/policy.d/10-examples.toml": "packaging/examples/policy.d/10-examples.toml",
}

EMPTY_DIRECTORIES = ("etc/arcbroker/policy.d", "etc/arcbroker/policy.shadow.d")

COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/arcbroker",
    "fish": "usr/share/fish/vendor_completions.d/arcbroker.fish",
    "zsh": "usr/share/zsh/vendor-completions/_arcbroker",
}


def stage(tree: Path, package: Package, binaries: Path, cli: Path) -> None:
    """`cli` is an arcbroker that runs on this machine: it writes its own manual and completions."""
    for program in PROGRAMS:
        strip(binaries / program, place(tree, f"usr/bin/{program}"))
    for target, source in FILES.items():
        shutil.copyfile(ROOT / source, place(tree, target))
    for directory in EMPTY_DIRECTORIES:
        (tree / directory).mkdir(parents=True)
    for name, page in manual.pages(cli, package.epoch).items():
        write_compressed(tree, f"usr/share/man/man{name[-1]}/{name}.gz", page.encode())
    for shell, target in COMPLETIONS.items():
        write(tree, target, completion(cli, shell))
    write_compressed(tree, f"{DOC}/CHANGELOG.md.gz", (ROOT / "CHANGELOG.md").read_bytes())
    linked = crates.linked(TARGETS[package.arch])
    write_compressed(tree, f"{DOC}/THIRD-PARTY.gz", crates.licences(linked))
    write(tree, SBOM, crates.bill_of_materials(linked, package, TARGETS[package.arch]))


def completion(cli: Path, shell: str) -> bytes:
    return subprocess.run([cli, "completions", shell], check=True, stdout=subprocess.PIPE, env={}).stdout


def strip(source: Path, target: Path) -> None:
    """Debug symbols are not shipped: they are most of what the compiler writes.

    With the compiler's own tool, which also knows the other architectures.
    """
    sysroot = Path(rustc("sysroot"))
    objcopy = sysroot / "lib/rustlib" / rustc("host-tuple") / "bin/rust-objcopy"
    environment = os.environ | {"LD_LIBRARY_PATH": str(sysroot / "lib")}
    subprocess.run([objcopy, "--strip-all", source, target], check=True, env=environment)
