"""What all tests share. The package under test is the installed one (or PYTHONPATH=python, for work in the tree).

``device``: where a test's arrays live. FASTNN_TEST_DEVICES chooses (``cpu,cuda-emulated``); by default all there are.
"""

import os
import shutil
import sys
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a few seconds")


def pytest_collection_finish(session):
    """A long session will need most of the emulator's units: they are built beside the first tests, on all CPUs."""
    if sum("cuda-emulated" in item.nodeid for item in session.items) > 200:
        from emulator import build
        from emulator.device import all_units, emulated

        for unit in all_units(emulated().arch):
            build.start(unit)


def test_devices():
    """The CPU; the emulator where its compiler is; a GPU where there is one."""
    chosen = os.environ.get("FASTNN_TEST_DEVICES")
    if chosen:
        return chosen.split(",")
    found = ["cpu", "cuda-emulated"] if shutil.which(os.environ.get("CXX", "g++")) else ["cpu"]
    if find_spec("cupy"):
        from fastnn import cuda

        found += ["cuda"] * cuda.is_available()
    return found


class CPU:
    """Where arrays live: ``put`` takes NumPy's there, ``get`` brings them back; ``name`` is what users write."""

    name = "cpu"
    array_type = np.ndarray
    emulated = False

    def put(self, x):
        return x

    def get(self, x):
        return x

    def schedule(self, **order):
        """A context in which an emulated device's threads take turns in another order."""
        return nullcontext()


class GPU(CPU):
    name = "cuda"

    def __init__(self, gpu, emulated):
        self.gpu, self.array_type, self.emulated = gpu, gpu.array_type, emulated

    def put(self, x):
        return self.gpu.xp.asarray(x) if isinstance(x, np.ndarray) else x

    def get(self, x):
        return x.get() if isinstance(x, self.array_type) else x

    def schedule(self, **order):
        return self.gpu.schedule(**order) if self.emulated else nullcontext()


@contextmanager
def opened(name):
    """The device, installed as what "cuda" names."""
    if name == "cpu":
        yield CPU()
        return
    from fastnn.cuda import device as devices

    if name == "cuda":
        yield GPU(devices.named("cuda"), False)
        return
    from emulator.device import emulated

    devices.install(emulated())
    try:
        yield GPU(emulated(), True)
    finally:
        devices.install(None)


@pytest.fixture(params=test_devices())
def device(request):
    with opened(request.param) as found:
        yield found


@pytest.fixture(params=[name for name in test_devices() if name != "cpu"])
def gpu(request):
    """For tests of what only a GPU has: the emulated one, and a real one where there is one."""
    with opened(request.param) as found:
        yield found


@pytest.fixture(params=[name for name in test_devices() if name == "cuda-emulated"])
def emulated(request):
    """For tests of what only the emulator can show."""
    with opened(request.param) as found:
        yield found


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def threads():
    """Set the number of threads in a test; restored afterwards."""
    import fastnn

    before = fastnn.get_num_threads()
    yield fastnn.set_num_threads
    fastnn.set_num_threads(before)
