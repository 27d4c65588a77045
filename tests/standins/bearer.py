"""What a service does with a bearer token before all else: signature, issuer, times and audience."""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import json
import time
from dataclasses import dataclass, field

# How PKCS #1 says "the following 32 bytes are a SHA-256".
SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


class Reason(enum.Enum):
    MISSING = "no bearer token"
    INVALID = "not a token of this issuer, or not valid yet"
    EXPIRED = "expired"
    AUDIENCE = "for another audience"


class Refused(Exception):
    """Carries what the token says about itself, as far as its signature makes that true."""

    def __init__(self, reason: Reason, claims: dict | None = None):
        super().__init__(reason.value)
        self.reason = reason
        self.claims = claims or {}


@dataclass(frozen=True)
class Key:
    modulus: int
    exponent: int


def keys_of(jwks: dict) -> dict[str, Key]:
    return {key["kid"]: Key(number(key["n"]), number(key["e"])) for key in jwks["keys"] if key["kty"] == "RSA"}


@dataclass(frozen=True)
class Verifier:
    keys: dict[str, Key]
    issuer: str
    clock: object = field(default=time.time)

    def claims(self, authorization: str | None, audiences: list[str]) -> dict:
        """The claims of a token that is good for one of `audiences`; raises `Refused` otherwise."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(Reason.MISSING)
        claims = self.signed_claims(token)
        now = self.clock()
        if claims.get("iss") != self.issuer or not is_time(claims.get("nbf")) or claims["nbf"] > now:
            raise Refused(Reason.INVALID, claims)
        if not is_time(claims.get("exp")) or claims["exp"] <= now:
            raise Refused(Reason.EXPIRED, claims)
        if claims.get("aud") not in audiences:
            raise Refused(Reason.AUDIENCE, claims)
        return claims

    def signed_claims(self, token: str) -> dict:
        try:
            signed, _, signature = token.rpartition(".")
            header, claims = (json.loads(decoded(part)) for part in signed.split("."))
            key = self.keys[header["kid"]] if header["alg"] == "RS256" else None
            right = key is not None and signature_is_right(key, signed.encode(), decoded(signature))
        except (ValueError, KeyError, TypeError):
            raise Refused(Reason.INVALID) from None
        if not right or not isinstance(claims, dict):
            raise Refused(Reason.INVALID)
        return claims


def signature_is_right(key: Key, message: bytes, signature: bytes) -> bool:
    """RSASSA-PKCS1-v1_5 with SHA-256: compares with the one encoding that is right, so that nothing is parsed."""
    size = (key.modulus.bit_length() + 7) // 8
    end = b"\x00" + SHA256_PREFIX + hashlib.sha256(message).digest()
    expected = b"\x00\x01" + b"\xff" * (size - len(end) - 2) + end
    opened = pow(int.from_bytes(signature, "big"), key.exponent, key.modulus)
    return len(signature) == size and opened.to_bytes(size, "big") == expected


def is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(text: str) -> int:
    return int.from_bytes(decoded(text), "big")


def decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
