"""What the scripts of `tests/` share: a broker with a simulated upstream, nginx, and reading a process's costs from /proc.

Everything runs as the calling user, in a temporary directory that is gone afterwards.
"""

from __future__ import annotations

import contextlib
import grp
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
RESOURCE = "https://management.azure.com/"
TOKEN_PATH = (
    "/metadata/identity/oauth2/token?api-version=2018-02-01"
    "&resource=https%3A%2F%2Fmanagement.azure.com%2F"
)
HEADERS = {"Metadata": "true"}
PATIENCE = 30.0
PACKAGES = {"nginx": "nginx-light", "h2load": "nghttp2-client", "openssl": "openssl", "strip": "binutils"}
# nginx reads no longer word than its buffer for the configuration.
NGINX_WORD = 4000


class Failure(Exception):
    """Ends the script with a message for the person who started it."""


def main(body) -> None:
    """Runs `body` with a stack on which it registers what must be undone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.pop("NOTIFY_SOCKET", None)
    try:
        with contextlib.ExitStack() as stack:
            body(stack)
    except Failure as failure:
        sys.exit(f"{Path(sys.argv[0]).name}: {failure}")


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if not found:
        raise Failure(f"{name} is missing; on Debian: apt-get install {PACKAGES[name]}")
    return found


def binary(directory: Path, name: str) -> Path:
    path = directory / name
    if not os.access(path, os.X_OK):
        raise Failure(f"{path} is missing; build it: cargo build --release --workspace")
    return path


def temporary_directory(stack: contextlib.ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arcbroker-bench-")))


# --- processes -------------------------------------------------------------------------------------------------


def start(stack: contextlib.ExitStack, command: list, log: Path, **options) -> subprocess.Popen:
    """Starts a program that is stopped when the stack unwinds; what it prints goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **options,
        )
    stack.callback(stop, process)
    return process


def stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(what: str, process: subprocess.Popen, log: Path, condition):
    """Polls until `condition` gives something; a process that ends meanwhile is an error with its last lines."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            why = f"it ended with status {process.returncode}" if ended else f"not within {PATIENCE:.0f} s"
            raise Failure(f"{what}: {why}\n{tail}")
        time.sleep(0.005)
    return result


# --- the broker and its upstream -------------------------------------------------------------------------------


@dataclass
class Upstream:
    endpoint: str
    tokens: Path


def start_upstream(stack: contextlib.ExitStack, binaries: Path, directory: Path) -> Upstream:
    tokens = directory / "tokens"
    tokens.mkdir(mode=0o750)
    log = directory / "himds-sim.log"
    command = [binary(binaries, "himds-sim"), "--listen", "127.0.0.1:0", "--tokens-dir", tokens]
    process = start(stack, command, log)

    def address() -> str | None:
        first, newline, _ = log.read_text(errors="replace").partition("\n")
        return first if newline and first.startswith("http://") else None

    return Upstream(wait_for("himds-sim prints its address", process, log, address), tokens)


@dataclass
class BrokerFiles:
    """The paths of one broker; its configuration is written by `write_configuration`."""

    directory: Path

    @property
    def configuration(self) -> Path:
        return self.directory / "broker.toml"

    @property
    def socket(self) -> Path:
        return self.directory / "token.sock"

    @property
    def audit(self) -> Path:
        return self.directory / "audit.jsonl"

    @property
    def log(self) -> Path:
        return self.directory / "arcbrokerd.log"


def write_configuration(directory: Path, upstream: Upstream, rules: int) -> BrokerFiles:
    directory.mkdir(mode=0o750)
    files = BrokerFiles(directory)
    (directory / "policy.d").mkdir(mode=0o750)
    write_owned(directory / "policy.d" / "bench.toml", policy_text(rules))
    write_owned(files.configuration, configuration_text(files, upstream))
    return files


def configuration_text(files: BrokerFiles, upstream: Upstream) -> str:
    try:
        group = grp.getgrgid(os.getgid()).gr_name
    except KeyError:
        raise Failure(f"the group {os.getgid()} of this process has no name, so no socket can be given to it") from None
    return f"""\
[upstream]
kind = "himds"
himds-endpoint = "{upstream.endpoint}"
tokens-dir = "{upstream.tokens}"
owners = ["{os.getuid()}"]

[sockets]
token = "{files.socket}"
token-mode = "0660"
token-group = "{group}"
admin = "{files.directory / "admin.sock"}"

[policy]
dir = "{files.directory / "policy.d"}"
owners = ["{os.getuid()}"]

[audit]
file = "{files.audit}"
journald = false
"""


def policy_text(rules: int) -> str:
    """`rules` rules, of which only the last matches: what a decision costs at worst."""
    others = (
        f'[[rule]]\nname = "other {number}"\n{subject} = "{3_000_000_000 + number}"\nresources = ["{RESOURCE}"]\n'
        for number, subject in zip(range(1, rules), ("user", "group") * rules)
    )
    last = f'[[rule]]\nname = "the benchmark"\nuser = "{os.getuid()}"\nresources = ["{RESOURCE}"]\n'
    return "version = 1\n\n" + "\n".join([*others, last])


def write_owned(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o640)


def start_broker(
    stack: contextlib.ExitStack, binaries: Path, files: BrokerFiles, launcher: Sequence = (), **options
) -> subprocess.Popen:
    """Starts the broker, by a launcher that becomes it if there is one, and waits until it has served a token."""
    command = [*launcher, binary(binaries, "arcbrokerd"), "--config", files.configuration]
    process = start(stack, command, files.log, **options)
    wait_for("arcbrokerd serves a token", process, files.log, lambda: fetch_quietly(files.socket))
    return process


# --- nginx -----------------------------------------------------------------------------------------------------


@dataclass
class Nginx:
    worker: int
    socket: Path
    access_log: Path


def start_nginx(stack: contextlib.ExitStack, directory: Path, body: str) -> Nginx:
    """One worker that answers the token path with a constant body, its access log on and unbuffered."""
    if len(body) > NGINX_WORD or set(body) & set("'$\\"):
        raise Failure("nginx cannot hold the broker's answer as one word of its configuration")
    directory.mkdir(mode=0o750)
    nginx = Nginx(0, directory / "nginx.sock", directory / "access.log")
    configuration = directory / "nginx.conf"
    configuration.write_text(nginx_text(directory, nginx, body))
    log = directory / "nginx.log"
    process = start(stack, [tool("nginx"), "-p", directory, "-c", configuration, "-e", "stderr"], log)
    wait_for("nginx answers", process, log, lambda: fetch_quietly(nginx.socket))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if len(children) != 1:
        raise Failure(f"nginx has {len(children)} workers, and not the one that its configuration asks for")
    nginx.worker = int(children[0])
    return nginx


def nginx_text(directory: Path, nginx: Nginx, body: str) -> str:
    user = "user root root;" if os.getuid() == 0 else ""
    temporary = "".join(
        f"    {name}_temp_path {directory / name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
{user}
worker_processes 1;
pid {directory / "nginx.pid"};
events {{ worker_connections 1024; }}
http {{
{temporary}
    access_log {nginx.access_log} combined;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    server {{
        listen unix:{nginx.socket};
        location = {TOKEN_PATH.partition("?")[0]} {{
            default_type application/json;
            return 200 '{body}';
        }}
    }}
}}
"""


# --- asking ----------------------------------------------------------------------------------------------------


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))

    def fetch(self) -> str:
        """One token request on this connection, which stays open."""
        self.request("GET", TOKEN_PATH, headers=HEADERS)
        response = self.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise Failure(f"{self.path} answered {response.status}: {body[:500]}")
        return body


def fetch(path: Path) -> str:
    with contextlib.closing(UnixConnection(path)) as connection:
        return connection.fetch()


def fetch_quietly(path: Path) -> str | None:
    """None while the server is not there or has no token yet."""
    try:
        return fetch(path)
    except (OSError, http.client.HTTPException, Failure):
        return None


# --- costs of a process ----------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def status(pid: int, thread: str | None = None) -> dict:
    path = Path(f"/proc/{pid}/status") if thread is None else Path(f"/proc/{pid}/task/{thread}/status")
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}


def resident_bytes(pid: int) -> int:
    return int(status(pid)["VmRSS"].split()[0]) * 1024


def voluntary_switches(pid: int) -> int:
    """How often the threads of a process went to sleep: each time, something had woken them."""
    switches = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        # It may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            switches += int(status(pid, thread)["voluntary_ctxt_switches"])
    return switches
