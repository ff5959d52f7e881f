"""Secrets of accounts on the broker, and their hashes as mosquitto keeps them.

A secret made here has 192 random bits. Guessing it is hopeless however fast the hash is, so the hash has few rounds:
thousands of devices that come back at once must not hold the broker up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

ROUNDS: Final = 100


def new_secret() -> str:
    """Make a secret that is shown once and kept only as its hash."""
    return secrets.token_urlsafe(24)


def hash_secret(secret: str, *, rounds: int = ROUNDS, salt: bytes | None = None) -> str:
    """Hash as in mosquitto's password file: ``$7$rounds$salt$hash``, PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def secret_matches(secret: str, hashed: str) -> bool:
    """Whether a secret is the one that was hashed; False for what is no hash of ours."""
    parts = hashed.split("$")
    if len(parts) != 5 or parts[1] != "7" or not parts[2].isdigit():
        return False
    try:
        again = hash_secret(secret, rounds=max(1, int(parts[2])), salt=base64.b64decode(parts[3], validate=True))
    except (binascii.Error, UnicodeEncodeError):
        return False
    return hmac.compare_digest(again, hashed)
