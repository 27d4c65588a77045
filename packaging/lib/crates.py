"""What the programs are linked from: crates, their licences and where they came from.

Both documents are made of what cargo says would be linked for the target: not of what only compiles, tests or generates.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tree import ROOT, Package

MEMBERS = ("arcbroker-broker", "arcbroker-cli")
LICENCE_FILES = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)([-._].*)?", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Crate:
    name: str
    version: str
    licence: str
    # None of a member of the workspace.
    checksum: str | None
    directory: Path

    @property
    def url(self) -> str:
        return f"pkg:cargo/{self.name}@{self.version}"

    def texts(self) -> list[str]:
        files = sorted(path for path in self.directory.iterdir() if LICENCE_FILES.fullmatch(path.name) and path.is_file())
        return [path.read_text(encoding="utf-8", errors="replace").strip() for path in files]


def linked(target: str) -> list[Crate]:
    command = ["cargo", "tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro"]
    command += ["--prefix", "none", "--no-dedupe", "--format", "{p}"]
    for member in MEMBERS:
        command += ["--package", member]
    names = {tuple(line.split(" ")[:2]) for line in cargo(command).splitlines() if line}
    packages = {(package["name"], f"v{package['version']}"): package for package in metadata(target)}
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock_file()}
    return sorted(crate(packages[name], checksums) for name in names)


def crate(package: dict, checksums: dict) -> Crate:
    name, version = package["name"], package["version"]
    # cargo's older way to write OR.
    licence = package["license"].replace("/", " OR ")
    return Crate(name, version, licence, checksums[name, version], Path(package["manifest_path"]).parent)


def metadata(target: str) -> list[dict]:
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(cargo(command))["packages"]


def cargo(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def lock_file() -> list[dict]:
    """The tables of Cargo.lock, of which only lines of strings are wanted."""
    tables = (ROOT / "Cargo.lock").read_text().split("[[package]]\n")[1:]
    return [dict(re.findall(r'^(\w+) = "([^"]*)"$', table, re.MULTILINE)) for table in tables]


def bill_of_materials(crates: list[Crate], package: Package, target: str) -> bytes:
    """In the form of CycloneDX 1.5."""
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(package.epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": f"arcbroker@{package.version}",
                "name": "arcbroker",
                "version": package.version,
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
                "properties": [{"name": "target", "value": target}],
            },
        },
        "components": [standard_library(), *map(component, crates)],
    }
    # The same content has the same number, and another has another.
    content = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}"
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def component(crate: Crate) -> dict:
    entry = {
        "type": "library",
        "bom-ref": crate.url,
        "name": crate.name,
        "version": crate.version,
        "purl": crate.url,
        "licenses": [{"expression": crate.licence}],
    }
    if crate.checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": crate.checksum}]
    return entry


def standard_library() -> dict:
    version = compiler_version()
    return {
        "type": "library",
        "bom-ref": f"rust-std@{version}",
        "name": "rust-std",
        "version": version,
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }


def compiler_version() -> str:
    done = subprocess.run(["rustc", "--version"], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


def licences(crates: list[Crate]) -> bytes:
    """Each text once, with all whose text it is."""
    foreign = [crate for crate in crates if crate.checksum]
    holders: dict[str, list[str]] = {}
    for crate in foreign:
        for text in crate.texts():
            holders.setdefault(text, []).append(f"{crate.name} {crate.version}")
    lines = ["What arcbroker and arcbrokerd contain besides arcbroker's own code, and its licences.", ""]
    lines += [f"{crate.name} {crate.version}: {crate.licence}" for crate in foreign]
    lines += [f"rust-std {compiler_version()}, Rust's standard library: MIT OR Apache-2.0, whose text is in LICENSE", ""]
    for text, names in holders.items():
        lines += ["-" * 80, *names, "-" * 80, text, ""]
    return "\n".join(lines).encode()
