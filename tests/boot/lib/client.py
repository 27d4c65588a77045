"""A caller of the token socket: plain HTTP, and of each answer the status and the body."""

from __future__ import annotations

import socket
from urllib.parse import quote

TOKEN_SOCKET = "/run/arcbroker/token.sock"
PATIENCE = 30.0


class Broken(Exception):
    """The connection ended before an answer did."""


class Connection:
    def __init__(self, patience: float = PATIENCE):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience)
        self.socket.connect(TOKEN_SOCKET)

    def ask(self, request: bytes) -> tuple[int, dict, bytes]:
        self.socket.sendall(request)
        return self.answer()

    def answer(self) -> tuple[int, dict, bytes]:
        """Status, headers and body of an answer to what was sent."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.more()
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(body) < length:
            body += self.more()
        return int(first.split()[1]), headers, body

    def more(self) -> bytes:
        received = self.socket.recv(65536)
        if not received:
            raise Broken("the connection was closed before the answer was whole")
        return received

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def token_request(resource: str) -> bytes:
    path = f"/metadata/identity/oauth2/token?api-version=2020-06-01&resource={quote(resource, safe='')}"
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n".encode()


def ask_once(resource: str, patience: float = PATIENCE) -> tuple[int, dict, bytes]:
    with Connection(patience) as connection:
        return connection.ask(token_request(resource))
