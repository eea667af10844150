"""The emulator finds what it is there to find: one planted bug for each detector (emulator/planted.cu), and beside each
the right version, which passes. Warp operations and tensor cores are held against their definition; the stand-in for
CuPy, against what CuPy documents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from emulator import build, planted
from emulator import fake_cupy as cupy
from emulator.device import emulated
from emulator.planted import launch, simple

if not shutil.which(build.COMPILER):
    pytest.skip("the emulator needs a C++ compiler", allow_module_level=True)

X = np.arange(1, 65, dtype=np.float32)
REVERSED = {"threads": "reverse", "blocks": "reverse"}
RANDOM = {"threads": "random", "seed": 3}


def in_every_order(expression, *numbers, **options):
    """What a kernel gives in each of three orders of threads and blocks."""
    results = []
    for order in ({}, REVERSED, RANDOM):
        with emulated().schedule(**order):
            results.append(simple(expression, *numbers, **options))
    return results


@cache
def sanitizer_missing(kind):
    name = {"address": "libasan.so", "thread": "libtsan.so"}[kind]
    found = subprocess.run([build.COMPILER, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return not Path(found).is_absolute()


@cache
def sanitized(kind, launches):
    """Exit status of a process that makes these launches under a sanitizer, and what was reported for each."""
    if sanitizer_missing(kind):
        pytest.skip(f"the compiler has no {kind} sanitizer")
    words = " -- ".join(launches).split()
    command = [str(build.HERE / "sanitize"), kind, sys.executable, str(build.HERE / "planted.py"), *words]
    go_on = {"ASAN_OPTIONS": "halt_on_error=0", "TSAN_OPTIONS": "halt_on_error=0", "PYTHONPATH": path_of_package()}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **go_on})
    parts = done.stderr.split("== launch ")[1:]
    assert len(parts) == len(launches), done.stderr
    return done.returncode, {launch: part.partition("\n")[2] for launch, part in zip(launches, parts)}


def path_of_package():
    import fastnn

    return str(Path(fastnn.__file__).parents[1])


# -- barriers ----------------------------------------------------------------------------------------------------------
def test_right_kernels_are_right_in_every_order():
    for y in in_every_order("backwards<true>"):
        np.testing.assert_array_equal(y, X[::-1])
    for y in in_every_order("backwards_in_warp<true>"):
        np.testing.assert_array_equal(y.reshape(2, 32), X.reshape(2, 32)[:, ::-1])


def test_a_missing_barrier_shows_as_nan_and_as_a_result_that_depends_on_the_order():
    forward, backward, mixed = in_every_order("backwards<false>")
    assert np.isnan(forward).any() and np.isnan(backward).any() and np.isnan(mixed).any()
    assert forward.tobytes() != backward.tobytes()


def test_a_missing_second_barrier_shows_in_another_order():
    assert len({y.tobytes() for y in in_every_order("second_round")}) > 1


@pytest.mark.parametrize(
    "kernel, why",
    [
        (
            "barrier_for_half",
            r"waits at __syncthreads \(planted.cu:\d+\), which thread 32 will not reach: it has ended",
        ),
        ("barriers_at_two_places", r"reaches __syncthreads at planted.cu:\d+ while others wait at planted.cu:\d+"),
        ("ended_before_barrier", r"which thread 5 will not reach: it has ended"),
        ("shuffle_of_some", r"waits in shuffle_xor, which lane 8 will not reach: it has ended"),
        ("two_operations", r"thread \(1, 0, 0\) .* is in shuffle_xor while lane 0 is in shuffle_down"),
    ],
)
def test_a_divergent_barrier_is_an_error_and_no_hang(kernel, why):
    with pytest.raises(build.LaunchError, match=why):
        simple(kernel)
    np.testing.assert_array_equal(simple("backwards<true>"), X[::-1])  # the next launch is as new


# -- arrays ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", [-3, 1])
def test_a_write_beyond_an_array_is_an_error(by):
    simple("write_beyond", 0)
    with pytest.raises(build.LaunchError, match="a write beyond an array of 256 bytes"):
        simple("write_beyond", by)


def test_an_access_far_beyond_is_an_error_that_names_the_thread_and_no_crash():
    with pytest.raises(build.LaunchError, match=r"thread \(0, 0, 0\) .* no memory"):
        simple("write_beyond", 1 << 30)


def test_a_read_beyond_an_array_is_nan():
    np.testing.assert_array_equal(simple("read_beyond", 0), X)
    assert np.isnan(simple("read_beyond", 1)[-1])


def test_an_index_beyond_static_shared_memory_is_an_error_with_its_line():
    np.testing.assert_array_equal(simple("static_beyond", 0), X)
    with pytest.raises(build.LaunchError, match=r"planted.cu:\d+: index 64 is out of bounds for 'float \[64\]'"):
        simple("static_beyond", 1)


def test_too_little_dynamic_shared_memory_is_an_error():
    np.testing.assert_array_equal(simple("dynamic_beyond", shared=256), X)
    with pytest.raises(build.LaunchError, match="writes past its 252 bytes of dynamic shared memory"):
        simple("dynamic_beyond", shared=252)


def test_a_misaligned_access_is_an_error():
    np.testing.assert_array_equal(simple("wide_load", 4), np.tile(X[4:8], 16))
    with pytest.raises(build.LaunchError, match=r"misaligned access: .* a multiple of 16"):
        simple("wide_load", 1)


def test_a_null_pointer_is_an_error():
    with pytest.raises(build.LaunchError, match="access through a null pointer"):
        launch("backwards<true>", np.uint64(0), X.copy())


# -- asynchronous copies -----------------------------------------------------------------------------------------------
def test_an_asynchronous_copy_lands_at_its_wait_and_not_before():
    np.testing.assert_array_equal(simple("asynchronous<AFTER_WAIT>"), X)
    assert np.isnan(simple("asynchronous<AT_ONCE>")).all()


def test_another_threads_copy_needs_a_barrier_too():
    assert np.isnan(simple("asynchronous<ANOTHERS>")).any()


def test_a_copy_that_nobody_waits_for_is_an_error():
    with pytest.raises(build.LaunchError, match="asynchronous copies that it did not wait for"):
        simple("asynchronous<NEVER_WAITED>")


@pytest.mark.parametrize("pending", [0, 2, 4])
def test_wait_leaves_the_last_groups_pending_and_short_copies_end_in_zeros(pending):
    y = simple(f"groups<{pending}>")[:16].reshape(4, 4)
    landed = 4 - pending
    np.testing.assert_array_equal(y[:landed, :2], X[:16].reshape(4, 4)[:landed, :2])
    np.testing.assert_array_equal(y[:landed, 2:], 0)
    assert np.isnan(y[landed:]).all()


# -- blocks ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel, numbers", [("blocks_meet", (0,)), ("blocks_in_order", ())])
def test_blocks_that_meet_show_when_their_order_is_reversed(kernel, numbers):
    assert len({y.tobytes() for y in in_every_order(kernel, *numbers, grid=2)}) > 1


# -- sanitizers --------------------------------------------------------------------------------------------------------
RIGHT = ("backwards<true>", "backwards_in_warp<true>", "asynchronous<AFTER_WAIT>", "dynamic_beyond shared=256")
WRONG = {
    "address": ("write_beyond 1", "read_beyond 1", "static_beyond 1", "dynamic_beyond shared=252"),
    "thread": (
        "backwards<false>",
        "backwards_in_warp<false>",
        "second_round",
        "asynchronous<ANOTHERS>",
        "blocks_meet 1 grid=2",
        "blocks_in_order grid=2",
    ),
}
SAYS = {"address": "buffer-overflow", "thread": "ThreadSanitizer: data race"}


@pytest.mark.parametrize("kind", WRONG)
def test_sanitizers_pass_what_is_right(kind):
    status, reports = sanitized(kind, RIGHT)
    assert status == 0 and not any(reports.values()), reports


@pytest.mark.parametrize("kind, bug", [(kind, bug) for kind in WRONG for bug in WRONG[kind]])
def test_sanitizers_find_the_line(kind, bug):
    report = sanitized(kind, WRONG[kind])[1][bug]
    assert SAYS[kind] in report, report
    assert any(f"planted.cu:{n}" in report for n in planted.lines(bug.split()[0].partition("<")[0])), report


# -- what the instructions mean ----------------------------------------------------------------------------------------
def rounded(x, bits):
    """float32 with ``bits`` of its mantissa left, nearest; exact for the small integers and halves used here."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.round(mantissa * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), exponent)


@pytest.mark.parametrize("kernel", ["multiply_tf32", "multiply_by_definition"])
def test_mma_tf32_and_ldmatrix_multiply(kernel, rng):
    a, b = rng.standard_normal((16, 8)).astype("f4"), rng.standard_normal((8, 8)).astype("f4")
    d = rng.standard_normal((16, 8)).astype("f4") if kernel == "multiply_tf32" else np.zeros((16, 8), "f4")
    want = d + rounded(a, 10) @ rounded(b, 10)
    launch(kernel, a, np.ascontiguousarray(b.T) if kernel == "multiply_tf32" else b, d, block=32)
    np.testing.assert_allclose(d, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("transposed", ["false", "true"])
def test_mma_bf16_and_ldmatrix_multiply(transposed, rng):
    a, b = rng.standard_normal((16, 16)).astype("f4"), rng.standard_normal((16, 8)).astype("f4")
    d = rng.standard_normal((16, 8)).astype("f4")
    want = d + rounded(a, 7) @ rounded(b, 7)
    launch(f"multiply_bf16<{transposed}>", a, b if transposed == "true" else np.ascontiguousarray(b.T), d, block=32)
    np.testing.assert_allclose(d, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shared, why", [(1, "not a multiple of 16"), (0, "not in the block's shared memory")])
def test_ldmatrix_takes_aligned_shared_memory_only(shared, why):
    with pytest.raises(build.LaunchError, match=why):
        simple("misplaced_ldmatrix", shared)


def test_rounding_to_tf32_and_bf16():
    one, ulp = 1.0, 2.0**-10
    x = np.array([one, one + ulp / 2, one + 1.49 * ulp, 1.5, -one - ulp / 2, np.inf, np.nan, 3e38, 1e-40, 0.0], "f4")
    tf32, bf16 = np.zeros(x.size, "u4"), np.zeros(x.size, "u4")
    launch("round_to", x, tf32, bf16, np.int32(x.size))
    want = np.array([1, 1 + ulp, 1 + ulp, 1.5, -1 - ulp, np.inf, np.nan], "f4")  # ties away from 0
    np.testing.assert_array_equal(tf32.view("f4")[:7], want)
    low, high = (bf16 << 16).view("f4"), (bf16 & 0xFFFF0000).view("f4")
    np.testing.assert_array_equal(low[:7], np.array([1, 1, 1, 1.5, -1, np.inf, np.nan], "f4"))
    np.testing.assert_array_equal(high[np.isfinite(x)], -low[np.isfinite(x)])
    half = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8], "f4")  # ties to even
    tf32, bf16 = np.zeros(2, "u4"), np.zeros(2, "u4")
    launch("round_to", half, tf32, bf16, np.int32(2))
    np.testing.assert_array_equal((bf16 << 16).view("f4"), np.array([1, 1 + 2 * 2.0**-7], "f4"))


def test_shuffles_and_ballot():
    x, y, bits = X[:32].copy(), np.zeros(128, "f4"), np.zeros(32, "u4")
    launch("lanes", x, y, bits, block=32)
    lane = np.arange(32)
    sources = [lane ^ 5, np.where(lane + 3 < 32, lane + 3, lane), np.where(lane >= 3, lane - 3, lane), 0 * lane + 7]
    np.testing.assert_array_equal(y.reshape(4, 32), x[np.array(sources)])
    np.testing.assert_array_equal(bits, 0xAAAAAAAA)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("block", [32, 96, 1024])
def test_block_reductions(dtype, block, rng):
    t = {"float32": "float", "float64": "double"}[dtype]
    for n in (1, 31, 1000):
        for poison in ((), (n // 2,), (n // 3, n - 1)):
            x = rng.integers(-9, 9, n).astype(dtype)
            x[list(poison)] = np.nan
            y, at = np.zeros(2, dtype), np.zeros(1, "i8")
            launch(f"reductions<{t}>", x, y, at, np.int64(n), block=block)
            np.testing.assert_array_equal(y, [x.sum(), x.max()])
            assert at[0] == np.argmax(x)


# -- launches ----------------------------------------------------------------------------------------------------------
def test_the_launcher_refuses_the_wrong_kind_of_argument():
    gpu, x = emulated(), cupy.ones(8, "f4")
    relu = lambda *args: gpu.launch("elementwise", "map<float, relu_of<float>>", 1, 32, *args)  # noqa: E731
    relu(x, cupy.empty_like(x), 8, 0.0, 0.0)
    with pytest.raises(TypeError, match="must be an int, got 8"):
        relu(x, x, 8.0, 0.0, 0.0)
    with pytest.raises(TypeError, match="must be float32, got float64"):
        relu(cupy.ones(8), x, 8, 0.0, 0.0)
    with pytest.raises(TypeError, match="NumPy array"):
        relu(x.get(), x, 8, 0.0, 0.0)
    with pytest.raises(TypeError, match="takes 5 arguments"):
        relu(x, x, 8)


def test_a_scalar_that_nobody_cast_is_refused():
    with pytest.raises(TypeError, match="CuPy would not pass int as int32 unchanged"):
        launch("write_beyond", X.copy(), X.copy(), 0)
    with pytest.raises(TypeError, match=r"passed int64 where the kernel takes int32"):
        launch("write_beyond", X.copy(), X.copy(), np.int64(0))


def test_a_signature_that_the_host_misreads_is_refused(monkeypatch):
    from emulator import device

    monkeypatch.setattr(device, "signature", lambda file, expression: ())
    with pytest.raises(TypeError, match=r"the compiler has \(const float32\*,float32\*,int64,float32,float32,\)"):
        emulated().load("elementwise", "map<float, relu_of<float>>")


def test_a_text_that_does_not_compile_is_an_error_with_the_compilers_words(tmp_path):
    (tmp_path / "broken.cu").write_text('#include "common.cuh"\n__global__ void f(float* y) { y[0] = nothing; }\n')
    with pytest.raises(RuntimeError, match=r"nothing.*was not declared"):
        build.load(build.Unit("broken", tmp_path / "broken.cu", ("f",)))


def test_a_unit_is_built_again_when_a_file_it_includes_changes(tmp_path):
    (tmp_path / "part.cuh").write_text("constexpr float VALUE = 1;\n")
    (tmp_path / "main.cu").write_text(
        '#include "common.cuh"\n#include "part.cuh"\n__global__ void f(float* y) { y[0] = VALUE; }\n'
    )
    unit = build.Unit("changing", tmp_path / "main.cu", ("f",))
    first = unit.library()
    assert unit.library() == first
    (tmp_path / "part.cuh").write_text("constexpr float VALUE = 2;\n")
    assert unit.library() != first


# -- the stand-in for CuPy ---------------------------------------------------------------------------------------------
def test_arrays_are_not_numpys_and_do_not_become_them():
    x = cupy.asarray(X)
    assert not isinstance(x, np.ndarray)
    for convert in (np.asarray, np.array, lambda x: np.zeros(64) + np.asarray(x), np.ascontiguousarray):
        with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
            convert(x)
    np.testing.assert_array_equal(x.get(), X)
    np.testing.assert_array_equal(cupy.asnumpy(x), X)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + X,
        lambda x: X + x,
        lambda x: np.add(X, x),
        lambda x: np.maximum(x, X),
        lambda x: x < X,
        lambda x: x.__iadd__(X),
        lambda x: X.__iadd__(x),
        lambda x: cupy.concatenate([x, X]),
        lambda x: np.concatenate([x, X]),
        lambda x: cupy.where(x > 0, x, X),
    ],
)
def test_arrays_do_not_mix_with_numpys(mix):
    with pytest.raises(TypeError):
        mix(cupy.asarray(X))


def test_what_is_assigned_is_one_number_or_the_devices():
    x = cupy.asarray(X)
    for values in (X, [0.0] * 64, X[:1]):
        with pytest.raises(ValueError, match=r"non-scalar numpy.ndarray cannot be used for fill"):
            x[...] = values
    x[3:5], x[5], x[:2] = np.float32(7), np.array(8.0), cupy.ones(2, "f4")
    assert x.get()[:6].tolist() == [1, 1, 3, 7, 7, 8]


def test_operators_are_left_to_classes_that_ask_for_it():
    class Wrapper:
        __array_ufunc__ = None
        __radd__ = __rmatmul__ = lambda self, other: "mine"

    x = cupy.asarray(X)
    assert x + Wrapper() == "mine" and x @ Wrapper() == "mine"
    for other in (None, "x", [1.0]):
        with pytest.raises(TypeError):
            x + other


def test_numbers_mix_and_numpys_functions_are_handed_over():
    x = cupy.asarray(X)
    for y in (x + 1, 1 + x, np.add(x, np.float32(1)), np.add(x, 1.0)):
        assert isinstance(y, cupy.ndarray) and y.dtype == np.float32
        np.testing.assert_array_equal(y.get(), X + 1)
    assert isinstance(np.concatenate([x, x]), cupy.ndarray)
    assert isinstance(np.full_like(x, 2), cupy.ndarray)
    with pytest.raises(TypeError):
        np.percentile(x, 50)  # nobody hands it over


def test_one_number_stays_an_array():
    x = cupy.asarray(X)
    for y in (x[3], x.sum(), x.max(), cupy.mean(x), x[0] + x[1], x.argmax()):
        assert isinstance(y, cupy.ndarray) and y.shape == ()
    assert float(x.sum()) == X.sum() and x[3].item() == X[3] and int(x.argmax()) == 63 and bool(x[0] == 1)


def test_views_share_memory_and_copies_do_not():
    x = cupy.zeros((4, 6), "f4")
    view = x[1:3, ::2]
    assert view.base is x and view.T.base is x and x.base is None and not view.flags.c_contiguous
    view[...] = 7
    assert float(x.sum()) == 7 * 6
    number = x[1, 0]
    number += 1
    assert number.base is x and x[1, 0].item() == 8
    x[1, 0] = 7
    assert cupy.may_share_memory(x, view) and not cupy.may_share_memory(x[:1], x[2:])
    for copy in (x.copy(), x + 0, x.astype("f8"), cupy.ascontiguousarray(view), x.T.reshape(-1), x[[0, 1]]):
        assert copy.base is None
        copy.fill(0)
    assert float(x.sum()) == 7 * 6
    assert x.reshape(2, 12).base is x and x.astype("f4", copy=False) is x


def test_new_memory_is_nan():
    assert np.isnan(cupy.empty((3, 4), "f4").get()).all() and np.isnan(cupy.empty_like(cupy.ones(3)).get()).all()


def test_dlpack_is_the_devices():
    x = cupy.asarray(X)
    assert x.__dlpack_device__() == (2, 0)
    with pytest.raises((BufferError, RuntimeError)):
        np.from_dlpack(x)
    y = cupy.from_dlpack(x)
    assert cupy.shares_memory(x, y)
    with pytest.raises(ValueError, match="not on a CUDA device"):
        cupy.from_dlpack(X)
