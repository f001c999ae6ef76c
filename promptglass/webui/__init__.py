"""WebUI's door: A1111, Forge and reForge. Here, as they can import one name of an extension at most.

Only running.py, settings.py and door.py import the host, and only inside functions.
"""
