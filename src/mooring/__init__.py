"""mooring: run a Python web application in production."""

__version__ = "0.1.0"
