"""The struct Gather of csrc/cuda/conv.cuh, filled in from the arguments of a convolution and its gradients."""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Gather", "forward_gather", "input_gathers"]

LIMIT = 2**31


class Gather(NamedTuple):
    """dst[n, m, i, j] = sum over c, q, u of w(m, c, q, u) src[n, c, i*si + q*dq + oi, j*sj + u*du + oj]; csrc says the
    rest. Names and order are the struct's."""

    N: int
    C: int
    H: int
    W: int
    M: int
    Ho: int
    Wo: int
    groups: int
    R: int
    S: int
    si: int
    sj: int
    dq: int
    du: int
    oi: int
    oj: int
    wg: int
    wm: int
    wc: int
    wq: int
    wu: int
    w0: int
    yn: int
    yc: int
    yi: int
    yj: int
    y0: int

    @property
    def positions(self) -> int:
        """Columns of the GEMM."""
        return self.N * self.Ho * self.Wo

    @property
    def taps(self) -> int:
        """Products of one output."""
        return self.C * self.R * self.S

    @property
    def fits_int(self) -> bool:
        """Whether 32 bits do for sizes, positions, places read (also outside), and offsets inside an image."""
        rows = self.Ho * self.si + self.R * abs(self.dq) + abs(self.oi)
        columns = self.Wo * self.sj + self.S * abs(self.du) + abs(self.oj)
        inside = self.C * max(self.H + self.R * abs(self.dq), 1) * max(self.W, 1) + columns
        places = max(rows, columns, self.H, self.W) < LIMIT // 2  # the other half: a row of no image (struct Tap)
        return places and max(inside, self.positions + 256, self.taps * 8, self.M) < LIMIT

    @property
    def struct(self) -> Any:
        """As kernels take it. Made once: a launch would take longer to make it than to run."""
        return _struct(self)


_DTYPE = np.dtype([(name, np.int64) for name in Gather._fields], align=True)


@lru_cache(maxsize=512)
def _struct(g: Gather) -> Any:
    return np.array(tuple(g), _DTYPE)


@lru_cache(maxsize=512)
def forward_gather(x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], numbers: tuple[int, ...]) -> Gather:
    """y from x; ``numbers`` are stride, padding above and to the left, dilation (two each), groups."""
    sh, sw, pt, pl, dh, dw, groups = numbers
    (n, c, h, wide), (k, _, r, s), (ho, wo) = x, w, y[2:]
    cg, kg = c // groups, k // groups
    weights = (kg * cg * r * s, cg * r * s, r * s, s, 1, 0)
    return Gather(
        n, cg, h, wide, kg, ho, wo, groups, r, s, sh, sw, dh, dw, -pt, -pl, *weights, k * ho * wo, ho * wo, wo, 1, 0
    )


@lru_cache(maxsize=512)
def input_gathers(
    dx: tuple[int, ...], w: tuple[int, ...], dy: tuple[int, ...], numbers: tuple[int, ...]
) -> tuple[Gather, ...]:
    """dx from dy: one gather for each phase of the strides that has inputs, together all of dx.

    Input h meets tap r in output (h + pt - r*dh) / sh where that is whole. For h = a + sh*i those are the taps
    r = r0 + q*step, and the outputs i + oi - q*dh/gcd.
    """
    sh, sw, pt, pl, dh, dw, groups = numbers
    (n, c, h, wide), (k, _, r, s), (ho, wo) = dx, w, dy[2:]
    cg, kg = c // groups, k // groups
    gathers = []
    for a in range(min(sh, h)):
        r0, r_step, r_count, oi = _phase(a + pt, sh, dh, r)
        for b in range(min(sw, wide)):
            s0, s_step, s_count, oj = _phase(b + pl, sw, dw, s)
            weights = (kg * cg * r * s, r * s, cg * r * s, r_step * s, s_step, r0 * s + s0)
            positions, taps = (-(-(h - a) // sh), -(-(wide - b) // sw)), (r_count, s_count)
            steps = (1, 1, -dh // gcd(sh, dh), -dw // gcd(sw, dw), oi, oj)
            out = (c * h * wide, h * wide, sh * wide, sw, a * wide + b)
            gathers.append(Gather(n, kg, ho, wo, cg, *positions, groups, *taps, *steps, *weights, *out))
    return tuple(gathers)


def _phase(shift: int, stride: int, dilation: int, taps: int) -> tuple[int, int, int, int]:
    """The taps that a phase's inputs meet: the first, the step to the next, how many, and the first one's output."""
    common = gcd(stride, dilation)
    step = stride // common
    first = next((t for t in range(min(taps, step)) if (shift - t * dilation) % stride == 0), None)
    if first is None:
        return 0, step, 0, 0
    return first, step, -(-(taps - first) // step), (shift - first * dilation) // stride
