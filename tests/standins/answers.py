"""The requests and answers of the stand-ins, and the machine that they know."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """A GET; the path is split at its slashes, the query has each parameter once."""

    path: list[str]
    query: dict[str, str]
    authorization: str | None


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict
    headers: dict[str, str] = field(default_factory=dict)


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None, **more: object) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message, **more}}, headers or {})


@dataclass(frozen=True)
class Machine:
    """What the instance metadata says of the machine, and the tenant of its identity."""

    tenant: str
    subscription: str
    group: str
    name: str
    resource_id: str
    location: str
    vm_id: str

    @classmethod
    def of(cls, tenant: str, compute: dict) -> Machine:
        return cls(
            tenant,
            compute["subscriptionId"],
            compute["resourceGroupName"],
            compute["name"],
            compute["resourceId"],
            compute["location"],
            compute["vmId"],
        )
