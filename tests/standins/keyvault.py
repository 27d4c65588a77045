"""A Key Vault with one secret that the machine may read, and one that it may not."""

from __future__ import annotations

from answers import Answer, Machine, Request, error
from bearer import Reason, Refused, Verifier

AUDIENCE = "https://vault.azure.net"
READABLE = {"database-password": ("stand-in-value", "6d2f0c9a1b7e4c58a3d4e5f60718293a")}
FORBIDDEN = "payroll-key"


class KeyVault:
    def __init__(self, machine: Machine, verifier: Verifier, address: str):
        self.machine = machine
        self.verifier = verifier
        self.address = address

    def answer(self, request: Request) -> Answer:
        try:
            self.verifier.claims(request.authorization, [AUDIENCE])
        except Refused as refused:
            return self.refusal(refused)
        if "api-version" not in request.query:
            return error(400, "BadParameter", "api-version must be specified")
        if len(request.path) not in (2, 3) or request.path[0] != "secrets":
            return error(404, "NotFound", "The stand-in has secrets, and nothing else")
        name, *version = [part for part in request.path[1:] if part]
        return self.secret(name, version)

    def refusal(self, refused: Refused) -> Answer:
        login = f"https://login.microsoftonline.com/{self.machine.tenant}"
        challenge = f'Bearer authorization="{login}", resource="{AUDIENCE}"'
        return error(401, "Unauthorized", reason_of(refused), {"WWW-Authenticate": challenge})

    def secret(self, name: str, version: list[str]) -> Answer:
        if name == FORBIDDEN:
            return error(
                403,
                "Forbidden",
                "Caller is not authorized to perform action on resource.\r\n"
                "If role assignments, deny assignments or role definitions were changed recently, "
                "please observe propagation time.\r\n"
                f"Action: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\nSecret: '{name}'",
                innererror={"code": "ForbiddenByRbac"},
            )
        value, current = READABLE.get(name, (None, None))
        if value is None or version not in ([], [current]):
            return error(404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault.")
        return Answer(
            200,
            {
                "value": value,
                "id": f"{self.address}/secrets/{name}/{current}",
                "attributes": {"enabled": True, "created": 1700000000, "updated": 1700000000},
            },
        )


def reason_of(refused: Refused) -> str:
    if refused.reason is Reason.MISSING:
        return "AKV10000: Request is missing a Bearer or PoP token."
    if refused.reason is Reason.AUDIENCE:
        return f"AKV10022: Invalid audience. Expected {AUDIENCE}, found: {refused.claims.get('aud')}."
    return f"The stand-in refuses the token: {refused.reason.value}."
