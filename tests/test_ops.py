"""Every op's record on every device: forward against float64 NumPy, strides, NaN, gradients, the order of threads.

On the CPU for the active instruction set; tests/test_isa.py repeats it for every other one this machine can run. On the
emulated GPU a write beyond an array is an error of the launch, and memory that nobody wrote is NaN.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import CPU
from records import Record, Sample, all_records

import fastnn

RECORDS = all_records()
DTYPES = [np.float32, np.float64]


def each_record(test):
    return pytest.mark.parametrize("record", RECORDS, ids=[r.name for r in RECORDS])(test)


def is_float(x):
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def cast(x, dtype):
    return x.astype(dtype) if is_float(x) else x


def call(device, record: Record, sample: Sample, dtype, change=lambda x: x):
    """The op on plain arrays of the device, as a tuple of results in NumPy arrays."""
    fastnn.manual_seed(0)
    args = [change(device.put(cast(x, dtype))) for x in sample.args]
    kwargs = {k: change(device.put(cast(v, dtype))) for k, v in sample.kwargs.items()}
    result = record.op(*args, **kwargs)
    results = result if isinstance(result, tuple) else (result,)
    assert all(isinstance(r, device.array_type) for r in results), f"{sample!r}: {[type(r) for r in results]}"
    return tuple(device.get(r) for r in results)


def expected(record: Record, args, kwargs):
    with np.errstate(all="ignore"):
        result = record.reference(*args, **kwargs)
    return result if isinstance(result, tuple) else (result,)


def assert_close(got, want, dtype, tolerance, what):
    want = np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    assert got.dtype == dtype, f"{what}: dtype {got.dtype}"
    finite = np.abs(want[np.isfinite(want)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    limit = tolerance * np.finfo(dtype).eps * scale
    np.testing.assert_allclose(got, want, rtol=tolerance * np.finfo(dtype).eps, atol=limit, err_msg=what)


@each_record
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward(device, record, dtype, rng):
    for sample in record.samples(rng):
        got = call(device, record, sample, dtype)
        if record.random:
            again = call(device, record, sample, dtype)
            assert all(a.tobytes() == b.tobytes() and a.dtype == dtype for a, b in zip(got, again)), repr(sample)
            continue
        seen = lambda x: cast(x, dtype).astype(np.float64) if is_float(x) else x  # noqa: E731 (what the op saw)
        want = expected(record, [seen(x) for x in sample.args], {k: seen(v) for k, v in sample.kwargs.items()})
        assert len(got) == len(want), repr(sample)
        for g, w in zip(got, want):
            assert_close(g, w, dtype, record.tolerance, f"{record.name} {sample!r}")


def strided(x):
    """The same numbers in an array whose every dimension has a gap, running backwards along the last."""
    if not hasattr(x, "strides") or x.ndim == 0:
        return x
    wide = np.full_like(x, 99, shape=[2 * n + 1 for n in x.shape])
    view = wide[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)][..., ::-1]
    view[...] = x
    return view


@each_record
def test_strided_inputs_give_the_same_bits(device, record, rng):
    for sample in record.samples(rng):
        for a, b in zip(call(device, record, sample, np.float32), call(device, record, sample, np.float32, strided)):
            assert a.tobytes() == b.tobytes(), repr(sample)


@each_record
def test_inputs_are_left_alone(device, record, rng):
    for sample in record.samples(rng):
        seen = []
        call(device, record, sample, np.float64, lambda x, seen=seen: seen.append(x) or x)
        for a, b in zip((*sample.args, *sample.kwargs.values()), map(device.get, seen)):
            if isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b, err_msg=repr(sample))


@each_record
def test_nan_passes_through(device, record, rng):
    if not record.nan or record.random:
        pytest.skip("the op does not promise it")
    for sample in record.samples(rng):
        first = sample.args[0]
        if not isinstance(first, np.ndarray) or first.size == 0:
            continue
        poisoned = first.copy()
        poisoned.reshape(-1)[first.size // 2] = np.nan
        sample = Sample((poisoned, *sample.args[1:]), sample.kwargs)
        for g, w in zip(call(device, record, sample, np.float32), expected(record, sample.args, sample.kwargs)):
            np.testing.assert_array_equal(np.isnan(g), np.isnan(w), err_msg=repr(sample))


def run_with_gradients(device, record: Record, sample: Sample, dtype, seed=1):
    """Result and gradients for a fixed random gradient of the result."""
    fastnn.manual_seed(0)

    def tensor(x, requires_grad=False):
        if not isinstance(x, np.ndarray):
            return x
        return fastnn.tensor(device.put(cast(x, dtype)), requires_grad=requires_grad)

    tensors = [tensor(x, i in record.differentiable) for i, x in enumerate(sample.args)]
    result = record.op(*tensors, **{k: tensor(v) for k, v in sample.kwargs.items()})
    y = result[0] if isinstance(result, tuple) else result
    dy = np.random.default_rng(seed).standard_normal(y.shape).astype(dtype)
    y.backward(device.put(dy))
    gradients = [t.grad.array if isinstance(t, fastnn.Tensor) and t.grad is not None else None for t in tensors]
    assert all(g is None or isinstance(g, device.array_type) for g in gradients)
    return device.get(y.array), dy, [device.get(g) for g in gradients]


@each_record
def test_gradient_against_central_differences(device, record, rng):
    if not record.differentiable:
        pytest.skip("no gradient")
    step = 1e-6
    for sample in record.samples(rng):
        _, dy, gradients = run_with_gradients(device, record, sample, np.float64)
        for i in record.differentiable:
            if i >= len(sample.args) or not isinstance(sample.args[i], np.ndarray):
                continue
            x = sample.args[i]
            assert gradients[i] is not None and gradients[i].shape == x.shape, (
                f"{sample!r}: no gradient of argument {i}"
            )
            if x.size == 0:
                continue  # the mean of nothing is NaN
            for _ in range(2):
                direction = rng.standard_normal(x.shape)

                def at(t, i=i, x=x, direction=direction, sample=sample, dy=dy):
                    args = list(sample.args)
                    args[i] = x + t * direction
                    return float((call(CPU(), record, Sample(tuple(args), sample.kwargs), np.float64)[0] * dy).sum())

                numeric = (at(step) - at(-step)) / (2 * step)
                analytic = float((gradients[i] * direction).sum())
                scale = 1 + float(np.abs(gradients[i] * direction).sum())
                assert abs(numeric - analytic) < 1e-6 * scale, f"{sample!r}: argument {i}: {analytic} against {numeric}"


def bits(device, record, sample):
    """The result and its gradients, as bytes."""
    if record.differentiable:
        y, _, gradients = run_with_gradients(device, record, sample, np.float32)
        arrays = [y, *(g for g in gradients if g is not None)]
    else:
        arrays = list(call(device, record, sample, np.float32))
    return b"".join(a.tobytes() for a in arrays)


@each_record
def test_same_bits_on_1_2_3_threads(device, record, rng, threads):
    if device.name != "cpu":
        pytest.skip("threads of the CPU")
    for sample in record.samples(rng):
        seen = set()
        for count in (1, 2, 3):
            threads(count)
            seen.add(bits(device, record, sample))
        assert len(seen) == 1, repr(sample)


@each_record
def test_same_bits_in_every_order_of_threads_and_blocks(device, record, rng):
    """A GPU promises no order: where a barrier is missing, or two blocks meet, the order shows in the result."""
    if not device.emulated:
        pytest.skip("orders can be chosen on the emulator")
    for sample in record.samples(rng):
        seen = {bits(device, record, sample)}
        for order in ({"threads": "reverse", "blocks": "reverse"}, {"threads": "random", "seed": 1}):
            with device.schedule(**order):
                seen.add(bits(device, record, sample))
        assert len(seen) == 1, repr(sample)
