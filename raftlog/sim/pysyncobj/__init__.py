"""PySyncObj in the simulated world: the control that shows that the checkers find real bugs.

It needs the package pysyncobj, so nothing here is imported before it is asked for.
"""
