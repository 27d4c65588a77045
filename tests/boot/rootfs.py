"""The root file systems that are booted: one for each suite of Debian, made once and never written to afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

# And the version of systemd in each.
SUITES = {"bookworm": 252, "bullseye": 247, "trixie": 257}

PACKAGES = ("dbus", "iproute2", "libnss-systemd", "procps", "python3", "systemd", "systemd-sysv")

# What a box for a test needs no time for, or what fails without the hardware.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "systemd-networkd-wait-online.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
)

WITHOUT = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")


def prepared(suite: str, cache: Path) -> Path:
    """The root file system of a suite, made now if the cache has none of today's recipe."""
    recipe = Path(__file__).read_bytes()
    root = cache / f"{suite}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            remove_others(suite, cache)
            make(suite, root)
    return root


def remove_others(suite: str, cache: Path) -> None:
    """Those of an older recipe, and what a killed run has left half made."""
    for path in cache.glob(f"{suite}-*"):
        shutil.rmtree(path)


def make(suite: str, root: Path) -> None:
    unfinished = root.with_name(root.name + ".unfinished")
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command += ["--aptopt=Acquire::Retries \"3\""]
    if suite == "bullseye":
        # As its installer makes it. Otherwise its systemd looks for some things in /lib, and they are in /usr/lib.
        command += ["--setup-hook=/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in WITHOUT]
    command += [suite, str(unfinished), *sources(suite)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    furnish(unfinished)
    unfinished.rename(root)


def sources(suite: str) -> list[str]:
    """From where this machine's own packages come, which must be Debian's."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"]
    listed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    uris = [uri for origin, _, uri in (line.partition(" ") for line in listed.splitlines()) if origin == "Debian"]
    archive = next((uri for uri in uris if "security" not in uri), None)
    security = next((uri for uri in uris if "security" in uri), None)
    if archive is None or security is None:
        sys.exit("apt knows no archive of Debian and its security updates")
    return [f"deb {archive} {suite} main", f"deb {security} {suite}-security main"]


def furnish(root: Path) -> None:
    units = root / "etc/systemd/system"
    for unit in MASKED:
        mask = units / unit
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")
    default = units / "default.target"
    default.unlink(missing_ok=True)
    default.symlink_to("/lib/systemd/system/multi-user.target")
    # Without a number, the first boot would ask for one and fail.
    (root / "etc/machine-id").write_text(uuid.uuid4().hex + "\n")
    # There is no network inside: what a package only recommends must not be looked for.
    (root / "etc/apt/sources.list").write_text("")
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
    for configuration in (root / "etc/dpkg/dpkg.cfg.d").iterdir():
        if "path-exclude" in configuration.read_text():
            configuration.unlink()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(root / "etc/resolv.conf")
