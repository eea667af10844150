"""One line on a terminal that is redrawn as training goes on: how far, loss, metrics, images a second, time left.

It writes nothing where the stream is no terminal, so that logs and pipes stay clean.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

__all__ = ["Progress", "clock"]

INTERVAL = 0.1  # seconds between two drawings: smooth to the eye, nothing beside a training step


class Progress:
    """A progress bar over ``total`` steps; ``with`` it, the line is left clean however the block ends."""

    def __init__(self, total: int, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.total = total
        self.active = not quiet and self.stream is not None and self.stream.isatty()
        self.steps = self.images = 0
        self.start = time.monotonic()
        self.drawn = 0.0

    def advance(self, images: int, label: str, text: str) -> None:
        """One more step, of ``images`` images, is done; redraw at most every tenth of a second."""
        self.steps += 1
        self.images += images
        now = time.monotonic()
        if self.active and now - self.drawn >= INTERVAL:
            self.drawn = now
            self._draw(label, text, now - self.start)

    def _draw(self, label: str, text: str, seconds: float) -> None:
        share = min(1.0, self.steps / self.total) if self.total else 1.0
        left = (self.total - self.steps) * seconds / self.steps
        tail = f"  {text}  {self.images / max(seconds, 1e-9):,.0f} images/s  {clock(max(0.0, left))} left"
        columns = shutil.get_terminal_size().columns - 1
        width = max(0, min(30, columns - len(label) - len(tail) - 3))
        bar = f" [{'#' * round(share * width):<{width}}]" if width >= 5 else ""
        self._write("\r" + (label + bar + tail)[:columns] + "\x1b[K")

    def line(self, text: str) -> None:
        """Print a whole line above the bar."""
        if self.active:
            self._write("\r" + text + "\x1b[K\n")
            self.drawn = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.active:
            self._write("\r\x1b[K")
        self.active = False

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # the terminal went away; training goes on
            self.active = False


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
