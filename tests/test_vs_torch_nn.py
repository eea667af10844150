"""Layers and losses against PyTorch's: keys, repr, result, gradients, with PyTorch's weights loaded."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import nn

torch = pytest.importorskip("torch")

IMAGE, VECTORS = (3, 4, 9, 8), (5, 6)

LAYERS = [
    ("Linear", (6, 3), {}, VECTORS),
    ("Linear", (6, 3), {"bias": False}, (2, 3, 6)),
    ("Linear", (6, 3), {}, (6,)),
    ("Conv2d", (4, 6, 3), {}, IMAGE),
    ("Conv2d", (4, 6, 3), {}, IMAGE[1:]),
    ("Conv2d", (4, 6, (3, 2), 2), {"padding": 1, "groups": 2, "bias": False}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": "same", "dilation": 2}, IMAGE),
    ("Conv2d", (4, 6, 4), {"padding": "valid"}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": (2, 1), "padding_mode": "reflect"}, IMAGE),
    ("Conv2d", (4, 6, (4, 3)), {"padding": "same", "padding_mode": "circular"}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": 2, "padding_mode": "replicate", "stride": 2}, IMAGE),
    ("MaxPool2d", (2,), {}, IMAGE),
    ("MaxPool2d", (3, 2), {"padding": 1, "ceil_mode": True, "dilation": 2}, IMAGE),
    ("AvgPool2d", (2,), {}, IMAGE),
    ("AvgPool2d", (3, 2, 1), {"count_include_pad": False, "ceil_mode": True}, IMAGE),
    ("AvgPool2d", (3,), {"divisor_override": 5}, IMAGE),
    ("AdaptiveAvgPool2d", ((2, None),), {}, IMAGE),
    ("AdaptiveMaxPool2d", (3,), {}, IMAGE),
    ("ReLU", (), {}, VECTORS),
    ("ReLU", (), {"inplace": True}, VECTORS),
    ("LeakyReLU", (0.2,), {}, VECTORS),
    ("ELU", (0.7,), {}, VECTORS),
    ("SELU", (), {}, VECTORS),
    ("GELU", (), {}, VECTORS),
    ("GELU", ("tanh",), {}, VECTORS),
    ("SiLU", (), {}, VECTORS),
    ("Softplus", (), {"beta": 2.0, "threshold": 3.0}, VECTORS),
    ("Sigmoid", (), {}, VECTORS),
    ("Tanh", (), {}, VECTORS),
    ("Softmax", (1,), {}, VECTORS),
    ("LogSoftmax", (), {"dim": -1}, VECTORS),
    ("BatchNorm1d", (6,), {}, VECTORS),
    ("BatchNorm1d", (6,), {"momentum": None}, (4, 6, 3)),
    ("BatchNorm2d", (4,), {"eps": 1e-3, "momentum": 0.3}, IMAGE),
    ("BatchNorm2d", (4,), {"affine": False}, IMAGE),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, IMAGE),
    ("LayerNorm", (6,), {}, VECTORS),
    ("LayerNorm", ([9, 8],), {"bias": False}, IMAGE),
    ("LayerNorm", (6,), {"elementwise_affine": False, "eps": 0.1}, VECTORS),
    ("LocalResponseNorm", (3,), {"alpha": 0.1, "beta": 0.5, "k": 2.0}, IMAGE),
    ("Dropout", (0.0,), {}, VECTORS),
    ("Dropout", (1.0,), {}, VECTORS),
    ("Dropout2d", (0.0,), {}, IMAGE),
    ("Flatten", (), {}, IMAGE),
    ("Flatten", (0, 1), {}, IMAGE),
    ("Unflatten", (1, (2, 3)), {}, VECTORS),
    ("Identity", (), {}, VECTORS),
    ("ZeroPad2d", (2,), {}, IMAGE),
    ("ZeroPad2d", ((1, 2, 3, 0),), {}, IMAGE),
    ("Unfold", ((3, 2),), {"stride": 2, "padding": 1}, IMAGE),
    ("Fold", ((5, 6), (3, 2)), {"padding": 1}, (2, 12, 35)),
]


def both(name, args, kwargs):
    a, b = getattr(nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    a.load_state_dict(b.state_dict())
    return a, b


def close(x, y):
    x = x.array if isinstance(x, fastnn.Tensor) else x
    np.testing.assert_allclose(x, y.detach().numpy(), rtol=2e-5, atol=2e-5)


def compare_gradients(y, t, ours, theirs):
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    y.backward(dy)
    t.backward(torch.tensor(dy))
    for x, z in zip(ours, theirs):
        assert (x.grad is None) == (z.grad is None)
        if x.grad is not None:
            close(x.grad, z.grad)


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAYERS)
def test_layer(name, args, kwargs, shape, rng):
    torch.manual_seed(0)
    a, b = both(name, args, kwargs)
    assert list(a.state_dict()) == list(b.state_dict())
    assert [n for n, _ in a.named_parameters()] == [n for n, _ in b.named_parameters()]
    if "Norm" not in name:  # PyTorch's versions differ in theirs
        assert repr(a) == repr(b)
    for training in (True, True, False):  # batch norm moves twice
        a.train(training), b.train(training)
        data = rng.standard_normal(shape).astype(np.float32)
        x, z = fastnn.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
        a.zero_grad(), b.zero_grad()
        # Neither changes a leaf that requires grad in place.
        y, t = (m(v.clone() if kwargs.get("inplace") else v) for m, v in ((a, x), (b, z)))
        close(y, t)
        compare_gradients(y, t, [x, *a.parameters()], [z, *b.parameters()])
        for value, other in zip(a.state_dict().values(), b.state_dict().values()):
            close(value, other)
            assert value.dtype == other.numpy().dtype


def classes(rng, shape, count):
    return rng.integers(0, count, shape)


LOSSES = [
    ("CrossEntropyLoss", {}, (5, 4), "classes"),
    ("CrossEntropyLoss", {"ignore_index": 1, "label_smoothing": 0.1}, (5, 4, 3), "classes"),
    ("CrossEntropyLoss", {"weight": 4, "label_smoothing": 0.2}, (5, 4), "classes"),
    ("CrossEntropyLoss", {"weight": 4}, (5, 4), "probabilities"),
    ("NLLLoss", {"weight": 4, "ignore_index": 2}, (5, 4), "classes"),
    ("MSELoss", {}, (5, 4), "real"),
    ("L1Loss", {}, (5, 4), "real"),
    ("SmoothL1Loss", {"beta": 0.5}, (5, 4), "real"),
    ("HuberLoss", {"delta": 0.7}, (5, 4), "real"),
    ("KLDivLoss", {}, (5, 4), "probabilities"),
    ("KLDivLoss", {"log_target": True}, (5, 4), "real"),
    ("BCELoss", {"weight": 4}, (5, 4), "unit"),
    ("BCEWithLogitsLoss", {"pos_weight": 4}, (5, 4), "unit"),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5, "weight": 4}, (5, 4), "classes"),
    ("MultiMarginLoss", {}, (5, 4), "classes"),
    ("HingeEmbeddingLoss", {"margin": 0.5}, (5, 4), "sign"),
]


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # PyTorch on KLDivLoss
@pytest.mark.parametrize(
    ("name", "options", "shape", "kind", "reduction"),
    [
        (*loss, reduction)
        for loss in LOSSES
        for reduction in ("mean", "sum", "none", *(["batchmean"] if loss[0] == "KLDivLoss" else []))
    ],
)
def test_loss(name, options, shape, kind, reduction, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    if name == "BCELoss":
        x = 1 / (1 + np.exp(-x))
    target = {
        "classes": rng.integers(0, shape[1], (shape[0], *shape[2:])),
        "probabilities": rng.dirichlet(np.ones(shape[1]), shape[0]).astype(np.float32),
        "real": rng.standard_normal(shape).astype(np.float32),
        "unit": rng.random(shape).astype(np.float32),
        "sign": rng.choice(np.float32([-1, 1]), shape),
    }[kind]
    vectors = {k: rng.random(v).astype(np.float32) for k, v in options.items() if k.endswith("weight")}
    plain = {k: v for k, v in options.items() if k not in vectors}
    a = getattr(nn, name)(**plain, **{k: fastnn.tensor(v) for k, v in vectors.items()}, reduction=reduction)
    b = getattr(torch.nn, name)(**plain, **{k: torch.tensor(v) for k, v in vectors.items()}, reduction=reduction)
    assert list(a.state_dict()) == list(b.state_dict()) and repr(a) == repr(b)
    p, q = fastnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, t = a(p, fastnn.tensor(target)), b(q, torch.tensor(target))
    close(y, t)
    compare_gradients(y, t, [p], [q])


def test_repr_of_a_network():
    def net(m):
        class Net(m.Module):
            def __init__(self):
                super().__init__()
                self.features = m.Sequential(m.Conv2d(1, 2, 3), m.Sequential(m.ReLU()), m.Sequential())
                self.parts = m.ModuleDict({"a": m.Tanh()})
                self.parts["b"] = m.ModuleList([m.Sigmoid(), m.Tanh()])

        return Net()

    assert repr(net(nn)) == repr(net(torch.nn))


@pytest.mark.parametrize("norm_type", [2, 1, 3, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_clip_grad_norm(norm_type, max_norm, rng):
    ours, theirs = [], []
    for shape in ((3, 4), (), (7,)):
        g = rng.standard_normal(shape).astype(np.float32)
        ours.append(nn.Parameter(g.copy()))
        theirs.append(torch.nn.Parameter(torch.tensor(g)))
        ours[-1].grad, theirs[-1].grad = fastnn.tensor(g), torch.tensor(g)
    a = nn.utils.clip_grad_norm_([*ours, nn.Parameter(np.ones(2))], max_norm, norm_type)
    close(a, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type))
    for p, q in zip(ours, theirs):
        close(p.grad, q.grad)
    nn.utils.clip_grad_value_(ours, 0.1)
    torch.nn.utils.clip_grad_value_(theirs, 0.1)
    for p, q in zip(ours, theirs):
        close(p.grad, q.grad)
    ours[0].grad.array[0, 0] = np.nan
    assert np.isnan(nn.utils.clip_grad_norm_(ours, 1.0, norm_type).item())
    with pytest.raises(RuntimeError, match="nan"):
        nn.utils.clip_grad_norm_(ours, 1.0, norm_type, error_if_nonfinite=True)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "linear", "conv2d", "selu", "leaky_relu"])
def test_gain(name):
    assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
