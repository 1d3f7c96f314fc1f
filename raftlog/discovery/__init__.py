"""Where servers of a cluster may be found: by gossip, from a list, or by DNS. Hints, which are checked before they count."""
