"""The clients: how each is installed, started, and what it needs around it."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import install
from install import CLIENTS, Toolkit, pinned, version_of_terraform
from scene import RESOURCE_MANAGER, STORAGE, STORAGE_WITHOUT_SLASH, VAULT, Scene
from surroundings import blobs, resource_manager

PYTHON = Toolkit(
    "python",
    ("python3",),
    "azure-identity",
    pinned("python/requirements.txt", r"azure-identity==(\S+)"),
    install.python,
)
MSAL = replace(PYTHON, package="msal", version=pinned("python/requirements.txt", r"msal==(\S+)"))
AZURE_CLI = Toolkit(
    "azure-cli",
    ("python3", "openssl"),
    "azure-cli",
    pinned("azure-cli/requirements.txt", r"azure-cli==(\S+)"),
    install.python,
)
JAVASCRIPT = Toolkit(
    "javascript",
    ("node", "npm"),
    "@azure/identity",
    pinned("javascript/package.json", r'"@azure/identity": "(.+)"'),
    install.javascript,
)
GO = Toolkit("go", ("go",), "azidentity", pinned("go/go.mod", r"azidentity v(\S+)"), install.go)
JAVA = Toolkit(
    "java",
    ("mvn", "javac", "java"),
    "com.azure:azure-identity",
    pinned("java/pom.xml", r"<artifactId>azure-identity</artifactId>\s*<version>(.+)</version>"),
    install.java,
)
RUST = Toolkit(
    "rust",
    ("cargo",),
    "azure_identity",
    pinned("rust/Cargo.toml", r'azure_identity = "=(.+)"'),
    install.rust,
)
TERRAFORM = Toolkit("terraform", ("terraform", "openssl"), "terraform", version_of_terraform, install.nothing)

Surroundings = Callable[[contextlib.ExitStack, Scene, Path], "dict[str, str]"]


def none(_stack: contextlib.ExitStack, _scene: Scene, _directory: Path) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Client:
    toolkit: Toolkit
    credential: str
    title: str
    command: Callable[[Path, str], list]
    surroundings: Surroundings = none
    resources: tuple[str, ...] = (VAULT, STORAGE)
    first: tuple[str, ...] = ()
    """Resources that it asks for by itself before the first that it is asked for."""
    remembers: bool = True
    """Does not ask again for what it has."""
    leaves_out: tuple[str, ...] = ("exec --imds",)
    """Variants that make no sense for it."""

    @property
    def name(self) -> str:
        return f"{self.toolkit.name}/{self.credential}"


def in_environment(directory: Path, credential: str) -> list:
    return [directory / "bin" / "python3", CLIENTS / "python" / "tokens.py", credential]


def with_az(directory: Path, _credential: str) -> list:
    return [directory / "bin" / "python3", CLIENTS / "azure-cli" / "tokens.py"]


def with_terraform(_directory: Path, _credential: str) -> list:
    return [sys.executable, CLIENTS / "terraform" / "tokens.py"]


def compiled(directory: Path, credential: str) -> list:
    return [directory / "tokens", credential]


def with_node(directory: Path, credential: str) -> list:
    return ["node", directory / "tokens.mjs", credential]


def with_java(directory: Path, credential: str) -> list:
    return ["java", "-cp", f"{directory / 'classes'}:{directory / 'lib'}/*", "Tokens", credential]


CLIENTS_OF_TODAY = [
    Client(PYTHON, "managed", "ManagedIdentityCredential", in_environment, leaves_out=()),
    Client(PYTHON, "default", "DefaultAzureCredential", in_environment),
    Client(PYTHON, "aio-managed", "aio.ManagedIdentityCredential", in_environment),
    Client(PYTHON, "aio-default", "aio.DefaultAzureCredential", in_environment),
    Client(MSAL, "msal", "ManagedIdentityClient, as az uses it", in_environment),
    Client(
        AZURE_CLI,
        "az",
        "az login --identity, az account get-access-token",
        with_az,
        surroundings=resource_manager,
        first=(RESOURCE_MANAGER,),
        remembers=False,
    ),
    Client(JAVASCRIPT, "managed", "ManagedIdentityCredential", with_node, leaves_out=()),
    Client(JAVASCRIPT, "default", "DefaultAzureCredential", with_node),
    Client(GO, "managed", "ManagedIdentityCredential", compiled),
    Client(GO, "default", "DefaultAzureCredential", compiled),
    Client(JAVA, "managed", "ManagedIdentityCredential", with_java),
    Client(JAVA, "default", "DefaultAzureCredential", with_java),
    Client(RUST, "managed", "ManagedIdentityCredential", compiled),
    Client(
        TERRAFORM,
        "azurerm-backend",
        "terraform init, backend azurerm",
        with_terraform,
        surroundings=blobs,
        resources=(STORAGE_WITHOUT_SLASH,),
        remembers=False,
        # It chooses neither the resource nor the identity.
        leaves_out=("own client id", "other client id", "denied", "exec --imds"),
    ),
]
