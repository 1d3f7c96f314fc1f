"""Changing the keys of the encryption everywhere, by queries that every node answers.

A new key is installed on all nodes first, which then understand both; then made the primary one, which all encrypt
with; then the old one is removed. Nothing checks that one step is done everywhere before the next: the asker counts.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.serf import decode, encode
from raftlog.serf.events import KeyAction, KeysResult
from raftlog.serf.messages import KeyRequest, KeyResponse

QUERIES: Final = {
    KeyAction.INSTALL: "_serf_install-key",
    KeyAction.USE: "_serf_use-key",
    KeyAction.REMOVE: "_serf_remove-key",
    KeyAction.LIST: "_serf_list-keys",
}
ACTIONS: Final = {name: action for action, name in QUERIES.items()}


def answer(action: KeyAction, payload: bytes, keyring: Keyring) -> KeyResponse:
    """What this node answers, after it did what it was asked for; without encryption it does nothing.

    To install what is there, or to remove what is not, is done already, so that the same may be asked twice.
    """
    if keyring.is_empty:
        return KeyResponse(False, "No keyring to modify (encryption not enabled)")
    if action is KeyAction.LIST:
        keys = tuple(b64encode(key).decode() for key in keyring.keys)
        return KeyResponse(True, "", keys, b64encode(keyring.primary).decode())
    try:
        request = decode(payload)
    except BadPacket as error:
        return KeyResponse(False, f"Not a request for keys: {error}")
    if not isinstance(request, KeyRequest):
        return KeyResponse(False, "Not a request for keys")
    if action is KeyAction.REMOVE and request.key not in keyring.keys:
        return KeyResponse(True, "")
    change: Callable[[bytes], None] = {
        KeyAction.INSTALL: keyring.install,
        KeyAction.USE: keyring.use,
        KeyAction.REMOVE: keyring.remove,
    }[action]
    try:
        change(request.key)
    except ValueError as error:
        return KeyResponse(False, str(error))
    return KeyResponse(True, "")


def fit(response: KeyResponse, *, fits: Callable[[bytes], bool]) -> bytes:
    """The response as bytes that fit; keys at the end of the list are left out for it, and it says so."""
    total = len(response.keys)
    for count in range(total, -1, -1):
        cut = response
        if count < total:
            text = f"truncated key list response, showing first {count} of {total} keys"
            cut = KeyResponse(response.is_done, text, response.keys[:count], response.primary_key)
        data = encode(cut)
        if fits(data):
            break
    return data


def tally(responses: Mapping[str, bytes], *, members: int) -> KeysResult:
    """What all answered, together."""
    errors: dict[str, str] = {}
    keys: Counter[str] = Counter()
    primary_keys: Counter[str] = Counter()
    for node, payload in responses.items():
        try:
            response = decode(payload)
        except BadPacket as error:
            errors[node] = f"not understood: {error}"
            continue
        if not isinstance(response, KeyResponse):
            errors[node] = "answered something else"
            continue
        if not response.is_done:
            errors[node] = response.message or "refused without a reason"
        keys.update(response.keys)
        if response.primary_key:
            primary_keys[response.primary_key] += 1
    return KeysResult(members, len(responses), errors, dict(keys), dict(primary_keys))
