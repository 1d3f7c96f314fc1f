"""When a server of a cluster serves: once its log is open and a leader is known, on followers as well."""

from __future__ import annotations

from typing import Final

from raftlog.server.health import Health

LEADERLESS_S_MAX: Final = 10.0  # who serves does so through an election of a second or two: reads go on


class Readiness:
    """Judges by what it is shown, and tells the health check. A failure is for good: only a restart mends it."""

    def __init__(self, health: Health) -> None:
        self._health = health
        # By the caller's clock:
        self._led_at: float | None = None  # when a leader was last known; None: never yet
        self._began_at: float | None = None  # the first look

    def look(self, *, failure: str, leader_id: str, now: float) -> None:
        """`failure` is why the log refuses to work, "" while it does; `leader_id` "" while none is known; `now` in
        seconds of a clock that does not go back."""
        if self._began_at is None:
            self._began_at = now
        if leader_id:
            self._led_at = now
        if failure:
            self._health.set_serving(False, failure)
        elif now - (self._began_at if self._led_at is None else self._led_at) > LEADERLESS_S_MAX:
            self._health.set_serving(False, f"no leader has been known for {LEADERLESS_S_MAX:.0f} s")
        elif self._led_at is None:
            self._health.set_serving(False, "no leader is known yet", is_planned=True)
        else:
            self._health.set_serving(True)
