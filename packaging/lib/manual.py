"""The manual pages: of the commands, written by the program itself; of the files, from what is in packaging/."""

from __future__ import annotations

import re
import subprocess
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from tree import ROOT

PAGES = ROOT / "packaging/man"

HEAD = """.Dd @DATE@
.Dt ARCBROKER.TOML 5
.Os
.Sh NAME
.Nm arcbroker.toml
.Nd the configuration of arcbrokerd
.Sh SYNOPSIS
.Pa /etc/arcbroker/broker.toml
.Sh DESCRIPTION
The file is in the form of TOML.
Every key may be left out.
"""

FOOT = """.Sh SEE ALSO
.Xr arcbroker.policy 5 ,
.Xr arcbrokerd 8
"""


def pages(cli: Path, epoch: int) -> dict[str, str]:
    """The sources of all pages, by their file names."""
    with tempfile.TemporaryDirectory(prefix="arcbroker-manual-") as directory:
        subprocess.run([cli, "manual", directory], check=True, env={})
        found = {path.name: path.read_text() for path in Path(directory).iterdir()}
    found |= {path.name: path.read_text() for path in PAGES.iterdir()}
    found["arcbroker.toml.5"] = configuration((ROOT / "packaging/broker.toml").read_text())
    moment = datetime.fromtimestamp(epoch, timezone.utc)
    return {name: page.replace("@DATE@", f"{moment:%B} {moment.day}, {moment.year}") for name, page in found.items()}


def configuration(toml: str) -> str:
    """The commented file as a page: a comment is about the keys that follow it."""
    lines = [HEAD.rstrip()]
    comment: list[str] = []
    settings: list[str] = []

    def flush() -> None:
        lines.extend([*settings, *comment])
        comment.clear()
        settings.clear()

    for line in toml.splitlines():
        section = re.fullmatch(r"\[(.+)\]", line)
        setting = re.fullmatch(r"([a-z-]+) = (.+)", line)
        if setting:
            settings.append(f".It Ic {setting[1]} No = {escape(setting[2])}")
            continue
        if settings or section:
            flush()
        if section:
            lines += [".El"] if ".Bl -tag -width Ds" in lines else []
            lines += [f".Ss \\&[{section[1]}]", ".Bl -tag -width Ds"]
        elif line:
            comment.append(escape(line.removeprefix("# ")))
    flush()
    return "\n".join([*lines, ".El", FOOT])


def escape(text: str) -> str:
    """Plain text, at the beginning of a line or among the words of a macro."""
    text = text.replace("\\", "\\e").replace('"', "\\(dq").replace("-", "\\-")
    return f"\\&{text}" if text[0] in ".'" else text
