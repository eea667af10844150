"""The log of a run: one JSON object a line, for each epoch (``"event": "epoch"``) and, on request, every N steps.

A resumed run first drops the lines that its checkpoint does not know of, so that no epoch or step appears twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..io import write_atomic

__all__ = ["append", "check_own", "read", "rewind"]


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one line, in one write."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; one that a crash cut short is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def check_own(path: Path) -> None:
    """Raise FileExistsError if a file of this name is there whose lines are not those of a run."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    whole = sum(record.get("event") in ("epoch", "step") for record in read(path))
    cut = bool(lines[-1]) and lines[-1].startswith('{"event": ')  # what a crash left of a line
    if whole + cut < sum(map(bool, lines)):
        raise FileExistsError(f"{path} is not the log of a run; choose another out, or move it away")


def rewind(path: Path, epoch: int, step: int) -> None:
    """Keep the lines of the first ``epoch`` epochs and of steps up to ``step``; drop what came later."""

    def known(record: dict[str, Any]) -> bool:
        at, limit = ("epoch", epoch) if record.get("event") == "epoch" else ("step", step)
        value = record.get(at)
        return isinstance(value, int) and value <= limit

    kept = [record for record in read(path) if known(record)]
    if kept or path.exists():
        write_atomic(path, "".join(json.dumps(record) + "\n" for record in kept))
