from __future__ import annotations

from typing import Any, NoReturn

import pysyncobj.serializer
import pysyncobj.syncobj
import pytest


class _NoPickle:
    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object) -> NoReturn:
            raise AssertionError(f"pickle.{name} was called")

        return refuse


@pytest.fixture(autouse=True)
def _no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """PySyncObj's pickles fail: no test may need one."""
    monkeypatch.setattr(pysyncobj.syncobj, "pickle", _NoPickle())
    monkeypatch.setattr(pysyncobj.serializer, "pickle", _NoPickle())
