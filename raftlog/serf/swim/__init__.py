"""memberlist: who is alive."""
