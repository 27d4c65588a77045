"""Serves a stand-in over https on 127.0.0.1, on a port of its own."""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TextIO
from urllib.parse import parse_qsl, unquote, urlsplit

from answers import Answer, Request, error
from certificates import Certificates

PATIENCE = 30.0


class Server(ThreadingHTTPServer):
    """Knows its address before it knows the service, whose documents name that address."""

    daemon_threads = True

    def __init__(self, certificates: Certificates, log: TextIO | None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificates.certificate, certificates.key)
        self.service = None
        self.log = log

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"

    def finish_request(self, request, client_address) -> None:
        """In the connection's own thread, so that a client without a handshake keeps nobody else waiting."""
        request.settimeout(PATIENCE)
        with contextlib.suppress(OSError), self.tls.wrap_socket(request, server_side=True) as stream:
            super().finish_request(stream, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = [unquote(part) for part in url.path.strip("/").split("/")]
        pairs = parse_qsl(url.query, keep_blank_values=True)
        query = {name.lower(): value for name, value in pairs}
        if len(query) != len(pairs):
            self.send(error(400, "BadRequest", "A query parameter is there twice."))
        else:
            self.send(self.server.service.answer(Request(path, query, self.headers["Authorization"])))

    def send(self, answer: Answer) -> None:
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text: str, *arguments: object) -> None:
        """The request line and the status; no header, so no token."""
        if self.server.log:
            print(f"{type(self.server.service).__name__}: {text % arguments}", file=self.server.log, flush=True)


def serve(service, certificates: Certificates, log: TextIO | None = sys.stderr) -> Server:
    """Serves `service(address)` until `shutdown`."""
    server = Server(certificates, log)
    server.service = service(server.address)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
