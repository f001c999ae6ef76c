"""The wire: HTTP routes that a host mounts. Imports FastAPI only once somebody does (mount.py)."""
