"""`python -m promptglass`, the same program as `promptglass`."""

from promptglass.cli import main

raise SystemExit(main())
