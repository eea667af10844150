"""CUDA convolution beyond its records: every plan, tile and precision, forced on odd shapes, against CPU float64."""

from types import SimpleNamespace

import numpy as np
import pytest

import fastnn
from fastnn import kernels
from fastnn.cuda import conv, precision
from fastnn.cuda.conv_tiles import FORWARD, WEIGHT

# N, C, H, W, K, R, S, and the arguments. Each row is there for what its comment says.
CASES = [
    ((2, 9, 7, 6, 70, 3, 3), {"padding": 1}),  # K and positions beyond a tile, runs of channels that do not fit
    ((2, 20, 8, 8, 17, 3, 3), {"padding": 1}),  # maps of whole packs; rows of zeros in the tile of weights
    ((1, 3, 13, 15, 5, 3, 5), {"stride": (2, 3), "padding": (1, 2)}),  # few channels; phases of strides
    ((2, 8, 9, 7, 10, 3, 2), {"dilation": (2, 3), "padding": (2, 1), "groups": 2}),
    ((2, 4, 7, 9, 6, 2, 3), {"stride": (4, 2), "dilation": (2, 1)}),  # phases that no tap meets
    ((1, 130, 4, 5, 12, 1, 1), {}),  # many steps, a 1 x 1 kernel
    ((3, 2, 6, 7, 3, 2, 2), {"padding": "same"}),
]
DEEP = ((30, 5, 6, 6, 7, 3, 3), {"padding": 1})  # positions enough for several parts of the weights' gradient
DEPTHWISE = [
    ((2, 5, 8, 7, 5, 3, 3), {"groups": 5, "padding": 1}),
    ((5, 3, 9, 8, 6, 3, 2), {"groups": 3, "stride": 2, "dilation": (1, 2), "padding": 2}),
]
# Error of a sum in units of float's epsilon times its largest magnitude: that of the operands' rounding.
TOLERANCE = {"highest": 30.0, "high": 60.0, "medium": 4.0 * 2**12, "bfloat16": 4.0 * 2**15}


@pytest.fixture
def device(gpu):
    """Not the CPU, whose kernels are the reference."""
    return gpu


@pytest.fixture
def forced(monkeypatch):
    """A function that makes every layer use one plan, and one row of the tables of tiles."""

    def force(plan, row=0):
        monkeypatch.setattr(conv, "planned", lambda g, t, weight=False: plan if g.taps else "direct")
        for name, table in (("forward_row", FORWARD), ("weight_row", WEIGHT)):
            pick = lambda p, dtype, g, table=table: table[p, dtype][row % len(table[p, dtype])]  # noqa: E731
            monkeypatch.setattr(conv, name, pick)

    return force


def arrays(rng, case, dtype):
    (n, c, h, w, k, r, s), how = case
    x = rng.standard_normal((n, c, h, w)).astype(dtype)
    weight = rng.standard_normal((k, c // how.get("groups", 1), r, s)).astype(dtype)
    bias = rng.standard_normal(k).astype(dtype)
    y = kernels.conv2d(x, weight, bias, **how)
    return x, weight, bias, rng.standard_normal(y.shape).astype(dtype), how


def passes(x, weight, bias, dy, how):
    y = kernels.conv2d(x, weight, bias, **how)
    relu = kernels.conv2d(x, weight, bias, activation="relu", **how)
    dx = kernels.conv2d_backward_input(dy, weight, x.shape, **how)
    dw = kernels.conv2d_backward_weight(dy, x, weight.shape, **how)
    return y, relu, dx, dw, kernels.conv2d_backward_bias(dy)


def check(device, rng, case, dtype=np.float32, tolerance=TOLERANCE["highest"]):
    *inputs, how = arrays(rng, case, dtype)
    want = passes(*(a.astype(np.float64) for a in inputs), how)
    got = [device.get(a) for a in passes(*map(device.put, inputs), how)]
    for name, g, w in zip(("y", "relu(y)", "dx", "dw", "db"), got, want):
        limit = tolerance * np.finfo(dtype).eps * max(1.0, np.abs(w).max(initial=0))
        np.testing.assert_allclose(g, w, rtol=0, atol=limit, err_msg=f"{name} {case}")
    return got


@pytest.mark.parametrize("row", range(max(len(rows) for rows in (*FORWARD.values(), *WEIGHT.values()))))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_tile(device, rng, forced, row, dtype):
    forced("gemm", row)
    for case in (*CASES, DEEP):
        check(device, rng, case, dtype)


@pytest.mark.parametrize("chosen", ["high", "medium", "bfloat16"])
def test_every_precision(device, rng, forced, chosen, monkeypatch):
    monkeypatch.setattr(conv, "precision_on", lambda gpu, op, dtype: chosen)
    for row in range(len(FORWARD[chosen, "float32"])):
        forced("gemm", row)
        for case in (*CASES, DEEP):
            check(device, rng, case, tolerance=TOLERANCE[chosen])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_plain_kernels(device, rng, dtype, monkeypatch):
    """FASTNN_CONV=direct is the plain kernel in every pass."""
    monkeypatch.setenv("FASTNN_CONV", "direct")
    monkeypatch.setattr(conv, "planned", lambda *_: pytest.fail("FASTNN_CONV chooses"))
    for case in (*CASES, DEEP, *DEPTHWISE):
        check(device, rng, case, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_depthwise(device, rng, forced, dtype):
    for case in DEPTHWISE:
        check(device, rng, case, dtype)
        g = conv.forward_gather((2, 5, 8, 7), (5, 1, 3, 3), (2, 5, 8, 7), (1, 1, 1, 1, 1, 1, 5))
        assert conv.planned(g, "float") == conv.planned(g, "float", weight=True) == "depthwise"


@pytest.mark.parametrize("name, block", [(name, block) for name, blocks in conv.SMALL.items() for block in blocks])
def test_every_block_of_few_channels(device, rng, forced, name, block, monkeypatch):
    dtype = {"float": np.float32, "double": np.float64}[name]
    monkeypatch.setitem(conv.SMALL, name, (block,))
    conv.small_block.cache_clear()
    monkeypatch.setattr(
        conv, "planned", lambda g, t, weight=False: "small" if not weight and conv.small_block(g, t) else "direct"
    )
    for case in CASES:
        check(device, rng, case, dtype)
    conv.small_block.cache_clear()


def test_the_nets_layers_take_the_plans_made_for_them():
    def plans(x, w, y, stride=1, padding=0):
        numbers = (stride, stride, padding, padding, 1, 1, 1)
        forward, (back, *_) = conv.forward_gather(x, w, y, numbers), conv.input_gathers(x, w, y, numbers)
        return conv.planned(forward, "float"), conv.planned(back, "float"), conv.planned(forward, "float", weight=True)

    assert plans((64, 1, 28, 28), (6, 1, 5, 5), (64, 6, 28, 28), padding=2)[0] == "small"
    assert plans((64, 6, 14, 14), (16, 6, 5, 5), (64, 16, 10, 10)) == ("small", "small", "gemm")
    assert plans((64, 3, 32, 32), (64, 3, 3, 3), (64, 64, 32, 32), padding=1)[0] == "small"
    assert plans((64, 192, 8, 8), (384, 192, 3, 3), (64, 384, 8, 8), padding=1) == ("gemm", "gemm", "gemm")
    assert plans((8, 3, 227, 227), (64, 3, 11, 11), (8, 64, 55, 55), stride=4)[0] == "gemm"


@pytest.mark.parametrize("groups", [4, 2])
def test_groups_of_few_channels(device, rng, groups):
    """As the table plans them: bands in shared memory, the plain kernel, and a GEMM for each group's weights."""
    for channels in (4, 2):
        check(device, rng, ((3, 8, 7, 9, channels * groups, 3, 3), {"groups": groups, "padding": 1}))


def test_the_weights_gradient_is_cut_by_shape(device, rng, forced):
    """In the order of its parts, whatever the order in which blocks run; and there are several."""
    forced("gemm", 1)
    *inputs, how = arrays(rng, DEEP, np.float32)
    inputs = [device.put(a) for a in inputs]
    bits = set()
    for order in ("forward", "reverse"):
        with device.schedule(blocks=order):
            bits.add(b"".join(device.get(a).tobytes() for a in passes(*inputs, how)))
    assert len(bits) == 1
    assert conv.parts_of(30 * 36, 1, conv.LEAST_PART) > 1


def test_extreme_geometry(device):
    x, w = device.put(np.full((1, 1, 1, 1), 2.0)), device.put(np.arange(1.0, 10).reshape(1, 1, 3, 3))
    dy = device.put(np.ones((1, 1, 1, 1)))
    how = {"padding": 2**28, "dilation": 2**28}
    assert kernels.conv2d(x, w, **how).item() == 10.0
    assert kernels.conv2d_backward_input(dy, w, x.shape, **how).item() == 5.0
    assert device.get(kernels.conv2d_backward_weight(dy, x, w.shape, **how)).sum() == 2.0


def test_precision_needs_its_tensor_cores():
    old = SimpleNamespace(arch=75, label="cuda:0")
    before = fastnn.get_float32_matmul_precision()
    try:
        fastnn.set_float32_matmul_precision("high")
        with pytest.raises(RuntimeError, match="conv2d: precision 'high' needs tensor cores"):
            precision.precision_on(old, "conv2d", np.dtype(np.float32))
        assert precision.precision_on(old, "conv2d", np.dtype(np.float64)) == "highest"
    finally:
        fastnn.set_float32_matmul_precision(before)
