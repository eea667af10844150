"""NumPy's functions on a GPU (cuda/arrays.py) against NumPy: every function, dtype, layout and order of threads."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn.cuda import arrays as module
from fastnn.kernels._backend import namespace

SMOOTH = {"exp", "log", "log1p", "sqrt", "power"}


@pytest.fixture
def xp(gpu):
    return namespace(gpu.put(np.zeros(1)))


def numbers(rng, dtype, *shape):
    if np.dtype(dtype).kind == "b":
        return rng.random(shape) < 0.5
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0 if np.dtype(dtype).kind == "u" else -3, 4, shape).astype(dtype)
    x = rng.standard_normal(shape).astype(dtype)
    x.reshape(-1)[::7] = 0
    x.reshape(-1)[3::11] = np.nan
    x.reshape(-1)[5::13] = np.inf
    return x


def check(got, want, device, name=""):
    want = np.asarray(want)
    assert isinstance(got, device.array_type), name
    got = device.get(got)
    assert got.shape == want.shape and got.dtype == want.dtype, f"{name}: {got.shape} {got.dtype}, not {want.dtype}"
    units = 8 if name in SMOOTH else 0
    if want.dtype.kind == "f" and units:
        np.testing.assert_allclose(got, want, rtol=units * np.finfo(want.dtype).eps, err_msg=name)
    else:
        np.testing.assert_array_equal(got, want, err_msg=name)


PAIRS = {  # two operands of 5 x 33 elements, as they lie in memory
    "alike": lambda a, b: (a, b),
    "row": lambda a, b: (a, b[0]),
    "column": lambda a, b: (a[:, :1], b),
    "outer": lambda a, b: (a[:, :1], b[0]),
    "transposed": lambda a, b: (a.T, b.T.copy()),
    "backwards": lambda a, b: (a[::-1, :-1:2], b[:, 1::2]),
    "unaligned": lambda a, b: (a.reshape(-1)[1:], b.reshape(-1)[:-1]),
    "number left": lambda a, b: (a[0, 1].item(), b),
    "number right": lambda a, b: (a, b[0, 1].item()),
    "scalar": lambda a, b: (a, b[0, 2]),
    "0-d": lambda a, b: (a[0, 1:2].reshape(()), b[:1, 1:2].reshape(())),
    "empty": lambda a, b: (a[:0], b[:1]),
}
DTYPES = ["float32", "float64", "int64", "bool", "int32", "uint8", "float16"]


def operands(rng, dtype, layout, change=lambda x: x):
    return PAIRS[layout](*(change(numbers(rng, dtype, 5, 33)) for _ in range(2)))


BINARY = [*module.BINARY, *module.COMPARISONS, *module.BITWISE]


@pytest.mark.parametrize("layout", PAIRS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_binary(gpu, xp, dtype, layout):
    for name in BINARY:
        a, b = operands(np.random.default_rng(0), dtype, layout)
        there = operands(np.random.default_rng(0), dtype, layout, gpu.put)
        if name == "power" and np.dtype(dtype).kind in "iu":  # NumPy refuses negative exponents
            a, b, *there = (abs(x) for x in (a, b, *there))
        if name == "power" and np.dtype(dtype).kind == "b":
            continue  # NumPy's int8
        try:
            with np.errstate(all="ignore"):
                want = getattr(np, name)(a, b)
        except TypeError:  # NumPy subtracts no booleans, and has no bits of floats
            continue
        check(getattr(xp, name)(*there), want, gpu, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unary(gpu, xp, dtype, rng):
    for name in (*module.UNARY, *module.MATHS, "invert"):
        for x in (numbers(rng, dtype, 5, 33), numbers(rng, dtype, 3, 8).T, numbers(rng, dtype, 0, 2)):
            if name in SMOOTH and x.itemsize < 4:
                continue  # NumPy's float16
            try:
                with np.errstate(all="ignore"):
                    want = getattr(np, name)(x)
            except TypeError:
                continue
            check(getattr(xp, name)(gpu.put(x)), want, gpu, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_and_clip(gpu, xp, dtype, rng):
    c, a, b = rng.random((5, 1)) < 0.5, numbers(rng, dtype, 5, 33), numbers(rng, dtype, 33)
    for x, y in ((a, b), (a[:, ::-1], 1), (0, b), (a[:, :1], a)):
        check(xp.where(gpu.put(c), gpu.put(x), gpu.put(y)), np.where(c, x, y), gpu)
    if np.dtype(dtype).kind != "b":
        for low, high in ((1, 2), (None, 2), (1, None), (b, None)):
            check(xp.clip(gpu.put(a), gpu.put(low), gpu.put(high)), np.clip(a, low, high), gpu)


AXES = [None, (), 0, 1, 2, -1, (0, 1), (1, 2), (0, 2), (0, 1, 2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 70, 1), (1, 600, 2), (2, 0, 3), (1, 40, 40), (4, 1, 513)])
def test_sum(gpu, xp, dtype, shape, rng):
    x = numbers(rng, dtype, *shape)
    real = x.dtype.kind == "f"
    if real:
        x[~np.isfinite(x)] = 1
    for axis in AXES:
        for keepdims in (False, True):
            want = x.sum(axis=axis, keepdims=keepdims, dtype=np.float64 if real else np.int64)
            got = xp.sum(gpu.put(x), axis, keepdims)
            assert got.shape == want.shape and got.dtype == (dtype if real else np.int64)
            limit = 2 * np.finfo(dtype).eps * max(1.0, float(np.abs(x.astype(np.float64)).sum())) if real else 0
            np.testing.assert_allclose(gpu.get(got).astype(want.dtype), want, rtol=0, atol=limit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_places(gpu, xp, dtype, name, rng):
    for shape, axis in [((7,), 0), ((3, 600, 2), 1), ((3, 40), 1), ((40, 3), 0), ((5, 1100), None), ((1, 20000), 1)]:
        x = numbers(rng, dtype, *shape)
        finite = np.nan_to_num(x) if x.dtype.kind == "f" else x
        for a in (x, finite, np.zeros_like(x), finite[..., ::-1]):
            for keepdims in (False, True):
                want = getattr(np, name)(a, axis=axis, keepdims=keepdims)
                check(getattr(xp, name)(gpu.put(a), axis=axis, keepdims=keepdims), want, gpu)


@pytest.mark.parametrize("x", [[0.0, 0.0], [0.0, np.nan], [], [[True, False]], [[1, 2], [3, 0]], [2, 1]])
def test_any_and_all(gpu, xp, x):
    x = np.array(x)
    check(xp.any(gpu.put(x)), x.any(), gpu)
    check(xp.all(gpu.put(x)), x.all(), gpu)


def test_nine_dimensions_that_cannot_be_joined(gpu, xp, rng):
    a, b = rng.standard_normal((2,) * 9), rng.standard_normal((2, 1) * 4 + (2,))
    order = [8, 0, 7, 1, 6, 2, 5, 3, 4]
    check(xp.add(gpu.put(a).transpose(order), gpu.put(b)), a.transpose(order) + b, gpu)


def test_elements_taken_twice_get_both(gpu, xp, rng):
    x, index = np.zeros((6, 3)), rng.integers(0, 6, (4, 50))
    values = rng.standard_normal((4, 50, 3))
    there = gpu.put(x)
    xp.add_at(there, (gpu.put(index),), gpu.put(values))
    np.add.at(x, (index,), values)
    check(there, x, gpu)


def test_operands_elsewhere_are_refused(gpu, xp):
    with pytest.raises(TypeError, match=r"cannot combine an array on cuda:0 and a NumPy array"):
        xp.add(gpu.put(np.ones(3)), np.ones(3))


@pytest.mark.parametrize("order", [{"threads": "reverse", "blocks": "reverse"}, {"threads": "random", "seed": 3}])
def test_the_same_bits_in_every_order_of_threads(gpu, xp, order, rng):
    x = gpu.put(rng.standard_normal((3, 1300, 2)).astype(np.float32))

    def results():
        made = [xp.sum(x, axis) for axis in (0, 1, 2, None)]
        made += [xp.argmax(x, axis=1), xp.add(x, x[:, ::-1]), xp.exp(x), xp.where(xp.greater(x, 0), x, 1.0)]
        return [gpu.get(y).tobytes() for y in made]

    before = results()
    with gpu.schedule(**order):
        assert results() == before


def test_numbers_of_numpy_go_with_tensors_anywhere(device):
    x = fastnn.tensor(device.put(np.array([1.0, -2.0])), requires_grad=True)
    y = (x * np.float64(3) + np.int64(1)).clip(np.float32(-4), 100).sum()
    y.backward()
    assert y.item() == 0 and device.get(x.grad.array).tolist() == [3, 0]
    assert (x > np.float32(0)).tolist() == [True, False]


def test_tensors_of_two_devices_do_not_mix(gpu):
    x, c = fastnn.tensor(gpu.put(np.ones(3))), fastnn.tensor([True, False, True])
    for mix in (lambda: fastnn.where(c, x, 0.0), lambda: x.clip(min=fastnn.zeros(3)), lambda: x + fastnn.ones(3)):
        with pytest.raises(ValueError, match=r"on cuda:0|on cpu"):
            mix()
