"""Normalisation against PyTorch, argument for argument: values, gradients, running moments, and what is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import fastnn
from fastnn import functional as F

torch = pytest.importorskip("torch")


def compare(name, arrays, differentiable, *args, **kwargs):
    """Both raise, or both give the same result, gradients and changes in place. Returns whether there was a result."""
    theirs = [None if a is None else torch.tensor(a, requires_grad=i in differentiable) for i, a in enumerate(arrays)]
    ours = [None if a is None else fastnn.tensor(a, requires_grad=i in differentiable) for i, a in enumerate(arrays)]
    what = f"{name} {[None if a is None else a.shape for a in arrays]} {args} {kwargs}"
    try:
        want = getattr(torch.nn.functional, name)(*theirs[:1], *args, *theirs[1:], **kwargs)
    except (RuntimeError, ValueError, TypeError, IndexError):
        with pytest.raises((ValueError, TypeError)):
            getattr(F, name)(*ours[:1], *args, *ours[1:], **kwargs)
        return False
    got = getattr(F, name)(*ours[:1], *args, *ours[1:], **kwargs)
    close = {"rtol": 1e-5, "atol": 1e-5, "err_msg": what}
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), **close)
    dy = np.random.default_rng(0).standard_normal(got.shape).astype(arrays[0].dtype)
    want.backward(torch.tensor(dy))
    got.backward(dy)
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if a is None:
            continue
        if i in differentiable:
            scale = max(1.0, float(b.grad.abs().max())) if b.grad.numel() else 1.0
            np.testing.assert_allclose(a.grad.numpy() / scale, b.grad.numpy() / scale, **close)
        else:
            np.testing.assert_allclose(a.numpy(), b.numpy(), **close)
    return True


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


SHAPES = [(5, 3), (2, 3, 7), (4, 6, 5, 3), (2, 3, 2, 3, 4), (0, 3, 4), (1, 3), (1, 3, 1), (3,)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm(shape, training, rng):
    c = shape[1] if len(shape) > 1 else 3
    for with_running, with_weight, with_bias in product([True, False], repeat=3):
        if 0 in shape and not (training or with_running):
            continue  # PyTorch checks nothing where there is nothing to do
        for momentum, eps in [(0.1, 1e-5), (1.0, 0.1), (0.0, 1e-3)]:
            arrays = [
                draw(rng, *shape),
                draw(rng, c) if with_running else None,
                np.abs(draw(rng, c)) + 0.1 if with_running else None,
                draw(rng, c) if with_weight else None,
                draw(rng, c) if with_bias else None,
            ]
            arguments = {"training": training, "momentum": momentum, "eps": eps}
            compare("batch_norm", arrays, (0, 3, 4), **arguments)


@pytest.mark.parametrize("wrong", range(1, 5))
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_wrong_shapes(wrong, training, rng):
    arrays = [draw(rng, 4, 3, 5), *(np.ones(3, np.float32) for _ in range(4))]
    arrays[wrong] = np.ones(4, np.float32)
    assert not compare("batch_norm", arrays, (0, 3, 4), training=training)


@pytest.mark.parametrize(
    "shape,inner",
    [
        ((3, 5), (5,)),
        ((2, 3, 7), [3, 7]),
        ((2, 3, 7), (2, 3, 7)),
        ((9,), (9,)),
        ((0, 4), (4,)),
        ((3, 5), (3,)),
        ((2, 3), ()),
    ],
)
def test_layer_norm(shape, inner, rng):
    for with_weight, with_bias, eps in product([True, False], [True, False], [1e-5, 0.5]):
        arrays = [
            draw(rng, *shape),
            draw(rng, *inner) if with_weight else None,
            draw(rng, *inner) if with_bias else None,
        ]
        compare("layer_norm", arrays, (0, 1, 2), inner, eps=eps)


def test_local_response_norm(rng):
    results = 0
    for shape in [(2, 7, 5), (2, 3, 4, 5), (1, 9, 2, 3, 4), (2, 3), (5,)]:
        for size, arguments in product([1, 2, 3, 4, 5, 20, 0, -1], [(), (0.5,), (2.0, 0.5), (0.3, 1.0, 0.5)]):
            results += compare("local_response_norm", [draw(rng, *shape)], (0,), size, *arguments)
    assert results > 50
    assert compare("local_response_norm", [draw(rng, 0, 3, 4)], (0,), 3)
