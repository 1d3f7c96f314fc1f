"""A file system in memory that can lose its power, for tests of code that must survive it.

    fs = CrashFileSystem()
    with Log("data", filesystem=fs) as log:
        log.append(b"value")
    for point in fs.crash_points():          # before every operation, and behind the last
        for disk in point.states():          # everything that a power loss may leave; there are `point.count`
            with Log("data", filesystem=disk) as log:
                ...

It keeps the promises of `logstore.filesystem` and not one more. After a power loss

- of what was written to a file or cut off it since its last `sync`, any subset may be there, in order, each write
  cut at any byte; of a write in a random state any sectors may be missing;
- of the names that were made, changed or removed since the last `sync_directory`, any subset may be there. A
  rename is one step: the file is never without a name, and never has both;
- a file that was mapped holds anything: from one state to the next it is empty, zeros or noise by turns;
- `make_directory` is durable at once. Locks are not files here, and nobody holds one after a power loss.

A sync that fails is like one of Linux: what it was for may or may not be on disk, and a later sync that succeeds
changes nothing about that.

Full disks are made with `capacity_bytes`, other faults with `fail` or `before_operation`.
"""

from logstore.testing.crash_file_system import CrashFileSystem, CrashPoint
from logstore.testing.disk import Operation

__all__ = ["CrashFileSystem", "CrashPoint", "Operation"]
