"""Convolution, unfold and fold against PyTorch, argument for argument."""

import numpy as np
import pytest
from records import conv as records

import fastnn
from fastnn import functional as F

torch = pytest.importorskip("torch")


def compare(ours, theirs, args, kwargs, differentiable):
    mine = [fastnn.tensor(a, requires_grad=i in differentiable) if isinstance(a, np.ndarray) else a
            for i, a in enumerate(args)]  # fmt: skip
    other = [torch.tensor(a, requires_grad=i in differentiable) if isinstance(a, np.ndarray) else a
             for i, a in enumerate(args)]  # fmt: skip
    y, want = ours(*mine, **kwargs), theirs(*other, **kwargs)
    assert y.shape == tuple(want.shape)
    np.testing.assert_allclose(y.detach().numpy(), want.detach().numpy(), rtol=1e-9, atol=1e-9)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(dy)
    want.backward(torch.tensor(dy))
    for i in differentiable:
        if i < len(args) and other[i].grad is not None:
            np.testing.assert_allclose(mine[i].grad.numpy(), other[i].grad.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch on uneven 'same' padding
@pytest.mark.parametrize(
    ("ours", "theirs", "samples", "differentiable"),
    [
        (F.conv2d, torch.nn.functional.conv2d, records.conv2d_samples, (0, 1, 2)),
        (F.conv1d, torch.nn.functional.conv1d, records.conv1d_samples, (0, 1, 2)),
        (F.unfold, torch.nn.functional.unfold, records.unfold_samples, (0,)),
        (F.fold, torch.nn.functional.fold, records.fold_samples, (0,)),
    ],
)
def test_same_as_torch(ours, theirs, samples, differentiable, rng):
    for sample in samples(rng):
        shapes = [a.shape for a in sample.args if isinstance(a, np.ndarray)]
        if any(0 in shape[-3:] for shape in shapes) or 0 in shapes[-1]:
            continue  # PyTorch accepts an empty batch, but no empty channels
        compare(ours, theirs, sample.args, sample.kwargs, differentiable)


@pytest.mark.parametrize(
    "shape",
    [
        (8, 64, 16, 16, 96, 3),
        (4, 192, 13, 13, 64, 3),
        (16, 256, 8, 8, 32, 3),
        (16, 3, 32, 32, 64, 3),
        (2, 16, 28, 28, 32, 5),
        (4, 64, 27, 27, 64, 5),
        (16, 256, 7, 7, 32, 5),
        (64, 1, 28, 28, 6, 5),
        (64, 6, 14, 14, 16, 5),
        (32, 12, 11, 9, 8, 5),
        (4, 3, 99, 103, 32, 11, 4),
        (4, 8, 32, 30, 32, 5, 2),
    ],
)
def test_error_of_winograd_beside_torch(shape, rng):
    """Root mean square and largest error against float64, forward, dx and dw: at most 4 times PyTorch's."""
    n, c, h, w, k, r, stride = (*shape, 1)[:7]
    p = r // 2
    dy_shape = (n, k, *((size + 2 * p - r) // stride + 1 for size in (h, w)))
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((n, c, h, w), (k, c, r, r), dy_shape)]

    def all_passes(x, weight, dy):
        y = torch.nn.functional.conv2d(x, weight, padding=p, stride=stride)
        dx, dw, _ = torch.ops.aten.convolution_backward(
            dy, x, weight, None, [stride] * 2, [p, p], [1, 1], False, [0, 0], 1, [True, True, False]
        )
        return y, dx, dw

    exact = all_passes(*(torch.from_numpy(a).double() for a in arrays))
    peer = all_passes(*map(torch.from_numpy, arrays))
    x, weight, dy = arrays
    ours = (
        fastnn.kernels.conv2d(x, weight, padding=p, stride=stride),
        fastnn.kernels.conv2d_backward_input(dy, weight, x.shape, padding=p, stride=stride),
        fastnn.kernels.conv2d_backward_weight(dy, x, weight.shape, padding=p, stride=stride),
    )
    for name, got, theirs, want in zip(("forward", "dx", "dw"), ours, peer, exact):
        errors = [np.abs(a - want.numpy()) for a in (got, theirs.numpy())]
        for measure in (lambda e: np.sqrt(np.mean(e**2)), np.max):
            assert measure(errors[0]) <= 4 * measure(errors[1]), name


def test_refuses_what_torch_refuses(rng):
    x, w = rng.standard_normal((2, 4, 8, 8)), rng.standard_normal((6, 4, 3, 3))
    for args, kwargs in [
        ((x, w), {"stride": 0}),
        ((x, w), {"padding": -1}),
        ((x, w), {"padding": "same", "stride": 2}),
        ((x, w), {"groups": 2}),
        ((x, w[:, :2]), {"groups": 4}),
        ((x, w), {"dilation": 4}),
        ((x[0, 0], w), {}),
    ]:
        with pytest.raises((RuntimeError, ValueError)):
            torch.nn.functional.conv2d(*map(torch.tensor, args), **kwargs)
        with pytest.raises(ValueError):
            F.conv2d(*args, **kwargs)
