"""PySyncObj in the simulated world: the control that shows that the checkers find real bugs.

Nothing here is imported before it is asked for: it needs the package pysyncobj.
"""

from importlib.util import find_spec

if find_spec("pysyncobj") is None:
    raise ModuleNotFoundError(
        "PySyncObj is not installed: pip install 'raftlog[pysyncobj]'", name="pysyncobj"
    )
