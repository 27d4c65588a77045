#!/usr/bin/env python3
"""Logs az in, then has it fetch a token for each resource that is read, each time in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys


def az(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "azure.cli", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"az {words[0]} ended with status {done.returncode}")
    return done.stdout


def main() -> None:
    selector = ["--client-id", os.environ["AZURE_CLIENT_ID"]] if "AZURE_CLIENT_ID" in os.environ else []
    logged_in = False
    for line in sys.stdin:
        if not logged_in:
            az("login", "--identity", "--output", "none", *selector)
            logged_in = True
        answer = json.loads(az("account", "get-access-token", "--resource", line.strip(), "--output", "json"))
        print(hashlib.sha256(answer["accessToken"].encode()).hexdigest()[:12], answer["expires_on"], flush=True)


main()
