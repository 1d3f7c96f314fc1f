"""AES-GCM as memberlist has it: version, nonce, ciphertext, tag. Source: memberlist, security.go.

| position | width | meaning |
|---|---|---|
| 0 | 1 | version: 0, the plain text is padded (PKCS7); 1, it is not. 1 is sent, both are understood |
| 1 | 12 | nonce |
| 13 | the rest | ciphertext, and in its last 16 bytes the tag |
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag

from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.keyring import Keyring

PADDED: Final = 0
UNPADDED: Final = 1
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
PAD_BLOCK: Final = 16
OVERHEAD: Final = 1 + NONCE_BYTES + TAG_BYTES


def encrypt(keyring: Keyring, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    """With the primary key. `associated` is vouched for but not in it. A nonce is never to be used twice."""
    assert len(nonce) == NONCE_BYTES
    return bytes([UNPADDED]) + nonce + keyring.ciphers[0].encrypt(nonce, plain, associated)


def decrypt(keyring: Keyring, data: bytes, associated: bytes) -> bytes:
    """With whichever key fits. BadPacket if none does, or if it was changed on the way."""
    if len(data) < OVERHEAD:
        raise BadPacket(f"encrypted: expected {OVERHEAD} bytes at least, found {len(data)}")
    version = data[0]
    if version not in (PADDED, UNPADDED):
        raise BadPacket(f"encrypted: expected version 0 or 1, found {version}")
    nonce, ciphertext = data[1 : 1 + NONCE_BYTES], data[1 + NONCE_BYTES :]
    for cipher in keyring.ciphers:
        try:
            plain = cipher.decrypt(nonce, ciphertext, associated)
        except InvalidTag:
            continue
        # The version is not vouched for, so it may have been changed: the padding is looked at.
        return plain if version == UNPADDED else _unpadded(plain)
    raise BadPacket(f"encrypted: none of {len(keyring.keys)} keys fits")


def _unpadded(plain: bytes) -> bytes:
    count = plain[-1] if plain else 0
    if not 1 <= count <= PAD_BLOCK or len(plain) % PAD_BLOCK or plain[-count:] != bytes([count]) * count:
        raise BadPacket("encrypted: expected padding of 1 to 16 bytes, found none")
    return plain[:-count]
