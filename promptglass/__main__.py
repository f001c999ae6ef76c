"""`python -m promptglass`, or `python path/to/this/folder`: the same program as `promptglass`."""

import sys
from pathlib import Path

if not __package__:  # started as a folder, which then stands first among the places of modules
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from promptglass.cli import main

raise SystemExit(main())
