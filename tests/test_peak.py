"""The measuring kernels: that they compute what they say, in plausible time; their figures are this machine's."""

import numpy as np
import pytest

from fastnn import _core, get_num_threads
from fastnn.kernels.peak import GRAIN, fma_peak, memory_peak


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 33, GRAIN, GRAIN + 5])
def test_read_and_triad(dtype, size):
    rng = np.random.default_rng(0)
    x, z = rng.integers(-9, 9, (2, size)).astype(dtype)
    sums = np.empty(-(-size // GRAIN), dtype)
    _core.kernels.peak_read(x, sums)
    assert sums.tolist() == [x[i : i + GRAIN].sum() for i in range(0, size, GRAIN)]
    for streaming in (False, True):
        for at in (0, 1):  # aligned and not
            y = _core.empty((size + 1,), x.dtype)[at : at + size]
            _core.kernels.peak_triad(x, None, y, 0.0, streaming)
            np.testing.assert_array_equal(y, x)
            _core.kernels.peak_triad(x, z, y, 2.0, streaming)
            np.testing.assert_array_equal(y, x + 2 * z)


def test_peaks_are_plausible():
    assert 1e8 < fma_peak() < 1e13
    assert 1e8 < fma_peak(get_num_threads(), "float64") < 1e15
    found = memory_peak(1 << 20)
    assert set(found) == {"read", "copy", "triad"} and all(1e7 < speed < 1e14 for speed in found.values())
    with pytest.raises(ValueError, match="turns"):
        _core.kernels.peak_fma(np.empty(2), np.empty(1), 10**8)
