"""Nodes of Serf in the simulated world: raftlog/serf with all its codecs, whose packets are lost, late, and cut off."""
