"""Who may ask: keys as hashes, compared in constant time, and the routes that there are."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from whet.errors import UsageError

_LINE = re.compile(r"(\S+)\s+([0-9a-fA-F]{64})")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


@dataclass(frozen=True)
class Keys:
    """users: hashes by name, empty where anybody on this machine may ask. admin: the hash of the admin's key."""

    admin: bytes
    users: dict[str, bytes] = field(default_factory=dict)

    def user(self, key: str) -> str | None:
        """The name that a key belongs to. All are compared, whichever fits."""
        given, found = hashed(key), None
        for name, known in self.users.items():
            if hmac.compare_digest(given, known):
                found = name
        return found

    def is_admin(self, key: str) -> bool:
        return hmac.compare_digest(hashed(key), self.admin)


def read_keys(file: Path) -> dict[str, bytes]:
    """Users of a file with a name and the SHA-256 of a key on each line. Raises UsageError."""
    users: dict[str, bytes] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (found := _LINE.fullmatch(line.strip())) is None or found[1] in users:
            raise UsageError(
                "{file}, line {number}: expected a name that stands there once and the SHA-256 of a key, 64 digits of "
                "0-9 and a-f: printf %s KEY | sha256sum",
                file=file,
                number=number,
            )
        users[found[1]] = bytes.fromhex(found[2])
    if not users:
        raise UsageError("{file} holds no key. Write a name and the SHA-256 of a key on each line.", file=file)
    return users


def admin_key(folder: Path) -> str:
    """The admin's key, which lies in the folder of a server and only its owner may read; made the first time."""
    file = folder / "admin.key"
    if file.is_file() and (key := file.read_text(encoding="utf-8").strip()):
        return key
    key = secrets.token_urlsafe(32)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.write(key + "\n")
    return key


def must_be_guarded(host: str, users: dict[str, bytes]) -> None:
    """Raises UsageError where everybody who reaches this machine could ask without a key."""
    if host not in LOOPBACK and not users:
        raise UsageError(
            "{host} can be reached from other machines, and no keys are given. Name a file of keys with --keys, or "
            "serve this machine alone: --host 127.0.0.1.",
            host=host,
        )
