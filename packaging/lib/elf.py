"""What a program needs of the system it runs on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def dump(program: Path, *options: str) -> str:
    return subprocess.run(["objdump", *options, program], check=True, capture_output=True, text=True).stdout


def libraries(program: Path) -> set[str]:
    return set(re.findall(r"^\s+NEEDED\s+(\S+)", dump(program, "-p"), re.MULTILINE))


def glibc(program: Path) -> tuple[int, ...]:
    """The newest version of glibc that a symbol is of."""
    versions = re.findall(r"\bGLIBC_(\d+(?:\.\d+)+)", dump(program, "-T"))
    return max(tuple(map(int, version.split("."))) for version in versions)
