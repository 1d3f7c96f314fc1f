"""What all leaders to come must know of how members are looked after: the mode, and who is not to come back."""

from __future__ import annotations

from typing import Final

from raftlog.engine import NodeId
from raftlog.pb.raftlog.v1 import command_pb2 as pb

BARRED_MAX: Final = 1_000  # beyond it the one that was barred first is forgotten, and may come back by itself


class Autopilot:
    """Told by commands."""

    mode: str  # act, advise or off; "": nobody has said, each server does as it is set

    def __init__(self) -> None:
        self.mode = ""
        self._barred: dict[NodeId, str] = {}  # directory ids, "" for any; in the order in which they came

    def set_mode(self, command: pb.SetAutopilot) -> None:
        self.mode = command.mode

    def bar(self, command: pb.BarServer) -> None:
        node = NodeId(command.id)
        self._barred.pop(node, None)
        self._barred[node] = command.directory_id
        if len(self._barred) > BARRED_MAX:
            del self._barred[next(iter(self._barred))]

    def allow(self, id: str) -> None:
        self._barred.pop(NodeId(id), None)

    def is_barred(self, node: NodeId, directory_id: str) -> bool:
        """Whether this server was removed on purpose. One with another, known directory is another server."""
        barred = self._barred.get(node)
        return barred is not None and (not barred or directory_id in ("", barred))

    def to_bytes(self) -> bytes:
        view = pb.AutopilotView(mode=self.mode)
        for node, directory_id in self._barred.items():
            view.barred.add(id=node, directory_id=directory_id)
        return view.SerializeToString(deterministic=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> Autopilot:
        """What `to_bytes` gave; DecodeError for other bytes."""
        view = pb.AutopilotView.FromString(data)
        autopilot = cls()
        autopilot.mode = view.mode
        for each in view.barred:
            autopilot.bar(each)
        return autopilot
