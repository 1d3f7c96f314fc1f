"""Recorded measurements: `python -m bench --help`. What came out is in docs/benchmarks.md."""
