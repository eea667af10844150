"""The host side of CUDA: signatures, the launcher's checks and casts, the cache, devices that are not there, precision.

What needs a device runs on the emulated one; CuPy itself is played by a few lines where it is CuPy that would answer.
"""

from __future__ import annotations

import inspect
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import fastnn
from fastnn import _core, cuda
from fastnn.cuda import arrays, cache, images, launch, nvrtc, sources
from fastnn.cuda import device as devices
from fastnn.cuda.precision import precision
from fastnn.cuda.table import UNITS, Kernel, Unit, each, shared_limit

RELU = "map<float, relu_of<float>>"


@pytest.fixture
def gpu(emulated):
    return emulated.gpu


# -- the table of host functions ---------------------------------------------------------------------------------------
NOT_ON_CUDA = {
    "peak_fma": "measures the CPU",
    "peak_read": "measures the CPU",
    "peak_triad": "measures the CPU",
    "extreme_middle": "reduce.places, which finds places alone",
}
IN_ARRAYS = {*arrays.BINARY, *arrays.UNARY, *arrays.MATHS.values()}
"""NumPy's functions, which cuda/arrays.py has for every dtype and for strides."""


def test_every_kernel_has_a_host_function_of_the_same_arguments():
    wrong = []
    for name, text in _core.specs.items():
        function = launch.host_functions().get(name)
        if function is None:
            if name not in NOT_ON_CUDA and name not in IN_ARRAYS:
                wrong.append(f"{name}: no function of this name in fastnn/cuda")
            continue
        have = inspect.signature(inspect.unwrap(function)).parameters
        want = ["gpu", *launch.Spec.read(text).names]
        if list(have.values())[-1].kind is inspect.Parameter.VAR_POSITIONAL:  # *numbers: all of them, or those left
            want[len(have) - 1 :] = [list(have)[-1]]
        if list(have) != want:
            wrong.append(f"{name}: takes {list(have)}, the CPU's kernel {want}")
    assert not wrong, "\n".join(wrong)
    assert not set(NOT_ON_CUDA) & set(launch.host_functions())


def test_specs_are_read():
    spec = launch.Spec.read("x, target:i64, weight? -> y=x, stats, sum? | mean, eps")
    assert spec.names == ("x", "target", "weight", "y", "stats", "sum", "mean", "eps")
    assert [a.optional for a in spec.arrays] == [False, False, True, False, False, True]
    assert [a.dtype for a in spec.arrays] == [None, np.int64, None, None, None, None]


def test_host_functions_check_their_arrays(gpu):
    relu_backward = gpu.kernels.relu_backward
    a, b, y = (gpu.xp.ones((2, 3), np.float32) for _ in range(3))
    with pytest.raises(TypeError, match=r"relu_backward: takes 3 arguments \(dy, y, dx\), got 2"):
        relu_backward(a, b)
    with pytest.raises(TypeError, match="relu_backward: 'y' is float64, the arrays before it are float32"):
        relu_backward(a, b.astype(np.float64), y)
    with pytest.raises(TypeError, match="'dx' must be an array on cuda:0, got a NumPy array"):
        relu_backward(a, b, np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="'dy' is required, got None"):
        relu_backward(None, b, y)
    with pytest.raises(ValueError, match="'y' must be C-contiguous"):
        relu_backward(a, gpu.xp.ones((3, 2), np.float32).T, y)
    with pytest.raises(TypeError, match="'dy' must be float32 or float64, got int32"):
        relu_backward(a.astype(np.int32), b, y)
    with pytest.raises(NotImplementedError, match="peak_fma"):
        gpu.kernels.peak_fma(a)


# -- signatures --------------------------------------------------------------------------------------------------------
TEXT = """
#include "part.cuh"
// __global__ void commented(float* x);
template <class T, int N = 4>
struct Pair { T v[N]; };
template <class T, class I, int N, auto f>
__global__ void __launch_bounds__((N / 2) * (64 / 2)) first(const T* __restrict__ x, T* y, const I* i, int64_t n,
                                                            T alpha, /* what */ int k, Geometry g, bool flag) {}
__global__ __launch_bounds__(128) void second(unsigned int* words, const unsigned char* bytes, uint64_t seed, float p);
__global__ void wrong(Unknown u) {}
"""
PART = "struct Geometry { int64_t height, width; int pads[2]; float scale; };\n"


@pytest.fixture
def text(tmp_path, monkeypatch):
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "sample_of_signatures.cu").write_text(TEXT)
    (tmp_path / "cuda" / "part.cuh").write_text(PART)
    monkeypatch.setattr(sources, "folder", lambda: tmp_path)
    return "sample_of_signatures.cu"


def test_signatures_are_read_from_the_text(text):
    first = sources.signature(text, "first<double, int, 8, call<Pair<double, 2>, 3>>")
    assert [p.name for p in first] == ["x", "y", "i", "n", "alpha", "k", "g", "flag"]
    kinds = ["float64", "float64", "int32", "int64", "float64", "int32"]
    assert [p.dtype.name for p in first[:6]] == kinds and first[7].dtype == np.bool_
    assert [p.pointer for p in first] == [True] * 3 + [False] * 5
    assert [p.const for p in first[:3]] == [True, False, True]
    assert first[6].dtype.names == ("height", "width", "pads", "scale") and first[6].dtype.itemsize == 32
    second = sources.signature(text, "second")
    assert [p.dtype.name for p in second] == ["uint32", "uint8", "uint64", "float32"]
    with pytest.raises(ValueError, match="no kernel commented"):
        sources.signature(text, "commented")
    with pytest.raises(ValueError, match="Unknown"):
        sources.signature(text, "wrong")


def test_a_struct_is_cast_field_by_field(text, gpu):
    geometry = sources.signature(text, "first<float, int, 8, call<float>>")[6]
    cast = launch._cast("first", gpu, geometry)
    made = cast({"width": 3, "height": 2, "pads": (1, 0), "scale": 0.5})
    assert made.dtype == geometry.dtype and made.shape == ()
    assert made.tobytes() == cast((2, 3, (1, 0), 0.5)).tobytes()
    assert made["width"] == 3 and made["pads"].tolist() == [1, 0]
    assert cast(made) is made
    with pytest.raises(TypeError, match="takes the fields height, width, pads, scale, got height"):
        cast({"height": 2})
    with pytest.raises(TypeError, match="takes the fields"):
        cast((1, 2, 3))
    with pytest.raises(TypeError, match=r"'g'.width must be an int, got 3.0"):
        cast((2, 3.0, (1, 0), 0.5))
    with pytest.raises((OverflowError, ValueError)):
        cast((2, 2**70, (1, 0), 0.5))


# -- launches ----------------------------------------------------------------------------------------------------------
def test_a_launch_casts_its_arguments(gpu):
    x, y = gpu.xp.asarray(np.array([-1, 2, 3], np.float32)), gpu.xp.empty(3, np.float32)
    gpu.launch("elementwise", RELU, 1, 32, x, y, np.int32(3), 0, np.float64(1))
    assert y.get().tolist() == [0, 2, 3]
    seen = []
    run = gpu._launchers["elementwise", RELU].run
    try:
        gpu._launchers["elementwise", RELU].run = lambda *call: seen.append(call)
        gpu.launch("elementwise", RELU, (2, 1), (8, 4), x, None, 3, 1e300, True)
        gpu.launch("elementwise", RELU, 0, 32, x, y, 0, 0, 0)
    finally:
        gpu._launchers["elementwise", RELU].run = run
    ((grid, block, args, shared),) = seen  # a grid of 0 launches nothing
    assert (grid, block, shared) == ((2, 1), (8, 4), 0)
    assert [type(a) for a in args[1:]] == [np.uint64, np.int64, np.float32, np.float32]
    assert args[0] is x and args[1:] == (0, 3, np.inf, 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({0: np.ones(3, np.float32)}, TypeError, "'x' must be an array on cuda:0, got a NumPy array"),
        ({0: 7}, TypeError, "'x' must be an array on cuda:0, got int"),
        ({2: 3.0}, TypeError, "'n' must be an int, got 3.0"),
        ({2: 2**63}, OverflowError, "'n' must be int64, got 9223372036854775808"),
        ({2: None}, TypeError, "'n' must be an int"),
        ({3: "1"}, TypeError, "'a' must be a number, got '1'"),
        ({3: None}, TypeError, "'a' must be a number"),
    ],
)
def test_a_launch_refuses_arguments_of_the_wrong_kind(gpu, change, error, message):
    args = [gpu.xp.ones(3, np.float32), gpu.xp.ones(3, np.float32), 3, 0.0, 0.0]
    for i, value in change.items():
        args[i] = value
    with pytest.raises(error, match=message):
        gpu.launch("elementwise", RELU, 1, 32, *args)


def test_a_launch_refuses_other_arrays_and_sizes(gpu):
    x, y = gpu.xp.ones((2, 2), np.float32), gpu.xp.ones((2, 2), np.float32)

    def run(*args, grid=1, block=32, expression=RELU, **kwargs):
        gpu.launch("elementwise", expression, grid, block, *args, **kwargs)

    with pytest.raises(TypeError, match=r"'x' must be float32, got float64"):
        run(x.astype(np.float64), y, 4, 0, 0)
    with pytest.raises(ValueError, match="'y' must be C-contiguous"):
        run(x, y.T, 4, 0, 0)
    with pytest.raises(TypeError, match=r"takes 5 arguments \(x, y, n, a, b\), got 3"):
        run(x, y, 4)
    with pytest.raises(KeyError, match="not in the table of kernels"):
        run(x, y, 4, 0, 0, expression="map<half, relu_of<half>>")
    for wrong in ({"block": 512}, {"block": 0}, {"shared": 1}, {"block": (256, 2)}):
        with pytest.raises(ValueError, match="its row of the table allows 256 and 0"):
            run(x, y, 4, 0, 0, **wrong)
    for grid in (2**31, (1, 2**16), -1, (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="grid"):
            run(x, y, 4, 0, 0, grid=grid)


def test_a_kernel_newer_than_the_device_is_refused(gpu, monkeypatch):
    wide = Unit("elementwise.cu", {RELU: Kernel(RELU, arch=80)})
    monkeypatch.setitem(UNITS, "newer", wide)
    old = type(gpu)(75)
    with pytest.raises(RuntimeError, match=r"needs compute capability 8.0 or newer.*cuda:0 has 7.5"):
        old.launch("newer", RELU, 1, 32)


def test_rows_of_the_table():
    rows = each("f<{T}, {N}>", T=("float", "double"), N=(1, 2), threads=128, shared=60000)
    assert [k.expression for k in rows] == ["f<float, 1>", "f<float, 2>", "f<double, 1>", "f<double, 2>"]
    assert all(k.threads == 128 and k.budget == 255 and k.fits(80) for k in rows)
    assert Kernel("f", threads=512).budget == 128 and Kernel("f", registers=40).budget == 40
    assert not Kernel("f", shared=100 * 1024).fits(86) and shared_limit(90) == 227 * 1024
    unit = Unit("f.cu", {k.expression: k for k in rows})
    assert unit.part("f<float, 2>", 80) == ["f<float, 1>", "f<float, 2>"]


# -- the cache ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """NVRTC, counted: it gives another cubin each time."""
    calls = []

    def compile(name, source, headers, expressions, options):
        calls.append((name, source, dict(headers), list(expressions), list(options)))
        used = nvrtc.Resources(8, 0, 0, 0)
        return nvrtc.Compiled(b"cubin %d" % len(calls), {"f": "_Z1f"}, {"f": used}, "")

    monkeypatch.setattr(nvrtc, "compile", compile)
    monkeypatch.setattr(nvrtc, "version", lambda: "13.0")
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path / "cache"))
    return calls


def test_what_was_compiled_is_kept(compiler, monkeypatch):
    build = lambda **other: cache.build(  # noqa: E731
        **{"name": "f.cu", "source": "s", "headers": {"h": "1"}, "expressions": ["f"], "options": ["-arch=sm_80"]}
        | other
    )
    first = build()
    assert first.path.read_bytes() == b"cubin 1" and first.names == {"f": "_Z1f"}
    again = build()
    assert len(compiler) == 1 and again == first and again.resources["f"].registers == 8
    for other in ({"source": "t"}, {"headers": {"h": "2"}}, {"expressions": ["g"]}, {"options": ["-arch=sm_90"]}):
        assert build(**other).path != first.path
    monkeypatch.setattr(nvrtc, "version", lambda: "13.1")
    assert build().path != first.path and len(compiler) == 6
    assert not [p for p in first.path.parent.iterdir() if p.suffix not in (".cubin", ".json")]  # nothing half-written


@pytest.mark.parametrize("damage", ["cubin", "json", "cut", "gone", "strange"])
def test_a_broken_entry_is_compiled_again(compiler, damage):
    arguments = ("f.cu", "s", {}, ["f"], ["-arch=sm_80"])
    first = cache.build(*arguments)
    about = first.path.with_suffix(".json")
    {
        "cubin": lambda: first.path.write_bytes(b"other"),
        "json": lambda: about.write_text("{"),
        "cut": lambda: first.path.write_bytes(first.path.read_bytes()[:-1]),
        "gone": first.path.unlink,
        "strange": lambda: about.write_text('{"sha256": 3, "names": []}'),
    }[damage]()
    assert cache.build(*arguments).path.read_bytes() == b"cubin 2"
    assert len(compiler) == 2 and cache.build(*arguments).names == {"f": "_Z1f"} and len(compiler) == 2


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTNN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "fastnn" / "cuda"
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path / "own"))
    assert cache.folder() == tmp_path / "own" / "cuda" and cache.folder().is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path / "file"))  # no folder can be made there
    assert cache.folder().is_dir() and tmp_path not in cache.folder().parents


# -- devices that are not there, and CuPy's side of one that is --------------------------------------------------------
class CUDARuntimeError(RuntimeError):
    """CuPy's."""


class Array:
    """CuPy's, as far as a launch looks at it."""

    def __init__(self, n, device=0):
        self.dtype, self.flags, self.device = (
            np.dtype(np.float32),
            SimpleNamespace(c_contiguous=True),
            SimpleNamespace(id=device),
        )
        self.shape, self.size = (n,), n


Array.__module__ = "cupy"


@pytest.fixture
def cupy(monkeypatch):
    """A module in CuPy's place: two GPUs, whose launches are noted in ``launched``."""
    state = SimpleNamespace(current=0, count=2, capability="90", launched=[], opted=[])

    class Device:
        attributes = {"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 232448}  # noqa: RUF012

        def __init__(self, index):
            self.index, self.compute_capability = index, state.capability

        def __enter__(self):
            self.before, state.current = state.current, self.index

        def __exit__(self, *_):
            state.current = self.before

        def synchronize(self):
            state.launched.append("synchronized")

    class Raw:
        def __init__(self, name):
            self.name = name

        def __setattr__(self, name, value):
            if name == "max_dynamic_shared_size_bytes":
                state.opted.append(value)
            object.__setattr__(self, name, value)

        @property
        def kernel(self):
            return lambda *call: state.launched.append((self.name, state.current, *call))

    def count():
        if state.count == 0:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return state.count

    runtime = SimpleNamespace(
        getDeviceCount=count,
        getDevice=lambda: state.current,
        getDeviceProperties=lambda i: {"name": b"A GPU"},
        CUDARuntimeError=CUDARuntimeError,
    )
    module = SimpleNamespace(
        ndarray=Array,
        empty=lambda shape, dtype: Array(shape),
        cuda=SimpleNamespace(Device=Device, runtime=runtime),
        RawModule=lambda path: SimpleNamespace(get_function=Raw),
        state=state,
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(devices, "_finders", {})
    devices._cuda_device.cache_clear()
    yield module
    devices._cuda_device.cache_clear()


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"zeros: device 'cuda' needs CuPy: pip install 'fastnn-kernels\[cuda13\]'"):
        fastnn.zeros(2, device="cuda")
    assert not cuda.is_available() and cuda.device_count() == 0
    assert "needs CuPy" in fastnn.config.get_config()["cuda"]["status"]


def test_without_a_driver(cupy):
    cupy.state.count = 0
    with pytest.raises(RuntimeError, match=r"to: device 'cuda': CuPy finds no GPU .*cudaErrorNoDevice.*nvidia-smi"):
        fastnn.zeros(2).to("cuda")
    assert not cuda.is_available()
    assert "cudaErrorNoDevice" in fastnn.config.get_config()["cuda"]["status"]


def test_names_of_devices(cupy):
    assert devices.named("cuda").label == "cuda:0" and devices.named("cuda:1").label == "cuda:1"
    cupy.state.current = 1
    assert devices.named("cuda") is devices.named("cuda:1") and cuda.device_count() == 2
    with pytest.raises(ValueError, match="'cuda:2': there are only 2, numbered from 0"):
        devices.named("cuda:2")
    for name in ("cuda:", "cuda:-1", "cuda:x", "gpu", "cuda0"):
        with pytest.raises(ValueError, match=f"unknown device '{name}'"):
            devices.named(name)
    with pytest.raises(TypeError, match="'device' must be a string"):
        fastnn.zeros(2, device=1)
    cuda.synchronize("cuda:1")
    assert cupy.state.launched == ["synchronized"]


def test_a_device_that_is_too_old(cupy):
    cupy.state.capability = "61"
    with pytest.raises(RuntimeError, match=r"A GPU has compute capability 6.1; fastnn's kernels need 7.5"):
        devices.named("cuda")


def test_the_architecture_that_is_compiled_for(monkeypatch):
    monkeypatch.setattr(nvrtc, "supported", lambda: (75, 80, 86, 90, 100, 120))
    monkeypatch.setattr(nvrtc, "version", lambda: "12.9")
    assert [devices.target(arch) for arch in (75, 80, 89, 90, 103, 121)] == [75, 80, 86, 90, 100, 120]
    with pytest.raises(RuntimeError, match=r"NVRTC 12.9 cannot compile for compute capability 13.0"):
        devices.target(130)


def test_a_launch_through_cupy(cupy, compiler, monkeypatch):
    shared = Unit("elementwise.cu", {RELU: Kernel(RELU, shared=100_000)})
    monkeypatch.setitem(UNITS, "shared", shared)
    monkeypatch.setattr(nvrtc, "supported", lambda: (90,))
    compiled = lambda *a: nvrtc.Compiled(b"", dict.fromkeys(a[3], "lowered"), {}, "")  # noqa: E731
    monkeypatch.setattr(nvrtc, "compile", compiled)
    gpu = devices.named("cuda:1")
    assert (gpu.arch, gpu.multiprocessors, gpu.shared_limit, gpu.name) == (90, 132, 232448, "A GPU")
    x, y = Array(3, 1), Array(3, 1)
    gpu.launch("shared", RELU, 1, 32, x, y, 3, 0, 0, shared=60_000)
    name, current, grid, block, args, taken = cupy.state.launched[0]
    assert (name, current, grid, block, taken) == ("lowered", 1, (1,), (32,), 60_000)
    assert args[:2] == (x, y) and type(args[2]) is np.int64 and type(args[3]) is np.float32
    assert cupy.state.opted == [100_000] and cupy.state.current == 0
    assert devices.holder(x) is gpu and devices.holder(Array(3)) is devices.named("cuda:0")
    with pytest.raises(TypeError, match="'x' must be an array on cuda:1, got an array on cuda:0"):
        gpu.launch("shared", RELU, 1, 32, Array(3), y, 3, 0, 0)


def test_places_of_targets_have_a_warp_for_every_row():
    """Of more rows than a loop over the grid would be given warps for."""
    rows, seen = 2**23 + 1, []
    row = np.zeros((1, 2), np.float32)
    gpu = SimpleNamespace(empty=lambda shape, dtype: np.broadcast_to(np.zeros(1, dtype), shape))
    gpu.launch = lambda unit, expression, grid, block, *args: seen.append(grid * block)
    images.place_of_target(gpu, np.broadcast_to(row, (rows, 2)), np.broadcast_to(np.zeros(1, np.int64), rows))
    assert 0 <= seen[0] - 32 * rows < 256


# -- precision ---------------------------------------------------------------------------------------------------------
def test_precision_is_chosen_by_name_and_thread():
    assert fastnn.get_float32_matmul_precision() == precision() == "highest"
    try:
        fastnn.set_float32_matmul_precision("medium")
        assert precision() == "medium"
        seen = []
        other = threading.Thread(target=lambda: seen.append(precision()))
        other.start()
        other.join()
        assert seen == ["highest"]
        for wrong in ("tf32", None, 1):
            with pytest.raises(ValueError, match="'highest', 'high' or 'medium'"):
                fastnn.set_float32_matmul_precision(wrong)
        assert precision() == "medium"
    finally:
        fastnn.set_float32_matmul_precision("highest")


def test_autocast_nests_and_decorates():
    with fastnn.autocast("bfloat16"):
        assert precision() == "bfloat16" and fastnn.get_float32_matmul_precision() == "highest"
        with fastnn.autocast(enabled=False):
            assert precision() == "highest"
        with pytest.raises(ZeroDivisionError), fastnn.autocast():
            raise ZeroDivisionError
        assert precision() == "bfloat16"
    assert precision() == "highest"
    assert fastnn.autocast()(precision)() == "bfloat16"
    with pytest.raises(ValueError, match="'dtype' must be 'bfloat16', got 'float16'"):
        fastnn.autocast("float16")


def test_precision_changes_nothing_on_the_cpu(rng):
    a, b = rng.standard_normal((2, 33, 33)).astype(np.float32)
    want = fastnn.kernels.gemm(a, b)
    with fastnn.autocast("bfloat16"):
        np.testing.assert_array_equal(fastnn.kernels.gemm(a, b), want)
