"""State machines over the log: what each node concludes from the same entries, in the same order.

A machine has no clock, no chance and no I/O; what it is told of time is the log's. `Views` feeds them.
"""
