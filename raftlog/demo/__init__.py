"""What `raftlog demo` shows: a server, a client, and whether what went in came out."""
