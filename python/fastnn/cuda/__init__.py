"""The GPU: kernels of csrc/cuda, compiled at run time by NVRTC and launched through CuPy, an extra.

device.py finds devices and launches; launch.py checks arguments; table.py lists every kernel; sources.py, nvrtc.py and
cache.py make binaries of text. The other files hold the host functions, one file per file of csrc/cuda: what
``fastnn.kernels`` calls where an array is CuPy's. ``python -m fastnn.cuda`` prints what each kernel takes.
"""

from .device import device_count, is_available, synchronize

__all__ = ["device_count", "is_available", "synchronize"]
