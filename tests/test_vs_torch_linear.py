"""linear and matmul beside PyTorch: results and gradients, argument for argument."""

from __future__ import annotations

import numpy as np
import pytest
from records import all_records

import fastnn
from fastnn import functional as F

torch = pytest.importorskip("torch")

OPS = {"linear": (F.linear, torch.nn.functional.linear), "matmul": (F.matmul, torch.matmul)}


@pytest.mark.parametrize("name", OPS)
def test_result_and_gradients(name, rng):
    ours, theirs = OPS[name]
    (record,) = [r for r in all_records() if r.name == name]
    for sample in record.samples(rng):
        x = [fastnn.tensor(a, requires_grad=True) for a in sample.args]
        t = [torch.tensor(a, requires_grad=True) for a in sample.args]
        y, want = ours(*x), theirs(*t)
        assert y.shape == tuple(want.shape), repr(sample)
        np.testing.assert_allclose(y.detach().numpy(), want.detach().numpy(), rtol=1e-10, atol=1e-10)
        dy = rng.standard_normal(y.shape)
        y.backward(dy)
        want.backward(torch.from_numpy(np.asarray(dy)))
        for mine, their in zip(x, t):
            np.testing.assert_allclose(
                mine.grad.numpy(), their.grad.numpy(), rtol=1e-10, atol=1e-9, err_msg=repr(sample)
            )
