"""node.json: whose data a directory holds. It is replaced whole, so a crash leaves the old or the new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from logstore.checksum import crc32c
from logstore.filesystem import FileSystem
from raftlog.engine import NodeId
from raftlog.errors import IdentityError
from raftlog.storage.files import read_whole, replace_whole

NAME: Final = "node.json"
FORMAT_VERSION: Final = 1
IDENTITY_BYTES_MAX: Final = 4 * 1024 * 1024  # some ten thousand members; more is not even parsed


class Stage(Enum):
    """What is being done with the content; a crash may leave either."""

    READY = "ready"
    SETTING_ASIDE = "setting-aside"  # its content moves to the folder `aside`, and an empty one is made


@dataclass(frozen=True, slots=True)
class Identity:
    node: NodeId
    cluster_id: str  # uuid
    directory_id: str  # uuid; another one after the content was lost or set aside
    stage: Stage
    members: Mapping[NodeId, str] = field(default_factory=dict)  # address of each that was known last
    aside: str = ""  # name of the folder in aside/ while the content moves there


def write(fs: FileSystem, folder: str, identity: Identity) -> None:
    """Durable on return. DiskFull with nothing changed."""
    replace_whole(fs, f"{folder}/{NAME}", [to_bytes(identity)])


def read(fs: FileSystem, folder: str) -> Identity | None:
    """None if there is none. Raises IdentityError if it is damaged or of a newer format."""
    path = f"{folder}/{NAME}"
    return from_bytes(read_whole(fs, path), path) if fs.exists(path) else None


def to_bytes(identity: Identity) -> bytes:
    content = {
        "format": FORMAT_VERSION,
        "node": identity.node,
        "cluster_id": identity.cluster_id,
        "directory_id": identity.directory_id,
        "stage": identity.stage.value,
        "members": dict(identity.members),
        "aside": identity.aside,
    }
    return _dump({**content, "crc32c": _checksum(content)})


def from_bytes(data: bytes, path: str) -> Identity:
    advice = "restore it from a backup, or begin with an empty directory and join the cluster anew"
    if len(data) > IDENTITY_BYTES_MAX:
        raise IdentityError(f"{path}: {len(data)} bytes are no node's identity: {advice}")
    try:
        content = json.loads(data)
        if isinstance(content, dict) and isinstance(content.get("format"), int):
            _require_format(content["format"], path)
        checksum = content.pop("crc32c")
        if checksum != _checksum(content):
            raise ValueError("its checksum does not match")
        return Identity(
            NodeId(_text(content["node"])),
            _text(content["cluster_id"]),
            _text(content["directory_id"]),
            Stage(content["stage"]),
            {NodeId(_text(node)): _text(address) for node, address in content["members"].items()},
            _text(content["aside"], empty=True),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IdentityError(f"{path} is damaged ({error}): {advice}") from error


def _require_format(version: int, path: str) -> None:
    if version > FORMAT_VERSION:
        raise IdentityError(
            f"{path}: the data has format {version}, this program knows {FORMAT_VERSION}: use a newer one"
        )


def _checksum(content: Mapping[str, Any]) -> str:
    return f"{crc32c(0, _dump(content)):08x}"


def _dump(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def _text(value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise TypeError(f"{value!r:.100} where text belongs")
    return value
