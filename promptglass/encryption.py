"""Encrypting what is written, with a passphrase from the environment.

The key is made of the passphrase by scrypt, with a salt that stands beside the ciphertext; the rest is Fernet
(AES-128-CBC with HMAC-SHA256, https://github.com/fernet/spec). Needs the optional package cryptography.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from typing import TYPE_CHECKING, Any

from .errors import DependencyMissing, EncryptionKeyError, visible

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

VARIABLE = "PROMPTGLASS_KEY"
_METHOD = "scrypt-fernet"


def check_key() -> None:
    """Raises EncryptionKeyError without a passphrase, DependencyMissing without the package."""
    _package()
    _passphrase("encryption")


def seal(content: bytes) -> dict[str, str]:
    """Ciphertext, and what it takes to read it beside the passphrase. Raises EncryptionKeyError."""
    passphrase = _passphrase("encryption")
    # One salt for all that a process writes, the one it met first: deriving a key takes its time on purpose.
    salt = _salts.setdefault(passphrase, base64.urlsafe_b64encode(os.urandom(16)).decode())
    token = _fernet(passphrase, salt).encrypt(content)
    return {"method": _METHOD, "salt": salt, "data": token.decode()}


def unseal(envelope: Any, name: str) -> bytes:
    """What was sealed. Raises ValueError for what never was, EncryptionKeyError, which calls it `name`.

    With a passphrase that has opened others, what does not open is damaged: that is a ValueError, too.
    """
    if not (isinstance(envelope, dict) and envelope.get("method") == _METHOD):
        raise ValueError("not encrypted by promptglass")
    salt, data = envelope.get("salt"), envelope.get("data")
    if not isinstance(salt, str) or not isinstance(data, str) or not data.isascii():
        raise ValueError("not encrypted by promptglass")
    passphrase = _passphrase(name)
    try:
        content = _fernet(passphrase, salt).decrypt(data.encode())
    except _package().InvalidToken as error:
        if passphrase in _salts:
            raise ValueError("damaged") from error
        raise EncryptionKeyError(
            f"cannot decrypt {visible(name)}: it was encrypted with another key than {VARIABLE} holds now, "
            "or it is damaged. Set the right key, or move the file away."
        ) from error
    _salts.setdefault(passphrase, salt)
    return content


_salts: dict[str, str] = {}  # by passphrase


def _passphrase(name: str) -> str:
    passphrase = os.environ.get(VARIABLE)
    if not passphrase:
        raise EncryptionKeyError(f"{visible(name)} needs a key: set the environment variable {VARIABLE}")
    return passphrase


@functools.lru_cache(maxsize=4096)
def _fernet(passphrase: str, salt: str) -> Fernet:
    # The cost of RFC 7914, section 2, for a login: 16 MB and a twentieth of a second.
    key = hashlib.scrypt(os.fsencode(passphrase), salt=os.fsencode(salt), n=2**14, r=8, p=1, dklen=32)
    return _package().Fernet(base64.urlsafe_b64encode(key))


def _package() -> Any:
    try:
        from cryptography import fernet
    except ImportError as error:
        raise DependencyMissing("encryption", "cryptography") from error
    return fernet
