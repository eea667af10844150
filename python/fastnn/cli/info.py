"""``fastnn info``."""

from __future__ import annotations

from typing import Any

from ..config import describe, get_config


def run(args: Any) -> int:
    config = get_config()
    if args.json:
        import json

        print(json.dumps(config, indent=2))
    else:
        print(describe(config))
    return 0
