"""A program that calls every public function with one bad argument, and every compiled kernel with several.

Each call must give a result, or raise ValueError, TypeError or MemoryError with one line that begins with the name of
the op, and leave its arrays as they were. tests/test_bad_input.py runs it as a process of its own, so that a crash or a
hang is a failure too: the call about to be made stands in the file that the first argument names. Valid calls to spoil
are taken from the records (tests/records) as they run. Which part: the second argument, ``functions`` or ``core``.
"""

from __future__ import annotations

import inspect
import os
import random
import re
import resource
import signal
import sys
import warnings
from pathlib import Path

import numpy as np

import fastnn
from fastnn import _core, kernels
from fastnn import functional as F
from fastnn.kernels.peak import fma_peak, memory_peak

HUGE = 1 << 40
ROOM = 1 << 30  # bytes that may be taken: a request for more must fail in an orderly way, not fill the machine
SECONDS = 2.0  # no call on arrays this small may take longer

# Ops that are other ops under a second name, or say more exactly where the argument is checked.
ALIASES = {
    "conv1d": ("conv2d",),
    "dropout2d": ("dropout",),
    "relu6": ("hardtanh",),
    "selu": ("elu",),
    "gelu": ("gelu_tanh",),
    "stack": ("cat", "unsqueeze"),
    "adaptive_max_pool2d": ("max_pool2d",),
    "adaptive_avg_pool2d": ("avg_pool2d",),
}
UGLY = re.compile(
    r"broadcast together|could not broadcast|incompatible function arguments|object has no attribute|NoneType.*not|"
    r"cannot be interpreted|not subscriptable|not iterable|has no len|not supported between|unsupported operand|ufunc"
)


# -- valid calls -----------------------------------------------------------------------------------------------------
class Spy:
    """Keeps the arguments of the calls of every function of a module while records run through it."""

    def __init__(self, module, names):
        self.module, self.names, self.calls = module, names, {name: [] for name in names}
        self.originals = {name: getattr(module, name) for name in names}
        for name, function in self.originals.items():
            setattr(module, name, self.watched(name, function))

    def watched(self, name, function):
        signature = None if isinstance(self.module, type(_core)) and self.module is _core.kernels else function

        def wrapper(*args, **kwargs):
            if signature is None:
                values = {str(i): a for i, a in enumerate(args)}
            else:
                bound = inspect.signature(function).bind(*args, **kwargs)
                bound.apply_defaults()
                values = dict(bound.arguments)
            if sum(a.size for a in arrays_of(values.values())) < 2000:
                self.calls[name].append({k: plain(v) for k, v in values.items()})
            return function(*args, **kwargs)

        return wrapper

    def restore(self):
        for name, function in self.originals.items():
            setattr(self.module, name, function)


def plain(value):
    if isinstance(value, (list, tuple)):
        return type(value)(plain(v) for v in value)
    value = value.array if isinstance(value, fastnn.Tensor) else value
    return value.copy() if isinstance(value, np.ndarray) else value


def arrays_of(values):
    for v in values:
        if isinstance(v, (list, tuple)):
            yield from arrays_of(v)
        elif isinstance(v, np.ndarray) or hasattr(v, "array"):
            yield getattr(v, "array", v)


def public(module):
    return [n for n in dir(module) if not n.startswith("_") and inspect.isfunction(getattr(module, n))]


def harvest():
    """For each function, small valid calls: (fastnn.functional, fastnn.kernels, compiled kernels)."""
    attempts = {name: getattr(_core.attempt, name) for name in _core.specs}
    for name in attempts:  # the fast way declines, so that the spy on the kernels sees every call
        setattr(_core.attempt, name, lambda *arguments: None)
    spies = [Spy(F, public(F)), Spy(kernels, public(kernels)), Spy(_core.kernels, list(_core.specs))]
    sys.path.insert(0, str(Path(__file__).parent))
    from records import all_records

    rng = np.random.default_rng(0)
    for record in all_records():
        for sample in record.samples(rng):
            if sum(a.size for a in arrays_of([*sample.args, *sample.kwargs.values()])) > 3000:
                continue
            record.op(*sample.args, **sample.kwargs)
            if not record.differentiable:
                continue
            args = [
                fastnn.tensor(a, requires_grad=i in record.differentiable) if isinstance(a, np.ndarray) else a
                for i, a in enumerate(sample.args)
            ]
            kwargs = {k: fastnn.tensor(v) if isinstance(v, np.ndarray) else v for k, v in sample.kwargs.items()}
            y = record.op(*args, **kwargs)
            y = y[0] if isinstance(y, tuple) else y
            if getattr(y, "requires_grad", False):
                y.backward(np.ones(y.shape))
    w, state = rng.random((3, 4)), [rng.random((3, 4)) for _ in range(4)]
    kernels.sgd_step(w, state[0], state[1], lr=0.1, momentum=0.9)
    kernels.sgd_step([w, w.copy()], [w + 1, w + 2], lr=0.1)
    kernels.adam_step(w, *state, step=3, lr=0.1)
    kernels.scale([w, w + 1], 0.5)
    kernels.total_norm([w, w + 1])
    kernels.random_bits(7, 1, 2)
    kernels.uniform((2, 3), -1.0, 1.0, seed=1, stream=2)
    kernels.normal((5,), seed=1, stream=2, dtype=np.float64)
    kernels.dropout(w, 0.5, 1, 2, 4)
    fma_peak(seconds=1e-5)
    memory_peak(1024)
    F.conv1d(rng.random((2, 3, 9)), rng.random((4, 3, 2)), rng.random(4))
    x, w, dy = rng.random((2, 4, 5, 6)), rng.random((6, 2, 3, 2)), rng.random((2, 6, 3, 4))
    options = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 2}
    kernels.conv2d(x, w, rng.random(6), **options)
    kernels.conv2d(x[0], rng.random((6, 4, 3, 3)), padding="same", activation="relu")
    kernels.conv2d_backward_input(dy, w, x.shape, **options)
    kernels.conv2d_backward_weight(dy, x, w.shape, **options)
    kernels.conv2d_backward_bias(dy)
    for window in ((2,), ((3, 2), 1, (1, 0), (1, 2), True)):
        y, taps = kernels.max_pool2d(x, *window, return_taps=True)
        kernels.max_pool2d_taps_backward(y, taps, x.shape, *window)
    for name in ("add", "subtract", "multiply", "divide"):
        getattr(_core.kernels, name)(rng.random((3, 1)), rng.random(4), np.empty((3, 4)))
    for name in ("negative", "absolute", "square_root"):
        getattr(_core.kernels, name)(rng.random((3, 4)), np.empty((3, 4)))
    _core.kernels.extreme_middle(rng.random((3, 4, 2)), np.empty((3, 2)), np.empty((3, 2), np.int64), 0)
    scores, weight = rng.random((4, 3, 2)), rng.random(3)
    for target, options in ((rng.integers(0, 3, (4, 2)), {"ignore_index": 1}), (rng.random((4, 3, 2)), {})):
        loss, *kept = kernels.cross_entropy(scores, target, weight, label_smoothing=0.1, **options)
        kernels.cross_entropy_backward(loss, scores, target, weight, *kept, label_smoothing=0.1, **options)
    for name, attempt in attempts.items():
        setattr(_core.attempt, name, attempt)
    for spy in spies:
        spy.restore()
        silent = [name for name, calls in spy.calls.items() if not calls]
        assert not silent, f"no record calls {silent} with small arrays"
    return [spy.calls for spy in spies]


def chosen(calls, count, rng):
    """A few calls that differ in which arguments they give; those with elements first."""
    kinds = {}
    for call in rng.sample(calls, len(calls)):
        empty = any(a.size == 0 for a in arrays_of(call.values()))
        kinds.setdefault((empty, tuple(type(v) for v in call.values())), call)
    return [kinds[k] for k in sorted(kinds, key=lambda k: k[0])][:count]


# -- spoilt arguments ------------------------------------------------------------------------------------------------
def misaligned(x):
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    view = buffer[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


ANYTHING = {
    "None": None, "'bad'": "bad", "b''": b"", "[]": [], "[1.0, 2.0]": [1.0, 2.0], "[[1], [2, 3]]": [[1], [2, 3]],
    "()": (), "(1, 2, 3)": (1, 2, 3), "(-1, 2)": (-1, 2), "(None, 'a')": (None, "a"), "{}": {}, "object()": object(),
    "int": int, "True": True, "-1": -1, "0": 0, "3": 3, "2**31": 2**31, "2**62": 2**62, "2**63": 2**63,
    "(2**31 - 1, 2**31 - 1)": (2**31 - 1, 2**31 - 1), "(2**63, 1)": (2**63, 1), "-2**63": -(2**63), "10**30": 10**30,
    "1.5": 1.5, "-1.5": -1.5, "nan": float("nan"), "inf": float("inf"), "-inf": -float("inf"), "1e300": 1e300,
    "1j": 1j, "float32(2)": np.float32(2), "int64(2)": np.int64(2), "array(2)": np.array(2),
    "array(2.0)": np.array(2.0), "array('a')": np.array("a"), "array of objects": np.array([None, 1]),
    "datetime": np.array(["2026-11-21"], "datetime64[D]"), "Tensor": fastnn.tensor([1.0, 2.0]),
    "records": np.zeros(3, [("a", "f4")]), "huge 1-d": np.broadcast_to(np.float32(1), (HUGE,)),
}  # fmt: skip


def spoilt_arrays(x):
    """Arrays that are nearly ``x``."""
    for dtype in ("f4", "f8", "f2", "i4", "i8", "u1", "u8", "?", "c8", ">f4", ">f8", ">i8", "g", "O", "U3", "m8[s]"):
        if np.dtype(dtype) != x.dtype:
            with np.errstate(all="ignore"):
                yield dtype, x.astype("i8").astype(dtype) if dtype == "m8[s]" else x.astype(dtype)
    yield "one more dimension", x[None]
    yield "one more dimension behind", x[..., None]
    yield "eleven dimensions", x.reshape((1,) * (11 - x.ndim) + x.shape)
    yield "0-d", np.zeros((), x.dtype)
    for axis in range(x.ndim):
        yield f"axis {axis} dropped", np.ascontiguousarray(x.max(axis)) if x.size else np.zeros((), x.dtype)
        yield f"axis {axis} empty", x.take([], axis)
        yield f"axis {axis} longer", np.concatenate([x, np.zeros_like(x.take([0], axis) if x.shape[axis] else x)], axis)
        yield f"axis {axis} shorter", np.ascontiguousarray(x.swapaxes(axis, 0)[1:].swapaxes(axis, 0))
        shape = list(x.shape)
        shape[axis] = HUGE
        if x.size and x.size // x.shape[axis] < 1 << 18:
            one = np.ones((), x.dtype)
            yield f"axis {axis} huge", np.broadcast_to(one, shape)
    yield "flat", x.reshape(-1)
    yield "transposed", x.T
    yield "reversed", x[::-1] if x.ndim else x
    yield "misaligned", misaligned(x)
    yield "read-only", read_only(x)
    yield "masked", np.ma.array(x, mask=np.ones(x.shape, bool))
    if x.ndim == 2:
        yield "matrix", np.asmatrix(x)
    yield "repeated", np.broadcast_to(x[:1], x.shape) if x.ndim and len(x) else x
    if x.dtype.kind == "f":
        yield "nan", np.full_like(x, np.nan)
        yield "inf", np.full_like(x, np.inf)
        yield "largest", np.full_like(x, np.finfo(x.dtype).max)
    else:
        info = np.iinfo(x.dtype) if x.dtype.kind in "iu" else None
        for n in (info.min, -1, 10**9, info.max) if info else ():
            if info.min <= n <= info.max:
                yield f"all {n}", np.full_like(x, n)
    yield "list", x.tolist()
    yield "list of rows", list(x) if x.ndim else [x]
    yield "Tensor", fastnn.tensor(x, requires_grad=x.dtype.kind == "f")
    yield "memoryview", memoryview(x)


def spoilt_outputs(call, result):
    """What ``out`` may be given, where the op returns ``result``."""
    y = next(arrays_of([result]))
    yield from spoilt_arrays(y)
    for x in arrays_of(call.values()):
        yield "an input", x
        if x.flags.c_contiguous and x.nbytes >= y.nbytes and x.dtype == y.dtype:
            yield "the same memory", x.reshape(-1)[: y.size].reshape(y.shape)
    yield "gaps", np.zeros([2 * n for n in y.shape], y.dtype)[tuple(slice(None, None, 2) for _ in y.shape)]
    step = np.zeros(1, y.dtype)
    yield "one element for all", np.lib.stride_tricks.as_strided(step, y.shape, (0,) * y.ndim, writeable=True)


# -- the sweep -------------------------------------------------------------------------------------------------------
class Sweep:
    def __init__(self, log):
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT, 0o644)
        self.failures, self.calls = {}, 0

    def say(self, text):
        os.pwrite(self.log, text.encode()[:250].ljust(250), 0)

    def call(self, what, names, function, args, kwargs, in_place=False, restores=True):
        """Make a call and judge it. ``names`` are what a message may begin with."""
        self.calls += 1
        self.say(what)
        held = [a for a in arrays_of([*args, *kwargs.values()]) if a.nbytes < 1 << 20 and a.dtype.kind != "O"]
        before = [a.tobytes() for a in held]
        problem, failed = None, False
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            function(*args, **kwargs)
        except MemoryError as error:
            failed = True
            problem = None if "byte" in str(error) or "allocate" in str(error) else f"MemoryError: {error}"
        except (ValueError, TypeError) as error:
            text, failed = str(error), True
            fine = text.startswith(tuple(f"{n}:" for n in names)) or ("required" in text and names[0] in text)
            if type(error) not in (ValueError, TypeError) or not fine or "\n" in text or UGLY.search(text):
                problem = f"{type(error).__name__}: {text}"
        except Exception as error:
            # Misuse of autograd is a RuntimeError, as in PyTorch.
            if not (isinstance(error, RuntimeError) and "in-place change of a leaf" in str(error)):
                problem = f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if problem is None and (not in_place or (failed and restores)) and before != [a.tobytes() for a in held]:
            problem = "changed its arguments"
        if problem is not None:
            self.failures.setdefault((what.split("(")[0], problem[:60]), f"{what}: {problem}")

    def function(self, room, name, function, call):
        names = (name, *ALIASES.get(name, ()))
        keyword = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        writes = name in ("sgd_step", "adam_step", "scale", "batch_norm")
        result = None
        for parameter, valid in call.items():
            spoilt = list(ANYTHING.items())
            if isinstance(valid, bool):
                spoilt = [(k, v) for k, v in spoilt if not hasattr(v, "shape") or np.size(getattr(v, "array", v)) == 1]
            if isinstance(valid, np.ndarray):
                spoilt += spoilt_arrays(valid)
            elif isinstance(valid, (list, tuple)) and valid and isinstance(valid[0], np.ndarray):
                spoilt += [(f"[{k}]", [v, *valid[1:]]) for k, v in (*spoilt, *spoilt_arrays(valid[0]))]
            elif isinstance(valid, tuple) and valid:
                spoilt += [(f"(..., {k})", (*valid[:-1], v)) for k, v in spoilt]
                spoilt += [("longer", (*valid, 1)), ("shorter", valid[:-1])]
            if parameter == "out":
                result = function(**call) if result is None else result
                spoilt += spoilt_outputs(call, result)
            for label, value in spoilt:
                if parameter in ("shape", "n") and name in ("uniform", "normal", "random_bits") and label == "2**31":
                    continue  # a wish that can be granted
                for tensors in (False, True) if room == "functional" else (False,):
                    values = {**{k: plain(v) for k, v in call.items() if k != "out"}, parameter: value}
                    if tensors:
                        values = {k: self.tensor(v) for k, v in values.items()}
                    args = [values.pop(k) for k in call if k not in keyword and k in values]
                    what = f"{name}({parameter}={label}{', as tensors' if tensors else ''}) in fastnn.{room}"
                    self.call(
                        what, names, function, args, values, in_place=writes or parameter == "out" or "inplace" in call
                    )

    @staticmethod
    def tensor(v):
        if isinstance(v, list) and v and isinstance(v[0], np.ndarray):
            return [Sweep.tensor(x) for x in v]
        if not isinstance(v, np.ndarray) or v.dtype.kind not in "fiub":
            return v
        t = fastnn.tensor(v) if v.nbytes < 1 << 20 and type(v) is np.ndarray else fastnn.Tensor(np.asarray(v))
        return t.requires_grad_() if v.dtype.kind == "f" else t

    def kernel(self, name, call, rng):
        """Spoils up to three arguments at once."""
        function, valid = getattr(_core.kernels, name), list(call.values())
        numbers = [0, 1, -1, 2, 3, 7, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63), 2**63, 1.5, float("nan"), None, "a"]
        choices = []
        for i, x in enumerate(valid):
            if isinstance(x, np.ndarray):
                spoilt = [(k, v) for k, v in spoilt_arrays(x) if k not in ("list", "list of rows")]
                spoilt += [("None", None), ("3", 3)]
            elif isinstance(x, list):
                spoilt = [(f"[{k}]", [v, *x[1:]]) for k, v in (*spoilt_arrays(x[0]), ("None", None), ("3", 3))]
                spoilt += [("None", None), ("3", 3), ("[]", []), ("shorter", x[1:]), ("longer", [*x, x[0]])]
            else:
                spoilt = [(repr(n), n) for n in numbers]
            choices += [(i, *s) for s in spoilt]
        tries = [[c] for c in choices] + [rng.sample(choices, rng.choice((2, 3))) for _ in range(2 * len(choices))]
        for spoilt in tries:
            args = [plain(v) for v in valid]
            for i, _, v in spoilt:
                args[i] = v.copy() if isinstance(v, np.ndarray) and v.nbytes < 1 << 20 and v.flags.c_contiguous else v
            what = f"{name}({', '.join(f'{i}={k}' for i, k, _ in spoilt)}) in fastnn._core.kernels"
            self.call(what, (name,), function, args, {}, in_place=True, restores=False)


def limit_memory():
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        return  # its shadow fills the address space; ASAN_OPTIONS limits allocations instead
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))


def too_slow(number, frame):
    raise RuntimeError(f"no answer within {SECONDS} s")


def main():
    signal.signal(signal.SIGALRM, too_slow)
    log, part = sys.argv[1:]
    warnings.simplefilter("ignore")
    sweep, rng = Sweep(log), random.Random(0)
    functional, plain_kernels, core = harvest()
    limit_memory()
    np.seterr(all="ignore")
    if part == "functions":
        for room, module, calls in (("functional", F, functional), ("kernels", kernels, plain_kernels)):
            for name in calls:
                for call in chosen(calls[name], 2, rng):
                    sweep.function(room, name, getattr(module, name), call)
    else:
        for name in core:
            for call in chosen(core[name], 3, rng):
                sweep.kernel(name, call, rng)
    print("\n".join(sweep.failures.values()))
    print(f"{sweep.calls} calls, {len(sweep.failures)} kinds of failure")
    return 1 if sweep.failures else 0


if __name__ == "__main__":
    sys.exit(main())
