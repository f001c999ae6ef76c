"""ComfyUI's door: it imports this folder as a package, under whatever name it was cloned to.

Nothing here costs time: the nodes load what they need when they run.
"""

if __package__:  # a test runner may import this file without one
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    from .nodes.routes import register

    WEB_DIRECTORY = "./javascript/comfyui"
    __all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]

    register()
