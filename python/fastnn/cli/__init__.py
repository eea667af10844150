"""The command line: ``main`` parses, runs one subcommand, and turns every failure into one line and an exit code.

A subcommand is a module here with ``run(args) -> int``, imported only when it is asked for; its options are in
options.py. Exit codes: 0 done, 1 it could not be done, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["UsageError", "main"]


class UsageError(ValueError):
    """What was asked for does not fit together; exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``fastnn`` with these arguments (default: the process's) and return its exit code."""
    from importlib import import_module

    from .options import parser

    arguments = parser().parse_args(argv)
    try:
        code: int = import_module(f".{arguments.module}", __package__).run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        hint = interrupt.args[0] if interrupt.args else ""
        print(f"fastnn: interrupted{hint and '; '}{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has left: no error, and nothing to be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("FASTNN_DEBUG"):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        expected = isinstance(error, (ValueError, OSError, ArithmeticError, ImportError))
        if not expected:
            text = f"{type(error).__name__}: {text} (FASTNN_DEBUG=1 shows where)"
        print(f"fastnn: error: {text}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
