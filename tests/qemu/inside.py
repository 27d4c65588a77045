"""What must hold of the installed package, looked at from inside the machine that `run` boots.

Each assertion is one line: `ok`, `FAIL` or `skip`, the scenario, and what must hold. A scenario that fails is followed
by what explains it. The last line is `end`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Callable, Iterator

PROFILE = "arcbrokerd"
PROFILE_FILE = "/etc/apparmor.d/arcbrokerd"
DROP_IN = Path("/etc/systemd/system/arcbroker.service.d/profile.conf")
LOCAL = Path("/etc/apparmor.d/local/arcbrokerd")
TOKEN_SOCKET = "/run/arcbroker/token.sock"
LOADED = Path("/sys/kernel/security/apparmor/profiles")
AUDIT = Path("/var/log/arcbroker/audit.jsonl")
RULES = Path("/etc/arcbroker/policy.d/50-test.toml")
PATIENCE = 30.0
POLICY = """version = 1

[[rule]]
name = "alice"
user = "alice"
resources = ["arm", "storage"]

[[rule]]
name = "nightly"
unit = "nightly.service"
resources = "keyvault"
"""
DENIED = 3
UNREACHABLE = 4
F_GET_SEALS = 1034
SEALED = 0xF

failed = False


def verdict(word: str, name: str, statement: str) -> None:
    print(word, f"{name}:", statement, flush=True)


class Scenario:
    """Asserts by one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_failed = False

    def that(self, statement: str, holds: object, seen: object = "") -> bool:
        if holds:
            verdict("ok", self.name, statement)
        else:
            self.fail(statement, seen)
        return bool(holds)

    def fail(self, statement: str, seen: object = "") -> None:
        self.has_failed = True
        verdict("FAIL", self.name, statement)
        for line in str(seen).splitlines():
            print("    ", line, flush=True)

    def skip(self, statement: str, reason: str) -> None:
        verdict("skip", self.name, f"{statement}: {reason}")


# --- the machine -----------------------------------------------------------------------------------------------


def run(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def must(*command: str) -> str:
    done = run(*command)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
    return done.stdout.strip()


def eventually(condition: Callable[[], object]) -> object:
    """What `condition` gives once it gives something, or its last word."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return result


def as_user(user: str, *command: str) -> subprocess.CompletedProcess:
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    return run(*command, user=entry.pw_uid, group=entry.pw_gid, extra_groups=groups, cwd="/")


def in_unit(unit: str, *command: str) -> subprocess.CompletedProcess:
    """Runs in a service of the system, as bob, who is in group arcbroker and whom no rule names."""
    options = ["--quiet", "--wait", "--pipe", "--collect", f"--unit={unit}", "--property=User=bob"]
    return run("systemd-run", *options, *command)


def shown(name: str) -> str:
    return must("systemctl", "show", "--property", name, "--value", "arcbroker.service")


def daemon() -> int:
    return int(shown("MainPID"))


def label(pid: int) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n")


def kernel_log() -> list[str]:
    sources = ("_TRANSPORT=kernel", "+", "_TRANSPORT=audit")
    return must("journalctl", "--quiet", "--boot", "--no-pager", "--output=cat", *sources).splitlines()


def denials() -> list[str]:
    """What AppArmor refused to the daemon, or would have refused."""
    words = ('apparmor="DENIED"', 'apparmor="ALLOWED"')
    return [line for line in kernel_log() if any(word in line for word in words) and f'profile="{PROFILE}"' in line]


def records() -> list[dict]:
    return [json.loads(line) for line in AUDIT.read_text().splitlines()]


def token(resource: str) -> tuple[str, ...]:
    return ("arcbroker", "token", resource)


def is_token(done: subprocess.CompletedProcess) -> bool:
    return done.returncode == 0 and re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout) is not None


def seen(done: subprocess.CompletedProcess) -> str:
    """Never a token."""
    return f"status {done.returncode}" if is_token(done) else f"status {done.returncode}: {done.stdout}"


def set_up() -> None:
    for user, groups in (("alice", "arcbroker"), ("bob", "arcbroker"), ("carol", "")):
        must("useradd", "--no-create-home", "--groups", groups, user)
    RULES.write_text(POLICY)
    RULES.chmod(0o644)
    must("systemctl", "start", "arcbroker.service", "himdsd.service")
    must("arcbroker", "reload")


# --- scenarios -------------------------------------------------------------------------------------------------


def tokens(scenario: Scenario) -> None:
    done = as_user("alice", *token("arm"))
    scenario.that("a user with a rule gets a token", is_token(done), seen(done))
    done = as_user("bob", *token("arm"))
    scenario.that("a user without a rule is denied", done.returncode == DENIED, seen(done))
    done = as_user("carol", *token("arm"))
    scenario.that("a user outside the group cannot connect", done.returncode == UNREACHABLE, seen(done))


def profile(scenario: Scenario) -> None:
    scenario.that("the profile is loaded, and enforced", is_loaded(), LOADED.read_text())
    pid = daemon()
    scenario.that("the running daemon is confined by it", label(pid) == f"{PROFILE} (enforce)", label(pid))
    must("apparmor_parser", "--replace", PROFILE_FILE)
    scenario.that("it stays confined while the profile is replaced", label(pid) == f"{PROFILE} (enforce)", label(pid))
    must("apparmor_parser", "--replace", "--Complain", PROFILE_FILE)
    scenario.that("the daemon can be put into complain mode", label(pid) == f"{PROFILE} (complain)", label(pid))
    must("apparmor_parser", "--replace", PROFILE_FILE)
    scenario.that("and back", label(pid) == f"{PROFILE} (enforce)", label(pid))
    DROP_IN.parent.mkdir()
    DROP_IN.write_text("[Service]\nAppArmorProfile=\n")
    restart_with_new_unit()
    scenario.that("a drop-in can leave it out", label(daemon()) == "unconfined", label(daemon()))
    DROP_IN.unlink()
    restart_with_new_unit()
    scenario.that("and without the drop-in it is confined", label(daemon()) == f"{PROFILE} (enforce)", label(daemon()))


def restart_with_new_unit() -> None:
    must("systemctl", "daemon-reload")
    must("systemctl", "restart", "arcbroker.service")


def local(scenario: Scenario) -> None:
    """What an administrator adds."""
    extra = Path("/srv/arcbroker.toml")
    extra.write_text("")
    done = probe(str(extra))
    scenario.that("a file that the profile does not name is refused", done.returncode == errno.EACCES, done.stdout)
    LOCAL.write_text(f"{extra} r,\n")
    must("apparmor_parser", "--replace", PROFILE_FILE)
    done = probe(str(extra))
    scenario.that("a line in local/ allows it", done.returncode == 0, done.stdout)
    LOCAL.unlink()
    must("apparmor_parser", "--replace", PROFILE_FILE)
    done = probe(str(extra))
    scenario.that("and without it, it is refused again", done.returncode == errno.EACCES, done.stdout)


def units(scenario: Scenario) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(TOKEN_SOCKET)
        try:
            connection.getsockopt(socket.SOL_SOCKET, 77, 4)
            number = 0
        except OSError as error:
            number = error.errno
    scenario.that("this kernel has no SO_PEERPIDFD", number == errno.ENOPROTOOPT, number)
    log = must("journalctl", "--quiet", "--boot", "--no-pager", "--unit=arcbroker.service")
    scenario.that("the daemon says that it holds on to callers by pidfd_open", "pinning=pidfd_open" in log, log)
    done = in_unit("nightly.service", *token("keyvault"))
    scenario.that("a unit with a rule gets a token", is_token(done), seen(done))
    done = in_unit("other.service", *token("keyvault"))
    scenario.that("the same user in another unit is denied", done.returncode == DENIED, seen(done))
    done = as_user("bob", *token("keyvault"))
    scenario.that("so is the same user in no unit of the rule", done.returncode == DENIED, seen(done))
    last = [record for record in records() if record["outcome"] == "issued"][-1]
    scenario.that("the record names the unit", last["unit"] == "nightly.service", last)


def work(scenario: Scenario) -> None:
    before = daemon()
    done = as_user("alice", "arcbroker", "exec", "--", "python3", "-c", ENDPOINT)
    scenario.that("a program below exec gets a token from its endpoint", done.stdout == "200\n", done.stdout)
    must("systemctl", "reload", "arcbroker.service")
    scenario.that("a reload keeps the process", daemon() == before, daemon())
    AUDIT.rename(AUDIT.with_name("audit.jsonl.1"))
    must("systemctl", "reload", "arcbroker.service")
    done = as_user("alice", *token("storage"))
    scenario.that("a rotated audit file is followed by a new one", eventually(AUDIT.exists), seen(done))
    done = run("arcbroker", "audit", "verify")
    scenario.that("the chain of records is whole", done.returncode == 0, done.stdout)
    done = run("arcbroker", "grant", "--user", "bob", "--for", "5m", "--reason", "test", "arm")
    scenario.that("a grant for a while is taken", done.returncode == 0, done.stdout)
    done = as_user("bob", *token("arm"))
    scenario.that("and gives a token", is_token(done), seen(done))
    done = run("arcbroker", "status")
    scenario.that("the status is healthy", done.returncode == 0, done.stdout)
    done = run("arcbroker", "allow", "--user", "carol", "arm")
    scenario.that("a rule that is added is taken up", done.returncode == 0, done.stdout)
    must("systemctl", "restart", "arcbroker.service")
    done = as_user("alice", *token("arm"))
    scenario.that("a restart is followed by a token", is_token(done) and daemon() != before, seen(done))
    must("systemctl", "restart", "himdsd.service")
    done = run("arcbroker", "flush")
    scenario.that("the tokens can be dropped", done.returncode == 0, done.stdout)
    # The simulator makes itself a key first, which takes its time on a processor that is emulated.
    tries: list[subprocess.CompletedProcess] = []
    eventually(lambda: tries.append(as_user("alice", *token("arm"))) or is_token(tries[-1]))
    scenario.that("and are fetched anew", is_token(tries[-1]), seen(tries[-1]))


ENDPOINT = """
import http.client, os, urllib.parse
address = urllib.parse.urlsplit(os.environ["IDENTITY_ENDPOINT"])
connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
query = "?api-version=2019-08-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
connection.request("GET", address.path + query, headers={"X-IDENTITY-HEADER": os.environ["IDENTITY_HEADER"]})
print(connection.getresponse().status)
"""


def store(scenario: Scenario) -> None:
    """What the daemon leaves with systemd: read where it is, in PID 1."""
    is_token(as_user("alice", *token("arm")))
    memories = eventually(lambda: list(memories_of(1)))
    scenario.that("systemd holds memory of the daemon's", memories, os.listdir("/proc/1/fd"))
    seals = {seals_of(path) for path in memories}
    scenario.that("all of it is sealed against every change", seals == {SEALED}, seals)
    must("systemctl", "stop", "himdsd.service")
    os.kill(daemon(), signal.SIGKILL)
    done = as_user("alice", *token("arm"))
    scenario.that("after kill -9 a token is there without upstream", is_token(done), seen(done))
    must("systemctl", "restart", "arcbroker.service")
    done = as_user("alice", *token("arm"))
    scenario.that("after a restart too", is_token(done), seen(done))
    must("systemctl", "start", "himdsd.service")
    scenario.that("and the daemon is confined again", label(daemon()) == f"{PROFILE} (enforce)", label(daemon()))


def memories_of(pid: int) -> Iterator[Path]:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith("/memfd:arcbroker"):
                yield path


def seals_of(path: Path) -> int:
    with path.open("rb") as memory:
        return fcntl.fcntl(memory, F_GET_SEALS)


def limits(scenario: Scenario) -> None:
    """What systemd is told, and what the kernel does."""
    pid = daemon()
    group = Path("/sys/fs/cgroup") / Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition(":")[2].lstrip("/")
    for name, file in (("MemoryMax", "memory.max"), ("TasksMax", "pids.max")):
        told, done = shown(name), (group / file).read_text().strip()
        scenario.that(f"{name}= is in force", told.isdigit() and told == done, f"{told} {done}")
    told = shown("LimitNOFILE")
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    done = next(line for line in lines if line.startswith("Max open files")).split()[4]
    scenario.that("LimitNOFILE= is in force", int(told) >= 16384 and told == done, f"{told} {done}")
    told, done = shown("OOMScoreAdjust"), Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
    scenario.that("OOMScoreAdjust= is in force", int(told) < 0 and told == done, f"{told} {done}")


def confined(scenario: Scenario) -> None:
    """A program of root's, with every capability, that puts itself under the profile."""
    done = probe()
    if done.returncode != 0:
        scenario.fail("a program can put itself under the profile", done.stdout)
        return
    for line in done.stdout.splitlines():
        holds, statement, outcome = line.split("\t")
        if holds == "skip":
            scenario.skip(statement, outcome)
        else:
            scenario.that(statement, holds == "yes", outcome)
    # The journal takes from the kernel in its own time.
    told = eventually(lambda: (done := refusals()).returncode == 0 and "/etc/shadow" in done.stdout)
    scenario.that("the kernel's log tells of it", told, refusals().stdout)


def refusals() -> subprocess.CompletedProcess:
    """As an administrator finds them."""
    return run("journalctl", "--dmesg", "--grep", f'apparmor="DENIED".*profile="{PROFILE}"')


def probe(*arguments: str) -> subprocess.CompletedProcess:
    return run("python3", "-B", "/usr/local/lib/probe.py", *arguments)


def package(scenario: Scenario) -> None:
    """The profile comes and goes with the package, without a boot between."""
    must("dpkg", "--purge", "arcbroker")
    scenario.that("a purge unloads the profile", not is_loaded(), LOADED.read_text())
    scenario.that("and removes it", not Path(PROFILE_FILE).exists())
    must("dpkg", "--install", "/srv/arcbroker.deb")
    scenario.that("an installation loads it", is_loaded(), LOADED.read_text())
    pid = eventually(daemon)
    scenario.that("and starts the daemon under it", pid and label(pid) == f"{PROFILE} (enforce)", shown("Result"))


def is_loaded() -> bool:
    return f"{PROFILE} (enforce)" in LOADED.read_text().splitlines()


SCENARIOS = {
    function.__name__: function for function in (tokens, profile, units, work, store, limits, confined, local, package)
}


def judge(name: str) -> bool:
    """Normal work must be done without a denial; what the probe provokes is not the daemon's."""
    scenario = Scenario(name)
    before = len(denials())
    try:
        SCENARIOS[name](scenario)
    except Exception:
        scenario.fail("it runs to its end", traceback.format_exc())
    if name not in (confined.__name__, local.__name__):
        refused = denials()[before:]
        scenario.that("AppArmor refused the daemon nothing", not refused, "\n".join(refused))
    return not scenario.has_failed


def explain() -> None:
    for command in (
        ("systemctl", "--no-pager", "--full", "status", "arcbroker.service", "himdsd.service"),
        ("journalctl", "--boot", "--no-pager", "--output=short-monotonic", "--lines=200"),
    ):
        print(f"--- {' '.join(command)}", flush=True)
        print(run(*command).stdout, flush=True)


def main() -> None:
    wanted = Path("/etc/arcbroker-qemu").read_text().split() or list(SCENARIOS)
    good = False
    try:
        set_up()
        good = all([judge(name) for name in wanted])
    except Exception:
        verdict("FAIL", "machine", "it is set up")
        traceback.print_exc(file=sys.stdout)
    if not good:
        explain()
    print("end", flush=True)


main()
