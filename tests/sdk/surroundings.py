"""What stands in for Azure around a client that does more than fetch tokens."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import rig
from scene import Scene, claims_of

sys.path.insert(0, str(rig.REPOSITORY / "tests" / "standins"))

import detour
import standins

ACCOUNT = "arcbrokerstate"
LIST = (
    b'<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>'
    b"<Blob><Name>terraform.tfstate</Name></Blob></Blobs><NextMarker/></EnumerationResults>"
)
STATE = b'{"version": 4, "terraform_version": "1.0.0", "serial": 1, "lineage": "stand-in", "outputs": {}, "resources": []}'


def resource_manager(stack: contextlib.ExitStack, scene: Scene, directory: Path) -> dict[str, str]:
    """az logs in at the stand-in for Resource Manager, to which a proxy for https leads it."""
    azure = standins.start(stack, scene.upstream, directory / "standins")
    proxy = detour.start(stack, {"management.azure.com": azure.arm})
    return {
        "HTTPS_PROXY": proxy.address,
        "https_proxy": proxy.address,
        "REQUESTS_CA_BUNDLE": azure.ca,
        "AZURE_CONFIG_DIR": str(directory / "azure"),
        "AZURE_CORE_COLLECT_TELEMETRY": "false",
    }


def blobs(stack: contextlib.ExitStack, scene: Scene, directory: Path) -> dict[str, str]:
    """terraform reads its state from a storage account that has an empty one, to which a proxy leads it."""
    azure = standins.start(stack, scene.upstream, directory / "standins")
    journal = directory / "bearers.txt"
    account = Account(Path(azure.certificate), Path(azure.key), journal)
    threading.Thread(target=account.serve_forever, daemon=True).start()
    stack.callback(account.server_close)
    stack.callback(account.shutdown)
    proxy = detour.start(stack, {f"{ACCOUNT}.blob.core.windows.net": f"https://127.0.0.1:{account.server_port}"})
    return {
        "HTTPS_PROXY": proxy.address,
        "https_proxy": proxy.address,
        "SSL_CERT_FILE": azure.ca,
        "BEARERS": str(journal),
        "CHECKPOINT_DISABLE": "1",
        "ARM_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
        "ARM_TENANT_ID": "00000000-0000-0000-0000-000000000000",
    }


class Account(ThreadingHTTPServer):
    """Writes down of each bearer token what shows which it is."""

    daemon_threads = True

    def __init__(self, certificate: Path, key: Path, journal: Path):
        super().__init__(("127.0.0.1", 0), Blob)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.journal = journal


class Blob(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        scheme, _, token = (self.headers["Authorization"] or "").partition(" ")
        if scheme != "Bearer":
            self.send(401, "text/plain", b"")
            return
        with self.server.journal.open("a") as journal:
            print(hashlib.sha256(token.encode()).hexdigest()[:12], claims_of(token)["exp"], file=journal)
        if "comp=list" in self.path:
            self.send(200, "application/xml", LIST)
        else:
            self.send(200, "application/json", STATE)

    do_HEAD = do_GET

    def send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The journal says it."""
