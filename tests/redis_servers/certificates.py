"""Certificates for TLS, made for one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: `authority` signed `server` (127.0.0.1, localhost) and `client`, each
    with its key; `stranger` is an authority that signed neither."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    stranger: Path


def make(directory: Path) -> Certificates:
    """Writes new ones into `directory`."""
    found = Certificates(
        *(
            directory / name
            for name in (
                *("authority.pem", "server.pem", "server.key"),
                *("client.pem", "client.key", "stranger.pem"),
            )
        )
    )
    authority = trustme.CA()
    authority.cert_pem.write_to_path(found.authority)
    server = authority.issue_cert("127.0.0.1", "localhost")
    server.cert_chain_pems[0].write_to_path(found.server)
    server.private_key_pem.write_to_path(found.server_key)
    client = authority.issue_cert("client@example.org")
    client.cert_chain_pems[0].write_to_path(found.client)
    client.private_key_pem.write_to_path(found.client_key)
    trustme.CA().cert_pem.write_to_path(found.stranger)
    return found
