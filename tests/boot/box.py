"""A box: one systemd, booted in a container of its own over a throw-away view of a root file system."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import namespaces

HERE = Path(__file__).resolve().parent
# Where a box has what this script shares with it.
SHARED = "/boot-test"

# The unit that runs a scenario; the box ends with it.
UNIT = f"""\
[Unit]
Description=A scenario of the boot test
After=multi-user.target dbus.service
SuccessAction=exit
FailureAction=exit

[Service]
Type=exec
Environment=HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER= SYSTEMD_COLORS=0
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
WorkingDirectory=/root
ExecStart=/usr/bin/python3 {SHARED}/tests/inside
StandardOutput=file:{SHARED}/out/errors
StandardError=file:{SHARED}/out/errors
ExecStopPost=/bin/sh -c '[ "$SERVICE_RESULT" = success ] || journalctl --no-pager -o short-monotonic >{SHARED}/out/journal'
"""


@dataclass
class Outcome:
    """What a scenario said, line by line, and what explains it where something failed."""

    lines: list
    logs: dict


class Box:
    def __init__(self, name: str, root: Path, directory: Path, time_limit: float):
        """`directory` is where a file system in memory may be mounted; `name` is no other box's."""
        self.name = name
        self.root = root
        self.directory = directory
        self.time_limit = time_limit

    def play(self, scenario: str, shared: dict) -> Outcome:
        """Boots, runs one scenario, and shuts down; once more for each further stage that the scenario has.

        `shared` are directories to show inside, by name.
        """
        with contextlib.ExitStack() as stack:
            self.mount(stack)
            output = self.directory / "out"
            output.mkdir()
            stage, status = 0, None
            while stage is not None:
                command = self.command(f"{scenario}:{stage}", {"tests": HERE, **shared})
                with own_cgroups(self.name) as cgroups:
                    status = self.run(command, cgroups, output / "console")
                stage = next_stage(output)
            return outcome(output, status)

    def mount(self, stack: contextlib.ExitStack) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        mount(stack, "tmpfs", self.directory, "tmpfs", "size=2g,mode=755")
        for name in ("upper", "work", "root"):
            (self.directory / name).mkdir()
        layers = f"lowerdir={self.root},upperdir={self.directory / 'upper'},workdir={self.directory / 'work'}"
        mount(stack, "overlay", self.directory / "root", "overlay", layers)
        units = self.directory / "root/etc/systemd/system"
        (units / "boot-test.service").write_text(UNIT)
        (units / "multi-user.target.wants").mkdir(exist_ok=True)
        (units / "multi-user.target.wants/boot-test.service").symlink_to("../boot-test.service")

    def command(self, scenario: str, shared: dict) -> list:
        # A machine that is booted counts from 0; the clocks of this one have come further.
        started = f"-{int(time.clock_gettime(time.CLOCK_BOOTTIME))}"
        command = ["unshare", "--time", f"--boottime={started}", "--fork", "--kill-child", "--"]
        command += ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no"]
        command += [f"--directory={self.directory / 'root'}", f"--machine={self.name}", "--hostname=arc-server"]
        command += ["--console=pipe", "--resolv-conf=off", "--timezone=off", "--kill-signal=SIGRTMIN+4"]
        # Nobody else listens where HIMDS does.
        command += ["--private-network"]
        # What systemd needs to filter addresses and devices: without it, IPAddressDeny= and DevicePolicy= do nothing.
        command += ["--capability=CAP_BPF,CAP_SYSLOG", "--system-call-filter=bpf @keyring landlock_add_rule "
                    "landlock_create_ruleset landlock_restrict_self pidfd_getfd"]
        command += [f"--bind={self.directory / 'out'}:{SHARED}/out"]
        command += [f"--bind-ro={path}:{SHARED}/{name}" for name, path in shared.items()]
        return [*command, "systemd.show_status=no", f"systemd.setenv=SCENARIO={scenario}"]

    def run(self, command: list, cgroups: list, log: Path) -> int | None:
        """None when it took too long."""
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with log.open("ab") as console:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=lambda: enter(cgroups),
            )
            try:
                return process.wait(self.time_limit)
            except subprocess.TimeoutExpired:
                return None
            finally:
                kill_all(cgroups)
                process.wait()


def results(output: Path) -> list[dict]:
    path = output / "results"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def next_stage(output: Path) -> int | None:
    """None where the scenario is over, or ended otherwise."""
    lines = results(output)
    if not lines or lines[-1]["outcome"] != "booted again":
        return None
    return sum(line["outcome"] == "booted again" for line in lines)


def outcome(output: Path, status: int | None) -> Outcome:
    lines = [line for line in results(output) if line["outcome"] != "booted again"]
    ended = bool(lines) and lines[-1]["outcome"] == "ended"
    lines = lines[:-1] if ended else lines
    if not ended:
        why = "it took too long" if status is None else f"the box ended early, with status {status}"
        lines.append({"outcome": "failed", "what": "the scenario comes to its end", "detail": why})
    elif not lines:
        lines.append({"outcome": "failed", "what": "the scenario checks something", "detail": "it has checked nothing"})
    names = ("console", "errors", "journal")
    logs = {name: (output / name).read_text(errors="replace") for name in names if (output / name).exists()}
    return Outcome(lines, logs)


def mount(stack: contextlib.ExitStack, source: str, target: Path, kind: str, options: str) -> None:
    namespaces.mount(source, str(target), kind, 0, options)
    stack.callback(namespaces.unmount, str(target))


# --- control groups --------------------------------------------------------------------------------------------------

# systemd-nspawn puts its payload beside itself: two in one group would share it.
HIERARCHIES = (("cgroup2", ""), ("cgroup", "name=systemd"))
PREFIX = "arcbroker-boot-"


def roots() -> list[Path]:
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if any(kind == wanted and option in options for wanted, option in HIERARCHIES):
            found.append(Path(target))
    return found


@contextlib.contextmanager
def own_cgroups(name: str):
    groups = [root / f"{PREFIX}{name}" for root in roots()]
    for group in groups:
        group.mkdir()
    try:
        yield groups
    finally:
        kill_all(groups)
        for group in groups:
            remove(group)


def enter(groups: list) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text("0")


def kill_all(groups: list) -> None:
    """All that is in them: the first process of the box is among it, and takes along what is born meanwhile."""
    for group in groups:
        for directory, _, _ in os.walk(group):
            for number in processes(Path(directory)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)


def processes(group: Path) -> list[int]:
    try:
        return [int(number) for number in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def remove(group: Path) -> None:
    """A group and those below it; those of processes that are about to be gone, as soon as they are."""
    patience = threading.Event()
    for _ in range(1000):
        try:
            for directory, _, _ in os.walk(group, topdown=False):
                os.rmdir(directory)
            return
        except OSError:
            patience.wait(0.01)
    raise TimeoutError(f"{group} cannot be removed: something is still in it")


def remove_abandoned() -> None:
    """What a run has left that was killed: empty groups are all that outlives one."""
    for root in roots():
        for group in root.glob(f"{PREFIX}*"):
            owner = group.name[len(PREFIX) :].partition("-")[0]
            if not Path("/proc", owner).exists():
                remove(group)


def remove_groups(name: str) -> None:
    """Of a run that has ended, however it did."""
    for root in roots():
        for group in root.glob(f"{PREFIX}{name}-*"):
            remove(group)
