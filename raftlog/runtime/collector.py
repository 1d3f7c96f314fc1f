"""The garbage collector, tuned so that it does not hold up heartbeats, and its pauses, measured."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, Final

# Allocations (less deallocations) before a collection of the youngest; collections of each generation before one of the
# next. Batches are bytes and free themselves; what is left in cycles is little, so it can wait.
THRESHOLDS: Final = (10_000, 20, 50)


def tune_collector(observe: Callable[[float], None]) -> Callable[[], None]:
    """Collect less often, leave out what is here now, and call `observe` with the seconds of each collection.

    Returns what undoes it. To be called once all that stays has been made.
    """
    before = gc.get_threshold()
    began = 0.0

    def measure(phase: str, _: dict[str, Any]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            observe(time.perf_counter() - began)

    def undo() -> None:
        gc.callbacks.remove(measure)
        gc.unfreeze()
        gc.set_threshold(*before)

    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(measure)
    return undo
