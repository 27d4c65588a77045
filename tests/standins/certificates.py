"""A certificate for the stand-ins, under their addresses and under the names of what they stand in for.

Its authority is made for it, and cannot issue another one.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

# Strict verifiers (Python 3.13, webpki) want every extension that is here.
CONFIGURATION = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = stand-ins for Azure, for tests only
[authority]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = @names
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[names]
IP.1 = 127.0.0.1
DNS.1 = localhost
DNS.2 = management.azure.com
DNS.3 = *.vault.azure.net
DNS.4 = *.blob.core.windows.net
"""
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Certificates:
    """PEM files; the authority's key is gone."""

    authority: Path
    certificate: Path
    key: Path


def make(directory: Path) -> Certificates:
    files = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    configuration, authority_key, request = (directory / name for name in ("openssl.cnf", "ca.key", "server.csr"))
    configuration.write_text(CONFIGURATION)
    common = ["-config", configuration, "-batch"]
    openssl("req", "-x509", *KEY, *common, "-days", "2", "-extensions", "authority", "-keyout", authority_key,
            "-out", files.authority)  # fmt: skip
    openssl("req", "-new", *KEY, *common, "-keyout", files.key, "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", files.authority, "-CAkey", authority_key, "-set_serial", "2",
            "-days", "2", "-extfile", configuration, "-extensions", "server", "-out", files.certificate)  # fmt: skip
    for leftover in (configuration, authority_key, request):
        leftover.unlink()
    return files


def openssl(*words: object) -> None:
    done = subprocess.run(["openssl", *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"openssl {words[0]} failed: {done.stderr.strip()}")
