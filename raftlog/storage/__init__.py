"""What a Raft node keeps on disk: who it is, the log, term and vote, snapshots of the views; and the thread that writes."""

from raftlog.storage.data_directory import DataDirectory
from raftlog.storage.disk_thread import DiskThread
from raftlog.storage.hard_state import DamagedState
from raftlog.storage.raft_storage import RaftStorage
from raftlog.storage.snapshot_file import BadSnapshot

__all__ = ["BadSnapshot", "DamagedState", "DataDirectory", "DiskThread", "RaftStorage"]
