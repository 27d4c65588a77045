"""Azure Resource Manager, as far as clients look at it to log in and to see one Arc server."""

from __future__ import annotations

from datetime import datetime, timezone

from answers import Answer, Machine, Request, error
from bearer import Reason, Refused, Verifier

AUDIENCES = [
    "https://management.core.windows.net/",
    "https://management.core.windows.net",
    "https://management.azure.com/",
    "https://management.azure.com",
]
LOGIN = "https://login.microsoftonline.com"


class Arm:
    def __init__(self, machine: Machine, verifier: Verifier, address: str):
        self.machine = machine
        self.verifier = verifier
        self.address = address

    def answer(self, request: Request) -> Answer:
        if [part.lower() for part in request.path] == ["metadata", "endpoints"]:
            return Answer(200, self.endpoints())
        try:
            self.verifier.claims(request.authorization, AUDIENCES)
        except Refused as refused:
            return self.refusal(refused)
        if "api-version" not in request.query:
            return error(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            )
        return self.resource(request.path)

    def refusal(self, refused: Refused) -> Answer:
        code, message = reason_of(refused)
        challenge = (
            f'Bearer authorization_uri="{LOGIN}/{self.machine.tenant}", '
            f'error="invalid_token", error_description="{message}"'
        )
        return error(401, code, message, {"WWW-Authenticate": challenge})

    def resource(self, path: list[str]) -> Answer:
        """Names in Resource Manager's paths do not depend on case."""
        machine = self.machine
        subscription = f"/subscriptions/{machine.subscription}"
        group = f"{subscription}/resourceGroups/{machine.group}"
        known = {
            "/tenants": page([self.tenant()]),
            "/subscriptions": page([self.subscription()]),
            subscription: self.subscription(),
            f"{subscription}/resourceGroups": page([self.group(group)]),
            group: self.group(group),
            machine.resource_id: self.arc_server(),
        }
        wanted = "/" + "/".join(path)
        for name, body in known.items():
            if name.lower() == wanted.lower():
                return Answer(200, body)
        if len(path) > 1 and path[1].lower() != machine.subscription:
            return error(404, "SubscriptionNotFound", f"The subscription '{path[1]}' could not be found.")
        return error(404, "ResourceNotFound", f"The Resource '{wanted}' was not found.")

    def tenant(self) -> dict:
        return {
            "id": f"/tenants/{self.machine.tenant}",
            "tenantId": self.machine.tenant,
            "tenantCategory": "Home",
            "displayName": "Stand-in",
            "defaultDomain": "stand-in.example",
        }

    def subscription(self) -> dict:
        return {
            "id": f"/subscriptions/{self.machine.subscription}",
            "subscriptionId": self.machine.subscription,
            "tenantId": self.machine.tenant,
            "displayName": "Stand-in",
            "state": "Enabled",
            "authorizationSource": "RoleBased",
            "subscriptionPolicies": {"quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off"},
        }

    def group(self, name: str) -> dict:
        return {
            "id": name,
            "name": self.machine.group,
            "type": "Microsoft.Resources/resourceGroups",
            "location": self.machine.location,
            "properties": {"provisioningState": "Succeeded"},
        }

    def arc_server(self) -> dict:
        return {
            "id": self.machine.resource_id,
            "name": self.machine.name,
            "type": "Microsoft.HybridCompute/machines",
            "location": self.machine.location,
            "identity": {"type": "SystemAssigned", "tenantId": self.machine.tenant},
            "properties": {
                "status": "Connected",
                "osType": "linux",
                "provisioningState": "Succeeded",
                "vmId": self.machine.vm_id,
            },
        }

    def endpoints(self) -> dict:
        """What `az cloud register` asks for: the names of a cloud, here of the public one, with another address."""
        return {
            "name": "StandIn",
            "authentication": {
                "loginEndpoint": LOGIN,
                "audiences": ["https://management.core.windows.net/", "https://management.azure.com/"],
                "tenant": "common",
                "identityProvider": "AAD",
            },
            "resourceManager": self.address,
            "graphAudience": "https://graph.windows.net/",
            "microsoftGraphResourceId": "https://graph.microsoft.com/",
            "suffixes": {"keyVaultDns": "vault.azure.net", "storage": "core.windows.net"},
        }


def reason_of(refused: Refused) -> tuple[str, str]:
    if refused.reason is Reason.MISSING:
        return "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
    if refused.reason is Reason.EXPIRED:
        end = datetime.fromtimestamp(refused.claims.get("exp") or 0, timezone.utc)
        return "ExpiredAuthenticationToken", f"The access token expiry UTC time '{end:%m/%d/%Y %H:%M:%S}' is over."
    if refused.reason is Reason.AUDIENCE:
        allowed = ",".join(f"'{audience}'" for audience in AUDIENCES)
        return (
            "InvalidAuthenticationTokenAudience",
            f"The access token has been obtained for wrong audience or resource '{refused.claims.get('aud')}'. "
            f"It should exactly match with one of the allowed audiences {allowed}.",
        )
    return "InvalidAuthenticationToken", "The access token is invalid."


def page(items: list[dict]) -> dict:
    return {"value": items, "count": {"type": "Total", "value": len(items)}}
