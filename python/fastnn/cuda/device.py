"""The device behind ``device="cuda"``: CuPy's arrays, streams and memory pool, and the launch of our kernels on them.

``Device`` is the seam: what host functions see. ``CudaDevice`` is CuPy's; the tests have another that runs the same
kernels under the host's compiler. Nothing here imports CuPy before somebody asks for a device or brings its array.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property
from importlib import import_module
from typing import Any, cast

from . import cache as disk
from . import nvrtc, sources
from .arrays import Arrays
from .launch import Launcher, Table
from .table import UNITS

__all__ = ["CudaDevice", "Device", "device_count", "holder", "install", "is_available", "named", "synchronize"]

OPTIONS = ("--std=c++17", "--ftz=true", "--fmad=true", "-default-device", "--ptxas-options=-v")
OLDEST = 75

Run = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...], int], None]
"""A compiled kernel: a function of grid, block, cast arguments and bytes of dynamic shared memory."""


class Device:
    """One device: its arrays (``xp``, ``array_type``), what it is (``arch`` 90: compute capability 9.0), ``launch``."""

    xp: Any
    array_type: Any
    index: int = 0
    name: str
    arch: int
    multiprocessors: int
    shared_limit: int
    several = False  # whether there are other devices whose arrays are of the same type

    def __init__(self) -> None:
        self._launchers: dict[tuple[str, str], Launcher] = {}

    @property
    def label(self) -> str:
        return f"cuda:{self.index}"

    @cached_property
    def here(self) -> Any:
        """An empty array of this device: what says to fastnn.kernels where new arrays are made."""
        with self.current():
            return self.xp.empty(0, "float32")

    @cached_property
    def kernels(self) -> Table:
        """The host functions, bound to this device."""
        return Table(self)

    @cached_property
    def arrays(self) -> Arrays:
        """NumPy's functions on this device."""
        return Arrays(self)

    def load(self, unit: str, expression: str) -> Run:
        """The compiled kernel."""
        raise NotImplementedError

    def holds(self, x: Any) -> bool:
        """Whether ``x`` is an array of this very device."""
        return isinstance(x, self.array_type)

    def current(self) -> AbstractContextManager[Any]:
        """A context in which new arrays and launches go to this device."""
        return nullcontext()

    def empty(self, shape: Any, dtype: Any) -> Any:
        """An uninitialised array of this device."""
        with self.current():
            return self.xp.empty(shape, dtype)

    def synchronize(self) -> None:
        """Wait until everything that was launched has run."""

    def launch(
        self,
        unit: str,
        expression: str,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *args: Any,
        shared: int = 0,
    ) -> None:
        """Run a kernel of the table on the current stream: ``gpu.launch("elementwise", "map<float, relu_of<float>>",
        blocks(n), 256, x, y, n, 0, 0)``. Arguments are checked and cast; None is a null pointer, a tuple or dict a
        struct."""
        launcher = self._launchers.get((unit, expression))
        if launcher is None:
            launcher = self._launchers[unit, expression] = Launcher(self, unit, expression)
        launcher(grid, block, args, shared)


class CudaDevice(Device):
    """A GPU, through CuPy."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.xp = _cupy()
        self.array_type = self.xp.ndarray
        self.index = index
        handle = self.xp.cuda.Device(index)
        attributes = handle.attributes
        self.arch = int(handle.compute_capability)
        self.multiprocessors = attributes["MultiProcessorCount"]
        self.shared_limit = attributes["MaxSharedMemoryPerBlockOptin"]
        self.name = self.xp.cuda.runtime.getDeviceProperties(index)["name"].decode()
        if self.arch < OLDEST:
            raise RuntimeError(
                f"device '{self.label}': {self.name} has compute capability {self.arch / 10}; fastnn's kernels need "
                f"{OLDEST / 10} or newer"
            )
        self.several = self.xp.cuda.runtime.getDeviceCount() > 1

    def holds(self, x: Any) -> bool:
        return isinstance(x, self.array_type) and (not self.several or x.device.id == self.index)

    def current(self) -> AbstractContextManager[Any]:
        return self.xp.cuda.Device(self.index) if self.several else nullcontext()

    def synchronize(self) -> None:
        self.xp.cuda.Device(self.index).synchronize()

    def load(self, unit: str, expression: str) -> Run:
        with self.current():
            entry = self._entry(unit, expression)
            raw = self.xp.RawModule(path=str(entry.path)).get_function(entry.names[expression])
            if UNITS[unit].kernels[expression].shared > 48 * 1024:
                raw.max_dynamic_shared_size_bytes = UNITS[unit].kernels[expression].shared
            function = raw.kernel  # of this device

        def there(*args: Any) -> None:
            with self.current():
                function(*args)

        return there if self.several else cast(Run, function)

    def _entry(self, unit: str, expression: str) -> disk.Entry:
        part = UNITS[unit].part(expression, self.arch)
        return compiled(UNITS[unit].file, part, target(self.arch))


def compiled(file: str, expressions: list[str], arch: int) -> disk.Entry:
    """The cubin of some kernels of a file for one architecture; from the cache where it has it."""
    (_, source), *headers = sources.with_includes(file).items()
    return disk.build(file, source, dict(headers), expressions, [*OPTIONS, f"-arch=sm_{arch}"])


def target(arch: int) -> int:
    """The architecture to compile for: the device's own, or the newest of its generation that NVRTC knows."""
    fitting = [known for known in nvrtc.supported() if known // 10 == arch // 10 and known <= arch]
    if not fitting:
        raise RuntimeError(
            f"NVRTC {nvrtc.version()} cannot compile for compute capability {arch / 10} (it knows "
            f"{', '.join(str(known / 10) for known in nvrtc.supported())}); install a newer one: "
            "pip install --upgrade 'fastnn-kernels[cuda13]'"
        )
    return max(fitting)


# -- which devices there are ------------------------------------------------------------------------------------------
_finders: dict[type, Callable[[Any], Device]] = {}  # by the arrays' type
_only: dict[type, Device] = {}  # the device of all arrays of a type, where there is one alone
_stand_in: Device | None = None


def share(only: dict[type, Device]) -> None:
    """Keep ``_only`` in this dict from now on: its owner looks there before asking ``holder``."""
    global _only
    only.update(_only)
    _only = only


def install(device: Device | None) -> None:
    """Make ``device`` what "cuda" names, in place of CuPy's (None: CuPy's again). Its arrays are known from then on."""
    global _stand_in
    _stand_in = device
    if device is not None:
        _finders[device.array_type] = lambda x: device
        _only[device.array_type] = device


def holder(x: Any) -> Device | None:
    """The device whose array ``x`` is; None for what is no array of a device."""
    kind = type(x)
    find = _finders.get(kind)
    if find is None:
        if kind.__module__.partition(".")[0] != "cupy" or "cupy" not in sys.modules:
            return None
        if not isinstance(x, sys.modules["cupy"].ndarray):
            return None
        if _count() == 1:
            single = _only[kind] = _cuda_device(0)
            find = _finders[kind] = lambda array: single
        else:
            find = _finders[kind] = lambda array: _cuda_device(array.device.id)
    return find(x)


def named(device: str) -> Device:
    """The device called ``"cuda"`` (CuPy's current one) or ``"cuda:<number>"``; an error says what is missing."""
    kind, colon, number = device.partition(":")
    if kind != "cuda" or (colon and not (number.isascii() and number.isdigit())):
        raise ValueError(f"unknown device {device!r}; use 'cpu', 'cuda' or 'cuda:<number>'")
    if _stand_in is not None:
        count, current = 1, 0
    else:
        count = _count(device)
        current = _cupy().cuda.runtime.getDevice()
    wanted = int(number) if colon else current
    if wanted >= count:
        raise ValueError(f"device {device!r}: there {'is' if count == 1 else 'are'} only {count}, numbered from 0")
    return _stand_in or _cuda_device(wanted)


@cache
def _cuda_device(index: int) -> CudaDevice:
    return CudaDevice(index)


def _cupy() -> Any:
    try:
        return import_module("cupy")
    except ImportError as error:
        raise ImportError(
            "device 'cuda' needs CuPy: pip install 'fastnn-kernels[cuda13]' (or [cuda12], as the driver is; "
            f"nvidia-smi shows the newest CUDA it can do) ({error})"
        ) from None


def _count(device: str = "cuda") -> int:
    cupy = _cupy()
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(
            f"device {device!r}: CuPy finds no GPU and driver that it can use ({error}); nvidia-smi must list the GPU, "
            "and a CUDA version not older than CuPy's"
        ) from None


def is_available() -> bool:
    """Whether ``device="cuda"`` can be used: CuPy, a driver and a GPU are there."""
    return device_count() > 0


def device_count() -> int:
    """How many GPUs can be used; 0 without CuPy or a driver."""
    if _stand_in is not None:
        return 1
    try:
        return _count()
    except (ImportError, RuntimeError):
        return 0


def synchronize(device: str = "cuda") -> None:
    """Wait until all that was launched on a device has run: kernels run behind Python's back."""
    named(device).synchronize()
