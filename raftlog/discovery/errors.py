"""What looking for servers ends in, when it does not find any."""

from __future__ import annotations

from raftlog.errors import RaftlogError


class LookupFailed(RaftlogError):
    """A name was not looked up, or a member not asked; the text says why. Another attempt may do better."""
