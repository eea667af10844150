"""Records of padding."""

from __future__ import annotations

import numpy as np

from fastnn import functional as F

from . import Record, Sample, randn

NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def samples(rng):
    return [
        Sample((randn(rng, 5), (2, 3))),
        Sample((randn(rng, 3, 5), (1, 0, 2, 1), "constant", 1.5)),
        Sample((randn(rng, 2, 3, 5, 7), (-1, 2, 1, -2))),
        Sample((randn(rng, 2, 0, 3), (1, 1, 2, 0), "constant", -1.0)),
        Sample((randn(rng, 2, 3), ())),
        Sample((randn(rng, 2, 3), (0, 0))),
        Sample((randn(rng, 33, 70, 31), (1, 1, 1, 1))),
        Sample((randn(rng, 2, 9), (3, 8), "reflect")),
        Sample((randn(rng, 2, 3, 5, 7), (6, 2, 1, 4), "reflect")),
        Sample((randn(rng, 3, 5, 7), (9, 2, 1, 11), "replicate")),
        Sample((randn(rng, 2, 3, 4, 5, 6), (1, 2, 3, 4, 2, 1), "replicate")),
        Sample((randn(rng, 3, 5, 7), (7, 2, 0, 5), "circular")),
        Sample((randn(rng, 0, 5, 7), (1, 1), "circular")),
    ]


def reference(x, pads, mode="constant", value=0.0):
    widths = [(0, 0)] * x.ndim
    for i in range(len(pads) // 2):
        widths[x.ndim - 1 - i] = (pads[2 * i], pads[2 * i + 1])
    x = x[tuple(slice(max(-a, 0), x.shape[i] - max(-b, 0)) for i, (a, b) in enumerate(widths))]
    widths = [(max(a, 0), max(b, 0)) for a, b in widths]
    options = {"constant_values": value} if mode == "constant" else {}
    return np.pad(x, widths, NUMPY_MODES[mode], **options)


RECORDS = [Record("pad", F.pad, samples, reference)]
