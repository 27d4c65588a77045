#!/usr/bin/env python3
"""Has terraform look for its state each time that a resource is read, and prints the token that reached the storage account.

The resource is always terraform's own choice: that of storage accounts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIGURATION = Path(__file__).resolve().parent / "versions.tf"


def main() -> None:
    bearers = Path(os.environ["BEARERS"])
    for _ in sys.stdin:
        project = tempfile.mkdtemp(dir=".")
        shutil.copy(CONFIGURATION, project)
        bearers.write_text("")
        command = ["terraform", f"-chdir={project}", "init", "-input=false", "-lock=false", "-no-color"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        if done.returncode != 0:
            sys.exit(f"terraform init ended with status {done.returncode}")
        (used,) = set(bearers.read_text().splitlines())
        print(used, flush=True)


main()
