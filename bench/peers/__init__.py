"""What raftlog is compared with: each starts three servers of its own and is used as its own documents say."""
