"""Reads pages of recipes: their commands, the programs that those run, and what they are to print."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^```(\w*) ?(\S*)$")
# What separates the output of one block from that of the next: no program here prints it.
SEPARATOR = "\x1e"
# curl takes headers from a pipe, because anybody can read the arguments of a process.
TOKEN_IN_ARGUMENTS = re.compile(r"(-H|--header)[ =]?[\"']?Authorization", re.IGNORECASE)


class Malformed(Exception):
    """A page that breaks its own rules."""


@dataclass
class Command:
    """A block of shell commands, and what the page shows as their output, if it does."""

    text: str
    shown: str | None = None


@dataclass
class Section:
    heading: str
    prose: str = ""
    commands: list[Command] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def script(self) -> str:
        return "\n".join(f"printf '\\036'\n{command.text}" for command in self.commands)


@dataclass
class Page:
    name: str
    sections: dict[str, Section]


def read(path: Path) -> Page:
    sections = {"": Section("")}
    section = sections[""]
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith("## "):
            section = sections.setdefault(line[3:], Section(line[3:]))
        elif fence := FENCE.match(line):
            add(section, fence[1], fence[2], block(lines, path))
        else:
            section.prose += f"{line}\n"
    return Page(path.stem, sections)


def table(path: Path) -> dict[str, set[str]]:
    """The pages that an index lists, and for each the columns that say yes."""
    rows = [line.strip("|").split("|") for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    columns = [cell.strip() for cell in rows[0][1:]]
    return {
        link[1]: {column for column, cell in zip(columns, row[1:]) if cell.strip() == "yes"}
        for row in rows
        if (link := re.search(r"\(([^/)]+)\.md\)", row[0]))
    }


def block(lines, path: Path) -> str:
    body = []
    for line in lines:
        if line == "```":
            return "".join(f"{text}\n" for text in body)
        body.append(line)
    raise Malformed(f"{path}: a block does not end")


def add(section: Section, language: str, name: str, text: str) -> None:
    if name:
        section.files[name] = text
    elif language == "sh":
        if TOKEN_IN_ARGUMENTS.search(text):
            raise Malformed(f"section {section.heading}: a token would be an argument of a process:\n{text}")
        section.commands.append(Command(text))
    elif language == "text" and section.commands and section.commands[-1].shown is None:
        section.commands[-1].shown = text
    else:
        raise Malformed(f"section {section.heading}: a block that is neither commands, a file, nor output:\n{text}")


def reason(section: Section) -> str:
    """Why there are no commands: the first sentence of the section."""
    return " ".join(section.prose.split()).partition(". ")[0].rstrip(".")


def differences(section: Section, output: str) -> list[str]:
    """Where the output of the section's script is not what the page shows."""
    printed = output.split(SEPARATOR)[1:]
    found = []
    for number, command in enumerate(section.commands):
        if number >= len(printed):
            return [*found, f"this did not run:\n{command.text}"]
        if command.shown is not None and not matches(command.shown, printed[number]):
            found.append(f"{command.text}--- the page shows\n{command.shown}--- it printed\n{printed[number]}")
    return found


def matches(shown: str, printed: str) -> bool:
    """`…` stands for anything, and blank space at the ends of lines for nothing."""
    pattern = ".*".join(re.escape(part) for part in stripped(shown).split("…"))
    return re.fullmatch(pattern, stripped(printed), re.DOTALL) is not None


def stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
