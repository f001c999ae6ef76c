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


def seal(content: bytes) -> dict[str, str]:
    """Ciphertext, and what it takes to read it beside the passphrase. Raises EncryptionKeyError."""
    salt = _salt()
    token = _fernet(_passphrase("what is to be encrypted"), salt).encrypt(content)
    return {"method": _METHOD, "salt": salt, "data": token.decode()}


def unseal(envelope: Any, name: str) -> bytes:
    """What was sealed. Raises EncryptionKeyError, which calls it `name`."""
    try:
        salt, data = envelope["salt"], envelope["data"].encode()
        fernet = _fernet(_passphrase(name), salt)
        return fernet.decrypt(data)
    except (KeyError, TypeError, AttributeError, ValueError, _package().InvalidToken) as error:
        raise EncryptionKeyError(
            f"cannot decrypt {visible(name)}: it was encrypted with another key than {VARIABLE} holds now, "
            "or it is damaged. Set the right key, or move the file away."
        ) from error


def _passphrase(name: str) -> str:
    passphrase = os.environ.get(VARIABLE)
    if not passphrase:
        raise EncryptionKeyError(f"{visible(name)} needs a key: set the environment variable {VARIABLE}")
    return passphrase


@functools.lru_cache(maxsize=1)
def _salt() -> str:
    # One for all that a process writes: deriving a key takes a twentieth of a second, on purpose.
    return base64.urlsafe_b64encode(os.urandom(16)).decode()


@functools.lru_cache(maxsize=64)
def _fernet(passphrase: str, salt: str) -> Fernet:
    # The cost of RFC 7914, section 2, for a login: 16 MB and a twentieth of a second.
    key = hashlib.scrypt(passphrase.encode(), salt=salt.encode(), n=2**14, r=8, p=1, dklen=32)
    return _package().Fernet(base64.urlsafe_b64encode(key))


def _package() -> Any:
    try:
        from cryptography import fernet
    except ImportError as error:
        raise DependencyMissing("encryption", "cryptography") from error
    return fernet
