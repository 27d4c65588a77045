"""What systemd does for a daemon that is restarted: it holds the descriptors that the daemon asks it to hold."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

LAUNCHER = Path(__file__).resolve().parent / "with-descriptors"
MOST_DESCRIPTORS = 16
LONGEST_MESSAGE = 4096


class Store:
    """Reads notifications in a thread of its own until it is closed."""

    def __init__(self, path: Path):
        self.path = path
        self.held: list[tuple[str, int]] = []
        self.changing = threading.Lock()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.socket, LONGEST_MESSAGE, MOST_DESCRIPTORS)
            if not message:
                return
            fields = dict(line.split("=", 1) for line in message.decode().splitlines() if "=" in line)
            self.take(fields, descriptors)

    def take(self, fields: dict[str, str], descriptors: list[int]) -> None:
        name = fields.get("FDNAME", "stored")
        with self.changing:
            if fields.get("FDSTOREREMOVE") == "1":
                self.let_go([pair for pair in self.held if pair[0] == name])
            if fields.get("FDSTORE") == "1":
                self.held += [(name, descriptor) for descriptor in descriptors]
            else:
                for descriptor in descriptors:
                    os.close(descriptor)

    def let_go(self, pairs: list[tuple[str, int]]) -> None:
        self.held = [pair for pair in self.held if pair not in pairs]
        for _, descriptor in pairs:
            os.close(descriptor)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "NOTIFY_SOCKET": str(self.path)}

    def launch(self) -> tuple[list, list[int]]:
        """The words before the daemon's command, and the descriptors that its process inherits."""
        with self.changing:
            if not self.held:
                return [], []
            names, descriptors = zip(*self.held)
        return [LAUNCHER, ",".join(map(str, descriptors)), ":".join(names)], list(descriptors)

    def close(self) -> None:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sender:
            sender.sendto(b"", str(self.path))
        self.reader.join()
        self.socket.close()
        self.let_go(self.held)
