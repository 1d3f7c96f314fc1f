"""The garbage collector while a server runs."""

from __future__ import annotations

import gc

from raftlog.runtime.collector import THRESHOLDS, tune_collector


def test_collections_are_measured_and_what_was_there_is_left_out_until_it_is_undone() -> None:
    before, seconds = gc.get_threshold(), list[float]()

    undo = tune_collector(seconds.append)
    try:
        assert (gc.get_threshold(), gc.get_freeze_count() > 0) == (THRESHOLDS, True)
        gc.collect()
        assert len(seconds) == 1
        assert seconds[0] >= 0
    finally:
        undo()

    gc.collect()
    assert (gc.get_threshold(), gc.get_freeze_count(), len(seconds)) == (before, 0, 1)
