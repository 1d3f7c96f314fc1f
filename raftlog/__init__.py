"""A replicated commit log for Python: the server, its clients, and the protocols between them."""
