"""Measures the engine beside what one would use instead, in one run: `logstore bench`, `python -m bench`."""
