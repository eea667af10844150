"""Convolution beyond its records: every plan on every case, bad arguments, and that a convolution is a GEMM."""

import os
import subprocess
import sys

import numpy as np
import pytest
from records import conv as records

from fastnn import kernels

PLANS = [
    "direct",
    "implicit",
    "lanes",
    "lanes_winograd",
    "winograd",
    "shallow",
    "phases",
    "depthwise",
    "pointwise",
    "im2col",
]
PLAN = os.environ.get("FASTNN_CONV")  # the core reads it once: each plan is tested in a process of its own


def reference_gradients(x, w, dy, stride=1, padding=0, dilation=1, groups=1):
    """dx and dw by the definition: every product of the forward pass, added to where its factors came from."""
    size = int(np.prod(x.shape[1:]))
    dx_numbers = 1 + np.arange(size).reshape(1, *x.shape[1:])
    seen = records.windows(x, w.shape[2:], stride, padding, dilation)
    places = records.windows(dx_numbers, w.shape[2:], stride, padding, dilation)[0]
    dx, dw = np.zeros((len(x), size + 1)), np.zeros(w.shape)
    cg, kg = w.shape[1], w.shape[0] // groups
    for g in range(groups):
        c, k = slice(g * cg, (g + 1) * cg), slice(g * kg, (g + 1) * kg)
        dw[k] = np.einsum("nkij,ncijrs->kcrs", dy[:, k], seen[:, c])
        parts = np.einsum("nkij,kcrs->ncijrs", dy[:, k], w[k])
        for n in range(len(x)):
            np.add.at(dx[n], places[c], parts[n])
    return dx[:, 1:].reshape(x.shape), dw


class TestUnderPlan:
    """For any FASTNN_CONV."""

    __test__ = PLAN is not None

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_every_plan_on_every_case(self, dtype, rng, threads):
        for (n, c, h, w, k, r, s), kwargs in records.CASES:
            x = rng.standard_normal((n, c, h, w)).astype(dtype)
            weight = rng.standard_normal((k, c // kwargs.get("groups", 1), r, s)).astype(dtype)
            bias = rng.standard_normal(k).astype(dtype)
            wide = [a.astype(np.float64) for a in (x, weight, bias)]
            want = records.conv2d_reference(*wide, **kwargs)
            dy = rng.standard_normal(want.shape).astype(dtype)
            want_dx, want_dw = reference_gradients(wide[0], wide[1], dy.astype(np.float64), **kwargs)
            bits = set()
            for count in (1, 2, 3):
                threads(count)
                y = kernels.conv2d(x, weight, bias, **kwargs)
                y_relu = kernels.conv2d(x, weight, bias, activation="relu", **kwargs)
                dx = kernels.conv2d_backward_input(dy, weight, x.shape, **kwargs)
                dw = kernels.conv2d_backward_weight(dy, x, weight.shape, **kwargs)
                bits.add(b"".join(a.tobytes() for a in (y, y_relu, dx, dw)))
            assert len(bits) == 1, "threads change the bits"
            np.testing.assert_array_equal(y_relu, np.maximum(y, 0))
            for got, expected in ((y, want), (dx, want_dx), (dw, want_dw)):
                scale = max(1.0, np.abs(expected).max(initial=0))
                np.testing.assert_allclose(
                    got, expected, rtol=0, atol=20 * np.finfo(dtype).eps * scale, err_msg=str(kwargs)
                )

    def test_large_images_are_cut_into_chunks(self, rng):
        """Bands of rows, pieces of a row, blocks of channels and of taps: each larger than one chunk."""
        for (n, c, h, w, k, r, s), kwargs in [
            ((1, 40, 40, 50, 9, 3, 3), {"padding": 1}),
            ((1, 100, 3, 900, 7, 2, 3), {}),
            ((1, 700, 5, 6, 8, 3, 3), {"padding": 1}),
            ((1, 3, 90, 91, 70, 11, 11), {"stride": 4, "padding": 2}),
            ((2, 90, 9, 8, 72, 3, 3), {"stride": 2, "padding": 1}),
            ((1, 2, 3, 700, 3, 3, 3), {"padding": 1}),
            ((90, 5, 4, 3, 6, 3, 3), {"padding": 1}),
            ((18, 7, 9, 10, 20, 5, 5), {"padding": 2}),
            ((9, 70, 13, 12, 68, 5, 5), {"padding": 2}),
            ((9, 40, 23, 21, 17, 3, 3), {"stride": 2, "padding": 1}),
            ((17, 8, 20, 19, 8, 3, 3), {"stride": (3, 2), "dilation": (2, 3), "padding": (3, 1), "groups": 4}),
            ((2, 5, 9, 38, 5, 3, 3), {"padding": 1, "groups": 5}),
            ((1, 3, 8, 33, 3, 3, 3), {"padding": (0, 4), "groups": 3}),
            ((3, 4, 13, 37, 4, 3, 3), {"stride": 2, "padding": (1, 2), "groups": 4}),
            ((2, 3, 13, 14, 3, 5, 5), {"padding": 2, "groups": 3}),
            ((16, 1, 12, 15, 1, 5, 1), {}),
            ((2, 3, 14, 15, 3, 3, 3), {"padding": 2, "dilation": 2, "groups": 3}),
            ((2, 3, 12, 70, 3, 3, 3), {"stride": 2, "padding": (2, 1), "groups": 3}),
            ((1, 2, 7, 16, 2, 3, 3), {"stride": 2, "padding": (0, 5), "groups": 2}),
            ((3, 40, 9, 11, 35, 1, 1), {}),
            ((9, 12, 5, 7, 16, 1, 1), {"groups": 4}),
        ]:
            x = rng.standard_normal((n, c, h, w))
            weight = rng.standard_normal((k, c // kwargs.get("groups", 1), r, s))
            want = records.conv2d_reference(x, weight, **kwargs)
            dy = rng.standard_normal(want.shape)
            want_dx, want_dw = reference_gradients(x, weight, dy, **kwargs)
            np.testing.assert_allclose(kernels.conv2d(x, weight, **kwargs), want, atol=1e-10)
            np.testing.assert_allclose(
                kernels.conv2d_backward_input(dy, weight, x.shape, **kwargs), want_dx, atol=1e-10
            )
            np.testing.assert_allclose(
                kernels.conv2d_backward_weight(dy, x, weight.shape, **kwargs), want_dw, atol=1e-10
            )

    def test_extreme_geometry_falls_back_to_what_fits(self):
        """A kernel spread over a huge dilation, huge padding around one pixel: no plan may ask for huge scratch."""
        x, w = np.full((1, 1, 1, 1), 2.0), np.arange(1.0, 10).reshape(1, 1, 3, 3)
        far = 2**28
        how = {"padding": far, "dilation": far}
        assert kernels.conv2d(x, w, **how).item() == 10.0
        assert kernels.conv2d_backward_input(np.ones((1, 1, 1, 1)), w, x.shape, **how).item() == 5.0
        assert kernels.conv2d_backward_weight(np.ones((1, 1, 1, 1)), x, w.shape, **how).sum() == 2.0
        y = kernels.conv2d(x, w[:, :, :1, :1], padding=far, stride=far)
        assert y.shape == (1, 1, 3, 3) and y[0, 0, 1, 1] == 2 and y.sum() == 2


@pytest.mark.parametrize(
    ("k", "c", "r", "h", "how"),
    [
        (64, 64, 3, 28, {"padding": 1}),
        (64, 3, 11, 63, {}),
        (16, 6, 5, 14, {"stride": 1}),
        (64, 3, 3, 30, {"padding": 1, "stride": 1}),
    ],
)
def test_an_image_does_not_depend_on_those_beside_it(k, c, r, h, how, rng):
    """In a batch of the same size, to the last bit: wherever in the batch it lies, whatever lies beside it."""
    how = {"stride": 2 if r == 3 else 4, **how}
    w = rng.standard_normal((k, c, r, r)).astype(np.float32)
    for n in (2, 9, 16, 21):
        x = rng.standard_normal((n, c, h, h)).astype(np.float32)
        y = kernels.conv2d(x, w, **how)
        dx = kernels.conv2d_backward_input(y, w, x.shape, **how)
        x[1:] = rng.standard_normal((n - 1, c, h, h))
        x[-1] = x[0]
        again = kernels.conv2d(x, w, **how)
        dx_again = kernels.conv2d_backward_input(again, w, x.shape, **how)
        for first, last in ((y, again), (dx, dx_again)):
            assert last[0].tobytes() == last[-1].tobytes() == first[0].tobytes()


# N, C, H, W, K, R. Each has tiles that reach beyond the map, or a window that begins outside or inside it.
WINOGRAD_CASES = [
    ((1, 1, 1, 1, 1, 3), {"padding": 1}),
    ((2, 3, 2, 2, 4, 3), {"padding": 1}),
    ((1, 2, 3, 3, 2, 3), {}),
    ((3, 20, 7, 9, 33, 3), {"padding": 1}),
    ((2, 17, 5, 6, 18, 3), {"padding": 2}),
    ((1, 3, 4, 5, 2, 3), {"padding": 5}),
    ((2, 4, 6, 3, 5, 3), {"padding": (0, 3)}),
    ((2, 8, 6, 6, 12, 3), {"padding": 1, "groups": 4}),
    ((0, 16, 4, 4, 16, 3), {"padding": 1}),
    ((1, 1, 1, 1, 1, 5), {"padding": 2}),
    ((2, 3, 2, 2, 4, 5), {"padding": 2}),
    ((1, 2, 5, 5, 2, 5), {}),
    ((1, 2, 6, 5, 2, 5), {"padding": 1}),
    ((3, 20, 7, 9, 33, 5), {"padding": 2}),
    ((2, 17, 5, 6, 18, 5), {"padding": 4}),
    ((1, 3, 4, 5, 2, 5), {"padding": 6}),
    ((2, 4, 6, 4, 5, 5), {"padding": (0, 3)}),
    ((2, 8, 6, 6, 12, 5), {"padding": 2, "groups": 4}),
    ((1, 18, 5, 101, 3, 5), {"padding": 2}),
    ((0, 16, 6, 6, 16, 5), {"padding": 2}),
    # Few channels: rows of one vector of tiles and of several, whole or not; several bands; parts of a block of maps.
    ((2, 3, 32, 32, 8, 3), {"padding": 1}),
    ((3, 3, 17, 9, 7, 3), {"padding": 1}),
    ((1, 4, 8, 40, 5, 3), {"padding": 2}),
    ((1, 1, 70, 35, 9, 3), {}),
    ((1, 2, 5, 301, 6, 3), {"padding": (1, 0)}),
    ((2, 6, 12, 14, 10, 3), {"padding": 1, "groups": 2}),
]


def winograd_arrays(rng, shape, kwargs):
    n, c, h, w, k, r = shape
    x = rng.standard_normal((n, c, h, w)).astype(np.float32)
    weight = rng.standard_normal((k, c // kwargs.get("groups", 1), r, r)).astype(np.float32)
    dy = rng.standard_normal(records.conv2d_reference(x, weight, **kwargs).shape).astype(np.float32)
    return x, weight, dy


class TestUnderWinograd:
    __test__ = PLAN in ("winograd", "shallow")

    @pytest.mark.parametrize(("shape", "kwargs"), WINOGRAD_CASES)
    def test_winograd_on_maps_of_every_size(self, shape, kwargs, rng):
        x, w, dy = winograd_arrays(rng, shape, kwargs)
        wide = [a.astype(np.float64) for a in (x, w, dy)]
        want = records.conv2d_reference(*wide[:2], **kwargs)
        want_dx, want_dw = reference_gradients(*wide, **kwargs)
        np.testing.assert_allclose(kernels.conv2d(x, w, **kwargs), want, atol=1e-4)
        np.testing.assert_allclose(kernels.conv2d_backward_input(dy, w, x.shape, **kwargs), want_dx, atol=1e-4)
        np.testing.assert_allclose(kernels.conv2d_backward_weight(dy, x, w.shape, **kwargs), want_dw, atol=1e-4)

    @pytest.mark.parametrize(("shape", "kwargs"), [case for case in WINOGRAD_CASES if case[0][0]])
    def test_nan_under_winograd(self, shape, kwargs, rng):
        """What conv2d's docstring promises: forward and dx exactly as the definition has it; dw nothing less."""
        x, w, dy = winograd_arrays(rng, shape, kwargs)
        for _ in range(4):
            spoilt, spoilt_dy = x.copy(), dy.copy()
            spoilt.reshape(-1)[rng.integers(x.size)] = np.nan
            spoilt_dy.reshape(-1)[rng.integers(dy.size)] = np.nan
            np.testing.assert_array_equal(
                np.isnan(kernels.conv2d(spoilt, w, **kwargs)), np.isnan(records.conv2d_reference(spoilt, w, **kwargs))
            )
            want_dx, _ = reference_gradients(x, w, spoilt_dy, **kwargs)
            dx = kernels.conv2d_backward_input(spoilt_dy, w, x.shape, **kwargs)
            np.testing.assert_array_equal(np.isnan(dx), np.isnan(want_dx))
            _, want_dw = reference_gradients(spoilt, w, dy, **kwargs)
            dw = kernels.conv2d_backward_weight(dy, spoilt, w.shape, **kwargs)
            assert np.isnan(dw[np.isnan(want_dw)]).all()

    @pytest.mark.parametrize("r", [3, 5])
    def test_infinity_is_not_lost_under_winograd(self, r, rng):
        x, w, _ = winograd_arrays(rng, (1, 16 if PLAN == "winograd" else 3, 9, 9, 16, r), {"padding": 1})
        for column in range(9):
            spoilt = x.copy()
            spoilt[0, 2, 4, column] = np.inf
            want = records.conv2d_reference(spoilt, w, padding=1)
            np.testing.assert_array_equal(np.isfinite(kernels.conv2d(spoilt, w, padding=1)), np.isfinite(want))


class TestUnderPhases:
    __test__ = PLAN == "phases"

    @pytest.mark.parametrize(
        ("shape", "kwargs"),
        [
            ((3, 3, 31, 27, 18, 11), {"stride": 4, "padding": 2}),
            ((2, 4, 12, 13, 8, 5), {"stride": 2}),
            ((2, 2, 9, 19, 5, 9), {"stride": (2, 3), "padding": (3, 1)}),
            ((1, 6, 11, 11, 4, 5), {"stride": 2, "padding": 4, "groups": 2}),
            ((21, 24, 60, 61, 3, 5), {"stride": 2, "padding": 2}),
        ],
    )
    def test_strides_in_three_steps(self, shape, kwargs, rng):
        """Values, and that what is not finite reaches the outputs that see it, and no others; in dw, no fewer."""
        x, w, dy = winograd_arrays(rng, shape, kwargs)
        wide = [a.astype(np.float64) for a in (x, w, dy)]
        want = records.conv2d_reference(*wide[:2], **kwargs)
        _, want_dw = reference_gradients(*wide, **kwargs)
        np.testing.assert_allclose(kernels.conv2d(x, w, **kwargs), want, atol=2e-4)
        dw = kernels.conv2d_backward_weight(dy, x, w.shape, **kwargs)
        np.testing.assert_allclose(dw, want_dw, atol=1e-5 * np.abs(want_dw).max())
        for bad in (np.nan, np.inf, -np.inf):
            spoilt, spoilt_w = x.copy(), w.copy()
            spoilt[0, -1, rng.integers(x.shape[2]), rng.integers(x.shape[3])] = bad
            spoilt_w[-1, 0, rng.integers(w.shape[2]), rng.integers(w.shape[3])] = bad
            for a, b in ((spoilt, w), (x, spoilt_w)):
                finite = np.isfinite(records.conv2d_reference(a, b, **kwargs))
                np.testing.assert_array_equal(np.isfinite(kernels.conv2d(a, b, **kwargs)), finite)
            finite = np.isfinite(reference_gradients(spoilt, w, dy, **kwargs)[1])
            assert not np.isfinite(kernels.conv2d_backward_weight(dy, spoilt, w.shape, **kwargs))[~finite].any()


# Last tiles of one to four columns, padding up to what is read, groups, several bands, and blocks of k and of channels.
LANES_WINOGRAD_CASES = [
    ((1, 1, 5, 5, 1, 5), {}),
    ((17, 3, 6, 9, 7, 5), {"padding": 1}),
    ((5, 2, 9, 7, 3, 3), {"padding": (2, 4)}),
    ((9, 6, 14, 14, 16, 5), {}),
    ((3, 1, 28, 27, 6, 5), {"padding": 2}),
    ((2, 8, 4, 6, 10, 1), {"padding": (0, 3), "groups": 2}),
    ((2, 37, 8, 8, 35, 7), {"padding": (6, 4)}),
    ((1, 5, 40, 130, 4, 5), {"padding": 2}),
    ((2, 4, 1, 1, 2, 5), {"padding": (4, 2)}),
    ((0, 3, 8, 8, 4, 5), {}),
]


class TestUnderLanesWinograd:
    __test__ = PLAN == "lanes_winograd"

    def arrays(self, rng, shape, kwargs, dtype=np.float32):
        n, c, h, w, k, r = shape
        x = rng.standard_normal((n, c, h, w)).astype(dtype)
        weight = rng.standard_normal((k, c // kwargs.get("groups", 1), r, 5)).astype(dtype)
        return x, weight, rng.standard_normal(records.conv2d_reference(x, weight, **kwargs).shape).astype(dtype)

    def passes(self, x, w, dy, kwargs):
        return (
            kernels.conv2d(x, w, **kwargs),
            kernels.conv2d_backward_input(dy, w, x.shape, **kwargs),
            kernels.conv2d_backward_weight(dy, x, w.shape, **kwargs),
        )

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(("shape", "kwargs"), LANES_WINOGRAD_CASES)
    def test_rows_of_every_length(self, shape, kwargs, dtype, rng, threads):
        x, w, dy = self.arrays(rng, shape, kwargs, dtype)
        wide = [a.astype(np.float64) for a in (x, w, dy)]
        want = (records.conv2d_reference(*wide[:2], **kwargs), *reference_gradients(*wide, **kwargs))
        bits = set()
        for count in (1, 2, 3):
            threads(count)
            got = self.passes(x, w, dy, kwargs)
            bits.add(b"".join(a.tobytes() for a in got))
        assert len(bits) == 1, "threads change the bits"
        for a, expected in zip(got, want, strict=True):
            scale = max(1.0, np.abs(expected).max(initial=0))
            np.testing.assert_allclose(a, expected, rtol=0, atol=20 * np.finfo(dtype).eps * scale)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @np.errstate(invalid="ignore")
    def test_what_is_not_finite_goes_where_the_definition_has_it(self, bad, rng):
        for shape, kwargs in LANES_WINOGRAD_CASES[:-1]:
            x, w, dy = self.arrays(rng, shape, kwargs)
            spoilt, spoilt_dy = x.copy(), dy.copy()
            spoilt.reshape(-1)[rng.integers(x.size)] = bad
            spoilt_dy.reshape(-1)[rng.integers(dy.size)] = bad
            y, _, dw = self.passes(spoilt, w, dy, kwargs)
            _, dx, _ = self.passes(x, w, spoilt_dy, kwargs)
            want, want_dx = (
                records.conv2d_reference(spoilt, w, **kwargs),
                reference_gradients(x, w, spoilt_dy, **kwargs)[0],
            )
            np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(dx, want_dx, rtol=1e-3, atol=1e-3)
            want_dw = reference_gradients(spoilt, w, dy, **kwargs)[1]
            assert not np.isfinite(dw[~np.isfinite(want_dw)]).any()
            assert np.isnan(kernels.conv2d(spoilt, w, activation="relu", **kwargs)).any() == np.isnan(want).any()

    def test_numbers_that_only_the_transforms_would_overflow(self, rng):
        x, w, dy = self.arrays(rng, (3, 4, 9, 10, 5, 5), {"padding": 2})
        x, w, dy = (a / np.abs(a).max() for a in (x, w, dy))
        want = self.passes(x, w, dy, {"padding": 2})
        got = self.passes(x * np.float32(3e38), w * np.float32(1e-3), dy, {"padding": 2})
        np.testing.assert_allclose(got[0], want[0] * np.float32(3e35), rtol=1e-3, atol=1e31)
        got = self.passes(x * np.float32(1e-3), w, dy * np.float32(3e38), {"padding": 2})
        assert np.isfinite(got[2]).all()
        np.testing.assert_allclose(got[2], want[2] * np.float32(3e35), rtol=1e-3, atol=1e31)


@pytest.mark.skipif(PLAN is not None, reason="runs the others")
@pytest.mark.parametrize("plan", PLANS)
def test_plan(plan):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "Under", __file__]
    done = subprocess.run(command, env={**os.environ, "FASTNN_CONV": plan}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]


def test_unknown_plan_is_an_error():
    code = "from fastnn.kernels import conv2d; import numpy as np; conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))"
    env = {**os.environ, "FASTNN_CONV": "fastest"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    plans = f"{', '.join(PLANS[:-1])} or {PLANS[-1]}"
    assert f"FASTNN_CONV=fastest must be {plans}" in done.stderr


def test_many_outputs_of_one_channel_need_little_scratch():
    """4096 rows of dy for one of dx: a chunk of dy counts too. In a process of its own, for its peak of memory."""
    pytest.importorskip("resource")
    code = """
import resource, sys
import numpy as np
from fastnn import kernels
dy, w = np.ones((1, 4096, 64, 64), np.float32), np.ones((4096, 1, 1, 1), np.float32)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
dx = kernels.conv2d_backward_input(dy, w, (1, 1, 128, 128), stride=2)
assert (dx[0, 0, ::2, ::2] == 4096).all() and dx.sum() == dy.size
print((peak() - before) >> 20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32, "MB; dy itself holds 64"


def test_a_convolution_is_a_gemm(rng):
    x, w = rng.standard_normal((3, 5, 9, 8)), rng.standard_normal((7, 5, 3, 2))
    how = {"stride": (2, 1), "padding": 1, "dilation": (1, 2)}
    columns = kernels.unfold(x, (3, 2), **how)
    y = kernels.conv2d(x, w, **how)
    for n in range(3):
        product = kernels.gemm(w.reshape(7, -1), columns[n])
        np.testing.assert_allclose(product.reshape(y.shape[1:]), y[n], atol=1e-12)
    dy = rng.standard_normal(y.shape)
    dcolumns = np.stack([kernels.gemm(w.reshape(7, -1), d.reshape(7, -1), trans_a=True) for d in dy])
    dx = kernels.conv2d_backward_input(dy, w, x.shape, **how)
    np.testing.assert_allclose(kernels.fold(dcolumns, (9, 8), (3, 2), **how), dx, atol=1e-12)


def test_bias_gradient(rng):
    for shape in [(3, 4, 5, 7), (2, 3, 9, 33), (4, 5, 6), (0, 3, 4, 4), (2, 3, 0, 4)]:
        dy = rng.standard_normal(shape)
        axes = (0, 2, 3) if len(shape) == 4 else (1, 2)
        np.testing.assert_allclose(kernels.conv2d_backward_bias(dy), dy.sum(axes), atol=1e-12)


def test_out(rng):
    x, w = rng.standard_normal((2, 3, 6, 7)), rng.standard_normal((4, 3, 3, 3))
    y = kernels.conv2d(x, w)
    out = np.full(y.shape, np.nan)
    assert kernels.conv2d(x, w, out=out) is out
    np.testing.assert_array_equal(out, y)
    strided = np.full((*y.shape[:-1], 2 * y.shape[-1]), np.nan)[..., ::2]
    assert kernels.conv2d(x, w, out=strided) is strided
    np.testing.assert_array_equal(strided, y)
    dw = np.full(w.shape, np.nan)
    kernels.conv2d_backward_weight(y, x, w.shape, out=dw)
    dx = np.full(x.shape, np.nan)
    kernels.conv2d_backward_input(y, w, x.shape, out=dx)
    assert np.isfinite(dw).all() and np.isfinite(dx).all()
    overlapping = rng.standard_normal((1, 2, 5, 5))
    want = kernels.conv2d(overlapping, np.ones((2, 2, 1, 1)))
    np.testing.assert_array_equal(kernels.conv2d(overlapping, np.ones((2, 2, 1, 1)), out=overlapping), want)


X, WEIGHT = np.zeros((2, 3, 8, 9), np.float32), np.zeros((4, 3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.conv2d(X, np.zeros((4, 3, 9, 3), np.float32)), ValueError, r"height 8 \+ 0 of padding = 8"),
        (lambda: kernels.conv2d(X, WEIGHT, dilation=5), ValueError, r"5 \* \(3 - 1\) \+ 1 = 11"),
        (lambda: kernels.conv2d(X, np.zeros((4, 2, 3, 3), np.float32)), ValueError, r"3 channels.*2 \* 1 = 2"),
        (lambda: kernels.conv2d(X, np.zeros((4, 1, 3, 3), np.float32), groups=3), ValueError, "does not divide"),
        (lambda: kernels.conv2d(X, WEIGHT, groups=0), ValueError, "'groups' must be at least 1"),
        (lambda: kernels.conv2d(X, WEIGHT, groups=1.5), TypeError, "'groups' must be an int"),
        (lambda: kernels.conv2d(X, WEIGHT, stride=0), ValueError, "'stride' must be at least 1"),
        (lambda: kernels.conv2d(X, WEIGHT, dilation=(1, -1)), ValueError, "'dilation' must be at least 1"),
        (lambda: kernels.conv2d(X, WEIGHT, padding=-1), ValueError, "'padding' must be at least 0"),
        (lambda: kernels.conv2d(X, WEIGHT, padding="full"), ValueError, "'same', 'valid'"),
        (lambda: kernels.conv2d(X, WEIGHT, padding="same", stride=2), ValueError, "needs stride 1"),
        (lambda: kernels.conv2d(X, WEIGHT, padding=2**31), ValueError, "below 2"),
        (lambda: kernels.conv2d(X, WEIGHT, stride=2**70), ValueError, "below 2"),
        (lambda: kernels.conv2d(X, WEIGHT, stride=1.0), TypeError, "'stride' must be an int"),
        (lambda: kernels.conv2d(X, WEIGHT, np.zeros(3, np.float32)), ValueError, r"'bias' must be \(4,\)"),
        (lambda: kernels.conv2d(X, WEIGHT, activation="gelu"), ValueError, "'activation' must be"),
        (lambda: kernels.conv2d(X[0, 0], WEIGHT), ValueError, r"\(N, C, H, W\) or \(C, H, W\)"),
        (lambda: kernels.conv2d(X, WEIGHT[0]), ValueError, "weights must be"),
        (lambda: kernels.conv2d(X, np.zeros((4, 3, 0, 3), np.float32)), ValueError, "R, S >= 1"),
        (lambda: kernels.conv2d(X.astype(np.float64), WEIGHT), TypeError, "'x' is float64 but 'w' is float32"),
        (lambda: kernels.conv2d(X.astype(np.int32), WEIGHT), TypeError, "must be float32 or float64"),
        (lambda: kernels.conv2d(X, WEIGHT, out=np.zeros((2, 4, 6, 6), np.float32)), ValueError, "'out' must be"),
        (lambda: kernels.conv2d_backward_input(X, WEIGHT, X.shape), ValueError, r"'dy' must be \(2, 4, 6, 7\)"),
        (lambda: kernels.conv2d_backward_input(X, WEIGHT, (2, 3, -8, 9)), ValueError, "no negative size"),
        (lambda: kernels.conv2d_backward_weight(X, X, WEIGHT.shape), ValueError, r"'dy' must be \(2, 4, 6, 7\)"),
        (lambda: kernels.conv2d_backward_weight(X, X, "abc"), TypeError, "sequence of ints"),
        (lambda: kernels.conv2d_backward_bias(X[0, 0]), ValueError, "'dy' must be"),
        (lambda: kernels.unfold(X, 10), ValueError, "does not fit"),
        (lambda: kernels.unfold(X[0, 0], 2), ValueError, r"\(N, C, H, W\) or \(C, H, W\)"),
        (lambda: kernels.fold(np.zeros((2, 10, 4)), (3, 3), 2), ValueError, r"10 rows, not a multiple of 2 \* 2 = 4"),
        (lambda: kernels.fold(np.zeros((2, 8, 5)), (3, 3), 2), ValueError, r"2 \* 2 = 4 positions"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("x", "w"), [((16, 3, 0, 28), (8, 3, 5, 5)), ((16, 0, 12, 28), (8, 0, 5, 5))])
def test_nothing_but_padding_or_no_channels(x, w):
    """The bias alone; its batch would fill the lanes of a vector."""
    bias = np.arange(8, dtype=np.float32)
    x, w = np.zeros(x, np.float32), np.zeros(w, np.float32)
    y = kernels.conv2d(x, w, bias, padding=4)
    assert y.size and (y == bias[:, None, None]).all()
    dy = np.ones_like(y)
    assert kernels.conv2d_backward_input(dy, w, x.shape, padding=4).size == 0
    assert not kernels.conv2d_backward_weight(dy, x, w.shape, padding=4).any()
