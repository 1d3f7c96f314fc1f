"""PySyncObj as a second engine, outside of the safety guarantees: docs/decisions/0007-pysyncobj-engine.md.

Nothing here is imported unless `engine = "pysyncobj"`: it needs the package pysyncobj, of one version, because it
overrides private parts of it.
"""

from importlib.metadata import PackageNotFoundError, version

VERSION = "0.3.17"

try:
    installed = version("pysyncobj")
except PackageNotFoundError:
    raise ModuleNotFoundError(
        'engine = "pysyncobj" needs PySyncObj: pip install "raftlog[pysyncobj]"', name="pysyncobj"
    ) from None
if installed != VERSION:
    raise ImportError(f'engine = "pysyncobj" needs PySyncObj {VERSION}, {installed} is installed')
