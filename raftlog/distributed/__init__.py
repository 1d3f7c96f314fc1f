"""The log of a cluster, as each of its nodes has it: appended to through the leader, read anywhere."""
