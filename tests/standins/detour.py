"""A proxy that leads the names of Azure's services to their stand-ins, and nothing else anywhere.

Clients need no other address and no other option: `HTTPS_PROXY` is enough, as on the many servers that reach Azure
through a proxy.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PATIENCE = 30.0
CHUNK = 64 * 1024


class Detour(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, routes: dict[str, str]):
        """`routes` leads a name to the address, `https://127.0.0.1:PORT`, of what stands in for it."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.ports = {name: urlsplit(address).port for name, address in routes.items()}
        self.refused: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_CONNECT(self) -> None:
        name, _, port = self.path.rpartition(":")
        target = self.server.ports.get(name)
        if target is None or port != "443":
            self.refuse()
            return
        with socket.create_connection(("127.0.0.1", target), PATIENCE) as upstream:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            forward(self.connection, upstream)
        self.close_connection = True

    def refuse(self) -> None:
        self.server.refused.append(f"{self.command} {self.path}")
        self.send_error(403, "Nothing stands in for this name")

    do_GET = do_HEAD = do_POST = do_PUT = refuse

    def log_message(self, text: str, *arguments: object) -> None:
        """What is refused is kept; what is led on, the stand-ins tell."""


def forward(one: socket.socket, other: socket.socket) -> None:
    """Bytes in both directions, until one side ends or both are silent."""
    peers = {one: other, other: one}
    with contextlib.suppress(OSError):
        while ready := select.select(list(peers), [], [], PATIENCE)[0]:
            for source in ready:
                if not (data := source.recv(CHUNK)):
                    return
                peers[source].sendall(data)


def start(stack: contextlib.ExitStack, routes: dict[str, str]) -> Detour:
    """Leads on until the stack unwinds."""
    detour = Detour(routes)
    threading.Thread(target=detour.serve_forever, daemon=True).start()
    stack.callback(detour.server_close)
    stack.callback(detour.shutdown)
    return detour
