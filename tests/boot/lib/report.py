"""One line for each thing that was to be seen."""

from __future__ import annotations

import json
from typing import TextIO


class Report:
    def __init__(self, results: TextIO):
        self.results = results
        self.failures = 0

    def check(self, what: str, holds: object, detail: object = "") -> bool:
        """`detail` is shown when it does not hold."""
        if holds:
            self.write("passed", what, "")
        else:
            self.failed(what, str(detail))
        return bool(holds)

    def equal(self, what: str, found: object, wanted: object) -> bool:
        return self.check(what, found == wanted, f"found {found!r}, wanted {wanted!r}")

    def failed(self, what: str, detail: str) -> None:
        self.failures += 1
        self.write("failed", what, detail)

    def skipped(self, what: str, why: str) -> None:
        self.write("skipped", what, why)

    def told(self, what: str) -> None:
        """A figure, or what else a reader should see; nothing is judged by it."""
        self.write("told", what, "")

    def boot_again(self) -> None:
        self.write("booted again", "", "")

    def end(self) -> None:
        self.write("ended", "", "")

    def write(self, outcome: str, what: str, detail: str) -> None:
        self.results.write(json.dumps({"outcome": outcome, "what": what, "detail": detail}) + "\n")
