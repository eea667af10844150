"""What this installation can do on this machine: instruction sets, threads, memory, CUDA, versions. Shown by
``fastnn.show_config()`` and ``fastnn info``.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["get_config", "show_config"]


def get_config() -> dict[str, Any]:
    """What ``show_config`` prints, as plain JSON values."""
    import platform
    import sys

    import numpy as np

    from . import __version__, _core

    built = _core.built_isas()
    default, why = _core.default_num_threads()
    live, cached = _core.memory_status()
    threads = _core.get_num_threads()
    return {
        "versions": {
            "fastnn": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "compiler": getattr(_core, "compiler", "unknown"),
            "platform": f"{sys.platform} {platform.machine()}",
        },
        "cpu": {
            "instruction_set": _core.isa(),
            "chosen_by": "FASTNN_ISA" if os.environ.get("FASTNN_ISA") else "the best that this CPU has",
            "built": list(built),
            "supported": [name for name, supported in built.items() if supported],
        },
        "threads": {
            "active": threads,
            "reason": why if threads == default else f"set_num_threads({threads}); the default is {default}, {why}",
        },
        "memory": {"arrays": live, "kept_for_reuse": cached, "machine": _machine_memory()},
        "cuda": _cuda(),
    }


def show_config() -> None:
    """Print the instruction sets, threads and why that many, memory, CUDA, versions."""
    print(describe(get_config()))


def describe(config: dict[str, Any]) -> str:
    """``get_config``'s dict as lines for people."""
    versions, cpu, threads, memory = config["versions"], config["cpu"], config["threads"], config["memory"]
    machine = f", machine {_size(memory['machine'])}" if memory["machine"] else ""
    rows = {
        "fastnn": f"{versions['fastnn']} (numpy {versions['numpy']}, Python {versions['python']}, "
        f"compiler {versions['compiler']}, {versions['platform']})",
        "instruction set": f"{cpu['instruction_set']} ({cpu['chosen_by']})",
        "  built": ", ".join(cpu["built"]),
        "  supported here": ", ".join(cpu["supported"]),
        "threads": f"{threads['active']} ({threads['reason']})",
        "memory": f"arrays {_size(memory['arrays'])}, kept for reuse {_size(memory['kept_for_reuse'])}{machine}",
        "CUDA": config["cuda"]["status"],
    }
    return "\n".join(f"{name:<17} {text}" for name, text in rows.items())


def _cuda() -> dict[str, Any]:
    from importlib.metadata import distributions

    found = {
        name: distribution.version
        for distribution in distributions()
        if (name := distribution.metadata["Name"] or "").startswith("cupy")
    }
    have = ", ".join(f"{name} {version}" for name, version in found.items())
    from .cuda import cache, device, nvrtc

    try:
        gpus = [device.named(f"cuda:{i}") for i in range(device.device_count())] or [device.named("cuda")]
        devices = [f"{gpu.name}, compute capability {gpu.arch / 10}" for gpu in gpus]
        status = f"{'; '.join(devices)} ({have}, NVRTC {nvrtc.version()}, compiled kernels in {cache.folder()})"
    except (ImportError, RuntimeError) as error:  # the second `named` above says what is missing
        devices, status = [], f"not available: {error}"
    return {"available": bool(devices), "cupy": found, "devices": devices, "status": status}


def _machine_memory() -> int | None:
    """Bytes of main memory, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
