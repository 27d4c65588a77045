"""What stands in for Azure around a client that does more than fetch tokens."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import rig
from scene import Scene

sys.path.insert(0, str(rig.REPOSITORY / "tests" / "standins"))

import detour
import standins


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
