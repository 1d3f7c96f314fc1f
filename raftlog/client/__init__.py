"""Clients of the log service, for asyncio and for threads."""
