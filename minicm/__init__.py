"""minicm: the family of consistency models, readable, runnable and checkable against exact answers."""

__version__ = "0.2.0"
