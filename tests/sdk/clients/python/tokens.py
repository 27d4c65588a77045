#!/usr/bin/env python3
"""Asks the credential named as its argument for a token for each resource that it reads.

For each it prints the first 12 hex digits of the token's SHA-256, and when the token ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from typing import Callable

import azure.identity
import azure.identity.aio
import msal
import requests

Ask = Callable[[str], "tuple[str, int]"]
CLIENT_ID = os.environ.get("AZURE_CLIENT_ID")


def blocking(credential) -> Ask:
    def ask(resource: str) -> tuple[str, int]:
        token = credential.get_token(f"{resource}/.default")
        return token.token, token.expires_on

    return ask


def asynchronous(credential) -> Ask:
    loop = asyncio.new_event_loop()

    def ask(resource: str) -> tuple[str, int]:
        token = loop.run_until_complete(credential.get_token(f"{resource}/.default"))
        return token.token, token.expires_on

    return ask


def msal_as_az_has_it() -> Ask:
    identity = msal.UserAssignedManagedIdentity(client_id=CLIENT_ID) if CLIENT_ID else msal.SystemAssignedManagedIdentity()
    client = msal.ManagedIdentityClient(identity, http_client=requests.Session())

    def ask(resource: str) -> tuple[str, int]:
        answer = client.acquire_token_for_client(resource=resource)
        if "access_token" not in answer:
            sys.exit(f"{answer.get('error')}: {answer.get('error_description')}")
        return answer["access_token"], int(time.time()) + answer["expires_in"]

    return ask


CREDENTIALS: dict[str, Callable[[], Ask]] = {
    "managed": lambda: blocking(azure.identity.ManagedIdentityCredential(client_id=CLIENT_ID)),
    "default": lambda: blocking(azure.identity.DefaultAzureCredential()),
    "aio-managed": lambda: asynchronous(azure.identity.aio.ManagedIdentityCredential(client_id=CLIENT_ID)),
    "aio-default": lambda: asynchronous(azure.identity.aio.DefaultAzureCredential()),
    "msal": msal_as_az_has_it,
}


def main() -> None:
    ask = CREDENTIALS[sys.argv[1]]()
    for line in sys.stdin:
        token, expires_on = ask(line.strip())
        print(hashlib.sha256(token.encode()).hexdigest()[:12], expires_on, flush=True)


main()
