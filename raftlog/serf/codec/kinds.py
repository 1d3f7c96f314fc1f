"""The first byte of every memberlist message and envelope. Source: memberlist, net.go and label.go."""

from __future__ import annotations

from typing import Final

PING: Final = 0
INDIRECT_PING: Final = 1
ACK: Final = 2
SUSPECT: Final = 3
ALIVE: Final = 4
DEAD: Final = 5
PUSH_PULL: Final = 6
COMPOUND: Final = 7
USER: Final = 8
COMPRESSED: Final = 9
ENCRYPTED: Final = 10  # streams only; an encrypted packet begins with the version of the encryption, 0 or 1
NACK: Final = 11
CRC: Final = 12
ERROR: Final = 13
LABEL: Final = 244
