"""Messages as memberlist and Serf have them on the wire."""
