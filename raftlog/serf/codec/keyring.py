"""The keys of the gossip: with the first everything is encrypted, with any it may be decrypted."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = (16, 24, 32)  # AES-128, -192, -256
KEYS_MAX: Final = 32  # each costs a trial for a packet that none fits; more are refused


class Keyring:
    """Keys, primary first. One owner changes it; a codec reads it anew for each packet."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        """ValueError for a key of another length than 16, 24 or 32 bytes, and for more than KEYS_MAX."""
        self._ciphers: dict[bytes, AESGCM] = {}  # in the order of the ring
        for key in keys:
            self.install(key)

    @property
    def keys(self) -> tuple[bytes, ...]:
        return tuple(self._ciphers)

    @property
    def ciphers(self) -> tuple[AESGCM, ...]:
        """Of each key, in their order."""
        return tuple(self._ciphers.values())

    @property
    def primary(self) -> bytes:
        """ValueError if there is no key."""
        if not self._ciphers:
            raise ValueError("keyring: there is no key")
        return next(iter(self._ciphers))

    @property
    def is_empty(self) -> bool:
        return not self._ciphers

    def install(self, key: bytes) -> None:
        """From now on what this key encrypted is understood; the first key installed is primary."""
        if len(key) not in KEY_BYTES:
            raise ValueError(f"key: expected 16, 24 or 32 bytes, found {len(key)}")
        if key in self._ciphers:
            return
        if len(self._ciphers) >= KEYS_MAX:
            raise ValueError(f"keyring: expected {KEYS_MAX} keys at most; remove one that is not used first")
        self._ciphers[key] = AESGCM(key)

    def use(self, key: bytes) -> None:
        """From now on everything is encrypted with this key. ValueError if it is not installed."""
        if key not in self._ciphers:
            raise ValueError("keyring: the key is not installed; install it on all members first")
        self._ciphers = {key: self._ciphers[key], **self._ciphers}

    def remove(self, key: bytes) -> None:
        """What this key encrypted is not understood any more. ValueError if it is primary or not installed."""
        if key not in self._ciphers:
            raise ValueError("keyring: the key is not installed")
        if key == self.primary:
            raise ValueError("keyring: the primary key cannot be removed; use another first")
        del self._ciphers[key]

    def to_json(self) -> str:
        """As Serf keeps it in a file: a list of the keys in base64, primary first."""
        return json.dumps([base64.b64encode(key).decode() for key in self._ciphers], indent=2)

    @classmethod
    def from_json(cls, text: str) -> Keyring:
        """ValueError, without a word of what is in it, if it is no list of keys in base64."""
        try:
            encoded = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("keyring: expected a JSON list of keys, found no JSON") from None
        if not isinstance(encoded, list) or not all(isinstance(each, str) for each in encoded):
            raise ValueError("keyring: expected a JSON list of keys in base64")
        try:
            return cls([base64.b64decode(each, validate=True) for each in encoded])
        except binascii.Error:
            raise ValueError("keyring: expected keys in base64, found one that is not") from None
