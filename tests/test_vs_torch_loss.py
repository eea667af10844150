"""Losses against PyTorch, argument for argument: names, order, defaults, values, gradients; and their errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from test_vs_torch_activation import parameters

import fastnn
from fastnn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional

POINTWISE = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy"]
POINTWISE += ["binary_cross_entropy_with_logits", "hinge_embedding_loss"]
NAMES = [*POINTWISE, "cross_entropy", "nll_loss", "multi_margin_loss", "one_hot"]
REDUCTIONS = ["none", "mean", "sum"]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_have_torch_s_names_order_and_defaults(name):
    assert parameters(getattr(F, name)) == parameters(getattr(TF, name))


def to_torch(x, grad):
    return torch.from_numpy(np.array(x)).requires_grad_(grad) if isinstance(x, np.ndarray) else x


def assert_same(name, args, kwargs=None, grads=(0,), tolerance=16, check_gradient=True):
    """The same result and gradients as PyTorch, for Tensors; and the same result for plain arrays."""
    kwargs = kwargs or {}
    ours = [
        fastnn.from_numpy(x).requires_grad_(i in grads) if isinstance(x, np.ndarray) else x for i, x in enumerate(args)
    ]
    theirs = [to_torch(x, i in grads) for i, x in enumerate(args)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = getattr(F, name)(*ours, **kwargs)
        plain = getattr(F, name)(*args, **kwargs)
        want = getattr(TF, name)(*theirs, **{k: to_torch(v, False) for k, v in kwargs.items()})
    dtype = args[0].dtype
    eps = tolerance * np.finfo(dtype).eps if dtype.kind == "f" else 0
    assert y.array.tobytes() == plain.tobytes()
    assert plain.shape == tuple(want.shape) and str(plain.dtype) == str(want.dtype).removeprefix("torch.")
    finite = np.abs(want.detach().numpy()[np.isfinite(want.detach().numpy())])
    scale = max(1.0, float(finite.max(initial=0)))
    np.testing.assert_allclose(plain, want.detach().numpy(), rtol=eps, atol=eps * scale)
    if not check_gradient:
        return
    dy = np.random.default_rng(3).standard_normal(plain.shape).astype(dtype)
    y.backward(dy)
    want.backward(torch.from_numpy(dy))
    for i in grads:
        got, expected = ours[i].grad.numpy(), theirs[i].grad.numpy()
        scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
        np.testing.assert_allclose(got, expected, rtol=eps, atol=eps * scale, err_msg=f"gradient of argument {i}")


SHAPES = [(10,), (64, 10), (5, 3), (1, 1), (7, 100), (2, 5, 19), (3, 4, 2, 5), (2, 3, 2, 2, 3), (0, 4), (2, 3, 0)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_and_nll_loss(shape, reduction, dtype, rng):
    x = (rng.standard_normal(shape) * 3).astype(dtype)
    classes = shape[0] if len(shape) == 1 else shape[1]
    rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
    t = np.asarray(rng.integers(0, classes, rows))
    weight = rng.uniform(0, 2, classes).astype(dtype)
    options = [{}, {"weight": weight}, {"ignore_index": 0}, {"weight": weight, "ignore_index": classes - 1}]
    for option in options:
        assert_same("nll_loss", (x, t), option | {"reduction": reduction})
        for smoothing in (0.0, 0.1, 1.0):
            all_ignored = t.size and (t == option.get("ignore_index", -100)).all()
            assert_same(
                "cross_entropy",
                (x, t),
                option | {"reduction": reduction, "label_smoothing": smoothing},
                tolerance=64,
                check_gradient=not (all_ignored and smoothing),
            )


@pytest.mark.parametrize("shape", [(10,), (64, 10), (5, 33), (2, 5, 19), (3, 4, 2, 5), (0, 4)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_with_probabilities(shape, reduction, dtype, rng):
    x = (rng.standard_normal(shape) * 3).astype(dtype)
    t = rng.uniform(0, 1, shape).astype(dtype)
    weight = rng.uniform(0, 2, shape[0] if len(shape) == 1 else shape[1]).astype(dtype)
    for option in [{}, {"weight": weight}, {"label_smoothing": 0.2, "weight": weight}, {"label_smoothing": 1.0}]:
        assert_same("cross_entropy", (x, t), option | {"reduction": reduction}, (0, 1), tolerance=64)


def test_cross_entropy_of_strided_and_extreme_logits(rng):
    x = rng.standard_normal((5, 40, 6)).astype(np.float32)
    t = rng.integers(0, 40, (6, 5))
    assert_same("cross_entropy", (x.transpose(2, 1, 0)[:, ::-1], t), tolerance=32)
    assert_same("cross_entropy", (x[:, :, 0][::2, ::-1], t[0, ::2]), tolerance=32)
    big = np.array([[1e4, 9.999e3, 0], [-1e30, 1e30, 0], [-np.inf, 0, 1], [0, -np.inf, 1]], np.float32)
    assert_same("cross_entropy", (big, np.array([1, 1, 0, 2])), {"reduction": "none"}, tolerance=32)
    assert_same("cross_entropy", (np.array([[np.nan, 1], [1, 2]], np.float32), np.array([0, 1])), {"reduction": "none"})


def test_all_ignored_is_nan_and_its_gradient_zero():
    x = fastnn.ones(3, 4, requires_grad=True)
    loss = F.cross_entropy(x, np.full(3, -100))
    loss.backward()
    assert np.isnan(loss.item()) and not x.grad.array.any()
    assert np.isnan(F.nll_loss(x.detach(), np.full(3, -100)).item())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
def test_labels_of_any_integer_type_that_fits_int64(dtype, rng):
    x, t = rng.standard_normal((6, 5)).astype(np.float32), np.array([0, 1, 2, 3, 4, 0])
    assert F.cross_entropy(x, t.astype(dtype)) == F.cross_entropy(x, t)


X = np.zeros((2, 3), np.float32)
ERRORS = [
    (lambda f: f(X, np.array([0, 3])), ValueError, r"label 3 at position \(1\).* 3 classes, so labels are 0\.\.2"),
    (lambda f: f(X, np.array([-1, 0])), ValueError, r"label -1 at position \(0\)"),
    (lambda f: f(X, np.array([2**62, 0])), ValueError, "label 4611686018427387904"),
    (lambda f: f(np.zeros((2, 3, 4), np.float32), np.full((2, 4), 5)), ValueError, r"position \(0, 0\)"),
    (lambda f: f(np.zeros(3, np.float32), np.array(3)), ValueError, r"label 3 at position \(\)"),
    (lambda f: f(X, np.array([0, np.nan])), TypeError, r"NaN.*astype\(numpy.int64\)"),
    (lambda f: f(X, np.array([True, False])), TypeError, "int64 labels, got bool"),
    (lambda f: f(X, np.array([0, 1, 2])), ValueError, r"'input' \(2, 3\) needs a 'target' of shape \(2,\).*got \(3,\)"),
    (lambda f: f(X, np.array([[0], [1]])), ValueError, r"shape \(2,\)"),
    (lambda f: f(np.float32(1.0), np.array(0)), ValueError, "0-d array"),
    (lambda f: f(X, np.array([0, 1]), np.ones(2, np.float32)), ValueError, r"'weight' must be \(3,\)"),
    (lambda f: f(X, np.array([0, 1]), np.ones(3)), TypeError, "'x' is float32 but 'weight' is float64"),
    (lambda f: f(X, np.array([0, 1]), reduction="avg"), ValueError, "'none', 'mean' or 'sum', got 'avg'"),
    (lambda f: f(X, np.array([0, 1]), size_average=True), ValueError, "use reduction="),
    (lambda f: f(X, np.array([0, 1]), reduce=False), ValueError, "use reduction="),
    (lambda f: f(X, np.array([0, 1]), fastnn.ones(3, requires_grad=True)), ValueError, "no gradient.*weight"),
    (lambda f: f(X, [0, 1]), TypeError, "'target' must be an array"),
    (lambda f: f(None, np.array([0, 1])), TypeError, "'x' must be an array"),
    (lambda f: f(X.astype(np.int64), np.array([0, 1])), TypeError, "float32 or float64"),
    (lambda f: f(X, np.array([0, 1]), ignore_index=2**70), ValueError, "out of range"),
]


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("call, error, text", ERRORS)
def test_bad_labels_and_arguments(name, call, error, text):
    with pytest.raises(error, match=text):
        call(getattr(F, name))


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: F.cross_entropy(X, X.astype(np.int64)), TypeError, "must be class probabilities"),
        (lambda: F.cross_entropy(X, X.astype(np.float64)), TypeError, "'input' is float32 but 'target'"),
        (lambda: F.cross_entropy(X, X, ignore_index=1), ValueError, "ignore_index 1 needs labels"),
        (lambda: F.cross_entropy(X, np.array([0, 1]), label_smoothing=1.5), ValueError, r"in \[0, 1\], got 1.5"),
        (lambda: F.cross_entropy(X, np.array([0, 1]), label_smoothing=float("nan")), ValueError, "label_smoothing"),
    ],
)
def test_bad_probabilities_and_smoothing(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_probabilities_with_nan_pass_it_on():
    t = np.full((2, 3), 1 / 3, np.float32)
    t[1, 2] = np.nan
    assert np.isnan(F.cross_entropy(X, t, reduction="none")).tolist() == [False, True]


def targets(name, rng, shape, dtype):
    if name == "hinge_embedding_loss":
        return rng.choice([-1.0, 1.0], shape).astype(dtype)
    if name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        return np.asarray(rng.standard_normal(shape), dtype)
    return np.asarray(rng.uniform(0.01, 1, shape), dtype)


EXTRA = {
    "mse_loss": [],
    "l1_loss": [],
    "smooth_l1_loss": [{"beta": 0.3}, {"beta": 0.0}],
    "huber_loss": [{"delta": 0.3}],
    "kl_div": [{"log_target": True}],
    "binary_cross_entropy": [],
    "binary_cross_entropy_with_logits": [],
    "hinge_embedding_loss": [{"margin": 0.2}],
}


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (33,), (4, 5), (2, 3, 4), (0,), (2, 0)])
def test_pointwise(name, dtype, shape, rng):
    x = rng.uniform(0.01, 0.99, shape) if name == "binary_cross_entropy" else rng.standard_normal(shape)
    x, t = np.asarray(x, dtype), targets(name, rng, shape, dtype)
    grads = (0,) if name == "hinge_embedding_loss" else (0, 1)
    for reduction in REDUCTIONS + (["batchmean"] if name == "kl_div" and shape[:1] != (0,) else []):
        for extra in [{}, *EXTRA[name]]:
            assert_same(name, (x, t), extra | {"reduction": reduction}, grads, tolerance=64)
        if "weight" in dict(parameters(getattr(TF, name))):
            weight = rng.uniform(0.5, 2, shape).astype(dtype)
            assert_same(name, (x, t), {"weight": np.asarray(weight), "reduction": reduction}, grads, tolerance=64)
        if name == "binary_cross_entropy_with_logits" and shape:
            weight = {"pos_weight": rng.uniform(0.5, 3, shape[-1:]).astype(dtype), "reduction": reduction}
            assert_same(name, (x, t), weight, grads, tolerance=64)
    if len(shape) > 1:
        assert_same(name, (x.swapaxes(0, 1)[::-1], t.swapaxes(0, 1)[::-1]), {}, grads, tolerance=64)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div"])
def test_targets_broadcast_as_in_torch(name, rng):
    x = rng.standard_normal((4, 1, 3)).astype(np.float32)
    t = rng.uniform(0.1, 1, (5, 1)).astype(np.float32)
    for reduction in REDUCTIONS:
        assert_same(name, (x, t), {"reduction": reduction}, (0, 1), tolerance=64)
    if name != "kl_div":
        with pytest.warns(UserWarning, match=f"{name}: 'target' .* is broadcast"):
            getattr(F, name)(x, t)


def test_extreme_probabilities_and_logits():
    x = np.array([0.0, 1.0, 0.0, 1.0, 1e-30, 0.5], np.float32)
    t = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.5], np.float32)
    assert_same("binary_cross_entropy", (x, t), {"reduction": "none"})
    z = np.array([0, 1e4, -1e4, 1e4, -1e4, -90], np.float32)
    assert_same("binary_cross_entropy_with_logits", (z, t), {"reduction": "none"})
    weight = {"reduction": "none", "pos_weight": np.array(3, np.float32)}
    assert_same("binary_cross_entropy_with_logits", (z, t), weight)
    kl = np.array([0.0, 0.0, 0.5, 1.0, 0.0, 0.1], np.float32)
    assert_same("kl_div", (np.log(np.float32([0.1, 0.2, 0.3, 0.2, 0.1, 0.1])), kl), {"reduction": "none"})


@pytest.mark.parametrize("shape", [(6,), (5, 7), (4, 1)])  # PyTorch leaves the result of an empty batch unwritten
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_multi_margin_loss(shape, p, reduction, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    t = np.asarray(rng.integers(0, shape[-1], shape[:-1]))
    weight = rng.uniform(0.5, 2, shape[-1]).astype(np.float32)
    for option in [{}, {"margin": 0.4}, {"weight": weight}]:
        assert_same("multi_margin_loss", (x, t), option | {"p": p, "reduction": reduction}, tolerance=32)


@pytest.mark.parametrize("labels, classes", [([0, 2, 1], -1), ([[0, 2], [1, 4]], 5), (3, 4), ([], 3), ([[]], 2)])
def test_one_hot(labels, classes):
    labels = np.array(labels, np.int64)
    assert_same("one_hot", (labels, classes), grads=(), check_gradient=False)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: F.one_hot(np.array([0, 3]), 3), ValueError, r"label 3 at position \(1,\) must be in 0\.\.2"),
        (lambda: F.one_hot(np.array([0, -3])), ValueError, "label -3 .* not be negative"),
        (lambda: F.one_hot(np.array([], np.int64)), ValueError, "pass num_classes"),
        (lambda: F.one_hot(np.array([0]), 0), ValueError, "num_classes must be positive"),
        (lambda: F.one_hot(np.array([0.0])), TypeError, "labels must be int64, got float64"),
        (lambda: F.mse_loss(X, np.zeros((4, 3), np.float32)), ValueError, r"\(2, 3\) and 'target' \(4, 3\)"),
        (lambda: F.mse_loss(X, np.zeros((2, 3))), TypeError, "'input' is float32 but 'target' is float64"),
        (lambda: F.mse_loss(X, X, weight=np.ones(3, np.float32)), ValueError, r"'weight' \(3,\) must have the shape"),
        (lambda: F.mse_loss(X, None), TypeError, "'target' must be a tensor or an array, got NoneType"),
        (lambda: F.l1_loss(X, X, True), ValueError, "use reduction="),
        (lambda: F.huber_loss(X, X, delta=0), ValueError, "delta must be positive"),
        (lambda: F.smooth_l1_loss(X, X, beta=-1), ValueError, "beta must not be negative"),
        (lambda: F.binary_cross_entropy(X + 1.5, X), ValueError, r"in \[0, 1\], got 1.5"),
        (lambda: F.binary_cross_entropy(X, X[:1]), ValueError, "must have the shape of 'input'"),
        (lambda: F.binary_cross_entropy_with_logits(X, X, pos_weight=np.ones(2, np.float32)), ValueError, "broadcast"),
        (lambda: F.kl_div(X, X, reduction="median"), ValueError, "'batchmean'"),
        (lambda: F.multi_margin_loss(X, np.array([0, 3])), ValueError, "label 3 at position"),
        (lambda: F.multi_margin_loss(X, np.array([0, 1]), p=3), ValueError, "p must be 1 or 2"),
        (lambda: F.hinge_embedding_loss(X, [1, 1, 1]), TypeError, "'target' must be"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()
