"""``python -m fastnn`` and the ``fastnn`` command. Next: cli/, where the subcommands are."""

import sys

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
