"""Our Raft in the simulated world: what is on its disks, what its clients may ask, and what must never happen."""
