"""Padding that must be refused, and what PyTorch gives."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import functional as F
from fastnn import kernels


@pytest.mark.parametrize(
    "shape, pads, mode, message",
    [
        ((3, 4), (1,), "constant", "two numbers per axis"),
        ((3,), (1, 1, 1, 1), "constant", "2 axes"),
        ((3, 4), (-3, -2), "constant", "would be -1"),
        ((3, 4), (4, 0), "reflect", "at most 3"),
        ((3, 4), (5, 0), "circular", "at most 4"),
        ((3, 4), (-1, 1), "circular", "cannot crop"),
        ((4,), (1, 1), "reflect", "before them"),
        ((3, 0), (1, 1), "replicate", "empty"),
        ((3, 4), (1, 1), "mirror", "'constant', 'reflect'"),
    ],
)
def test_errors(shape, pads, mode, message):
    with pytest.raises(ValueError, match=message):
        F.pad(np.zeros(shape, np.float32), pads, mode)


def test_sizes_that_are_no_numbers_and_a_value_out_of_place():
    with pytest.raises(TypeError, match="ints"):
        F.pad(np.zeros(3, np.float32), (1.5, 2))
    with pytest.raises(ValueError, match="constant"):
        F.pad(np.zeros((3, 4), np.float32), (1, 1), "reflect", 2.0)


def test_out_may_be_a_view_and_must_fit():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    wide = np.zeros((2, 10), np.float32)
    kernels.pad(x, (1, 1), out=wide[:, ::2])
    assert wide[:, ::2].tolist() == [[0, 0, 1, 2, 0], [0, 3, 4, 5, 0]]
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        kernels.pad(x, (1, 1), out=wide)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_beside_pytorch(mode, rng):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    for pads in [(1, 2), (0, 3, 2, 1), (-1, 2, 1, -2)][: 2 if mode == "circular" else 3]:
        ours_input = x[:, :, :, 0] if len(pads) == 2 and mode != "constant" else x
        try:
            theirs = torch.nn.functional.pad(torch.from_numpy(ours_input.copy()), pads, mode).numpy()
        except (RuntimeError, NotImplementedError):
            continue
        np.testing.assert_array_equal(F.pad(ours_input, pads, mode), theirs)
