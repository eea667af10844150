"""Convolution and its gradients, im2col (unfold) and col2im (fold), on plain arrays.

``y[n,k,i,j] = b[k] + sum over c,r,s of w[k,c,r,s] x[n, c, i*stride + r*dilation - padding, j*...]``, NCHW and OIHW.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ._backend import Array, backend
from ._check import choice, deliver, dims, floats, integer, launch, output, pair, sizes

__all__ = [
    "conv2d",
    "conv2d_backward_bias",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "fold",
    "unfold",
]

Pair = int | Sequence[int]
ACTIVATIONS = {None: 0, "relu": 1}
LIMIT = 2**31  # sizes below it cannot overflow the kernels' 64-bit arithmetic


def conv2d(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """2-d convolution of ``x`` (N, C, H, W) or (C, H, W) with ``w`` (K, C/groups, R, S), as PyTorch's.

    ``padding`` is a number, a pair, ``"valid"`` (none) or ``"same"`` (stride 1; an odd one has its extra row or column
    below or to the right). ``activation`` is None or ``"relu"``, applied to the result at no cost. The result is
    (N, K, Ho, Wo) with ``Ho = (H + 2 padding - dilation (R - 1) - 1) // stride + 1``.

    On the CPU, 3x3 and 5x5 kernels with stride and dilation 1 and 16 channels or more are computed by Winograd's
    F(2, 3) and F(2, 2) (Lavin & Gray, 2015, https://arxiv.org/abs/1509.09308), which add neighbouring inputs before
    they multiply: rounding errors are up to about twice those of the plain sum of products. A NaN reaches exactly the
    outputs whose window holds it. An infinity reaches those too, but may arrive as NaN (inf - inf), and so may inputs
    beyond a quarter of the largest float. Kernels 5 wide with fewer channels, in batches that fill the lanes of a
    vector, are computed by F(4, 5) or F(2, 5) along the width: rounding errors are up to about three times those of
    the plain sum, and where a result is not finite the call is done again from its products. 3x3 kernels over at most
    four channels go by F(2, 3) too, and kernels that span three steps of their stride by F(2, 3) over the phases of
    the map; there images that hold a NaN or an infinity are done from their products. ``FASTNN_CONV=direct`` computes
    every layer from its products alone.
    """
    if activation is not None:
        choice("conv2d", "activation", activation, (*ACTIVATIONS,))
    return conv2d_and_geometry(x, w, bias, stride, padding, dilation, groups, ACTIVATIONS[activation], out)[0]


Geometry = tuple[tuple[int, ...], tuple[int, ...]]
"""The shape of y, and the kernel's numbers: strides, padding above and to the left, dilations, groups."""


def conv2d_and_geometry(
    x: Array,
    w: Array,
    bias: Array | None,
    stride: Pair,
    padding: Pair | str,
    dilation: Pair,
    groups: int,
    activation: int = 0,
    out: Array | None = None,
) -> tuple[Array, Geometry]:
    """conv2d, and its geometry for ``conv2d_backward``."""
    x, w, bias = floats("conv2d", x=x, w=w, bias=bias)
    geometry = shape, numbers = _geometry("conv2d", x.shape, w.shape, stride, padding, dilation, groups)
    if bias is not None and bias.shape != w.shape[:1]:
        raise ValueError(
            f"conv2d: 'bias' must be ({w.shape[0]},), one for each output channel of 'w' {w.shape}, got {bias.shape}"
        )
    inputs = (_batched(x), w, bias)
    return launch("conv2d", out, shape, inputs, *numbers, activation, seen=_as_batch(shape)), geometry


def conv2d_backward_input(
    dy: Array,
    w: Array,
    input_shape: Sequence[int],
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """The gradient of conv2d with respect to its input of shape ``input_shape``."""
    op = "conv2d_backward_input"
    dy, w = floats(op, dy=dy, w=w)
    input_shape = sizes(op, "input_shape", input_shape)
    shape, numbers = _geometry(op, input_shape, w.shape, stride, padding, dilation, groups)
    _expect_gradient(op, dy, shape, input_shape, w.shape)
    return launch(op, out, input_shape, (_batched(dy), w), *numbers, seen=_as_batch(input_shape))


def conv2d_backward_weight(
    dy: Array,
    x: Array,
    weight_shape: Sequence[int],
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """The gradient of conv2d with respect to its weights of shape ``weight_shape``, summed over the batch.

    Where Winograd's method computes it (see :func:`conv2d`), a NaN or infinity in ``x`` or ``dy`` makes NaN of all
    weights of the channels that it meets.
    """
    op = "conv2d_backward_weight"
    dy, x = floats(op, dy=dy, x=x)
    weight_shape = sizes(op, "weight_shape", weight_shape)
    shape, numbers = _geometry(op, x.shape, weight_shape, stride, padding, dilation, groups)
    _expect_gradient(op, dy, shape, x.shape, weight_shape)
    return launch(op, out, weight_shape, (_batched(dy), _batched(x)), *numbers)


def conv2d_backward_bias(dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of conv2d with respect to its bias: ``dy`` (N, K, Ho, Wo) summed over all but the channels."""
    op = "conv2d_backward_bias"
    (dy,) = floats(op, dy=dy)
    dims(op, "dy", dy, (3, 4), "(N, K, Ho, Wo) or (K, Ho, Wo)")
    return launch(op, out, (dy.shape[-3],), (_batched(dy),))


def conv2d_backward(
    dy: Array, x: Array, w: Array, need: Sequence[bool], geometry: Geometry
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients (dx, dw, db) of conv2d that ``need`` asks for."""
    op = "conv2d_backward"
    dy, x, w = floats(op, dy=dy, x=x, w=w)
    shape, numbers = geometry
    _expect_gradient(op, dy, shape, x.shape, w.shape)
    gradient, dx, dw, db = _batched(dy), None, None, None
    if need[0]:
        dx = launch("conv2d_backward_input", None, x.shape, (gradient, w), *numbers, seen=_as_batch(x.shape))
    if need[1]:
        dw = launch("conv2d_backward_weight", None, w.shape, (gradient, _batched(x)), *numbers)
    if need[2]:
        db = launch("conv2d_backward_bias", None, w.shape[:1], (gradient,))
    return dx, dw, db


def unfold(
    x: Array,
    kernel_size: Pair,
    *,
    dilation: Pair = 1,
    padding: Pair = 0,
    stride: Pair = 1,
    out: Array | None = None,
) -> Array:
    """im2col: the patches of ``x`` (N, C, H, W) as columns, (N, C * R * S, Ho * Wo); (C, H, W) without N.

    A convolution is a GEMM with them: ``conv2d(x, w) = gemm(w.reshape(K, -1), unfold(x[n]))`` for each image.
    """
    (x,) = floats("unfold", x=x)
    dims("unfold", "x", x, (3, 4), "(N, C, H, W) or (C, H, W)")
    rows, length, numbers = _columns("unfold", x.shape[-3:], kernel_size, dilation, padding, stride)
    columns = output("unfold", out, (*x.shape[:-3], rows, length), x, x)
    batched = columns if x.ndim == 4 else columns.reshape((1, rows, length))
    backend("unfold", x).unfold(_batched(x), batched, *numbers)
    return deliver(columns, out)


def fold(
    columns: Array,
    output_size: Pair,
    kernel_size: Pair,
    *,
    dilation: Pair = 1,
    padding: Pair = 0,
    stride: Pair = 1,
    out: Array | None = None,
) -> Array:
    """col2im, the transpose of unfold: columns (N, C * R * S, L) added up into (N, C, H, W); unbatched without N."""
    (columns,) = floats("fold", columns=columns)
    dims("fold", "columns", columns, (2, 3), "(N, C*R*S, L) or (C*R*S, L)")
    size, kernel = pair("fold", "output_size", output_size, least=1), pair("fold", "kernel_size", kernel_size, least=1)
    area, (rows, length) = kernel[0] * kernel[1], columns.shape[-2:]
    if rows % area:
        raise ValueError(
            f"fold: 'columns' {columns.shape} has {rows} rows, not a multiple of {kernel[0]} * {kernel[1]} = {area} "
            "of the kernel; the rows are C * R * S"
        )
    image = (rows // area, *size)
    _, expected, numbers = _columns("fold", image, kernel, dilation, padding, stride)
    if length != expected:
        raise ValueError(
            f"fold: 'columns' {columns.shape} has {length} columns, but 'output_size' {size} gives {numbers[2]} * "
            f"{numbers[3]} = {expected} positions of a kernel {kernel}; check stride, padding and dilation"
        )
    x = output("fold", out, (*columns.shape[:-2], *image), columns, columns)
    batched = columns if columns.ndim == 3 else columns.reshape((1, rows, length))
    backend("fold", columns).fold(batched, _batched(x), *numbers)
    return deliver(x, out)


def _batched(x: Array) -> Array:
    return x if x.ndim == 4 else x.reshape((1, *x.shape))


def _as_batch(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """What a kernel sees of an image's shape, where that is another."""
    return None if len(shape) == 4 else (1, *shape)


def _expect_gradient(
    op: str, dy: Array, shape: tuple[int, ...], x_shape: tuple[int, ...], w_shape: tuple[int, ...]
) -> None:
    if dy.shape != shape:
        raise ValueError(
            f"{op}: 'dy' must be {shape}, the result of conv2d of {x_shape} with {w_shape}, got {dy.shape}"
        )


def _geometry(
    op: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: Pair | str,
    dilation: Pair,
    groups: int,
) -> Geometry:
    strides = pair(op, "stride", stride, least=1)
    dilations = pair(op, "dilation", dilation, least=1)
    groups = integer(op, "groups", groups)
    pads = padding if isinstance(padding, str) else pair(op, "padding", padding, least=0)
    return _checked_geometry(op, x_shape, w_shape, strides, pads, dilations, groups)


@lru_cache(maxsize=512)
def _checked_geometry(
    op: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    strides: tuple[int, int],
    padding: tuple[int, int] | str,
    dilations: tuple[int, int],
    groups: int,
) -> Geometry:
    if len(x_shape) not in (3, 4):
        raise ValueError(f"{op}: the input must be (N, C, H, W) or (C, H, W), got {len(x_shape)} dimensions: {x_shape}")
    if len(w_shape) != 4 or 0 in w_shape[2:]:
        raise ValueError(f"{op}: the weights must be (K, C/groups, R, S) with R, S >= 1, got {w_shape}")
    channels, kernel = x_shape[-3], w_shape[2:]
    if groups < 1:
        raise ValueError(f"{op}: 'groups' must be at least 1, got {groups}")
    if channels != w_shape[1] * groups:
        raise ValueError(
            f"{op}: the input {x_shape} has {channels} channels, but the weights {w_shape} with groups={groups} want "
            f"{w_shape[1]} * {groups} = {w_shape[1] * groups}; the layouts are (N, C, H, W) and (K, C/groups, R, S)"
        )
    if w_shape[0] % groups:
        raise ValueError(
            f"{op}: the weights {w_shape} have {w_shape[0]} output channels, which groups={groups} does not divide"
        )
    spans = [d * (r - 1) + 1 for d, r in zip(dilations, kernel)]
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"{op}: 'padding' must be 'same', 'valid', an int or a pair of ints, got {padding!r}")
        if padding == "same" and strides != (1, 1):
            raise ValueError(f"{op}: padding='same' needs stride 1, got {strides}; give the padding as numbers")
        both = [span - 1 if padding == "same" else 0 for span in spans]
        before = [p // 2 for p in both]
    else:
        before, both = list(padding), [2 * p for p in padding]
    counts = _positions(op, x_shape[-2:], kernel, strides, both, dilations, f"input {x_shape}, weights {w_shape}")
    return (*x_shape[:-3], w_shape[0], *counts), (*strides, *before, *dilations, groups)


def _positions(
    op: str,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    both: Sequence[int],
    dilations: Sequence[int],
    what: str,
) -> tuple[int, ...]:
    """How often the kernel fits, along height and width; ``both`` is the padding of both sides together."""
    counts = []
    for name, n, k, stride, pad, dilation in zip(("height", "width"), size, kernel, strides, both, dilations):
        padded, span = n + pad, dilation * (k - 1) + 1
        if max(padded, span, stride) >= LIMIT:
            raise ValueError(f"{op}: padded sizes, kernels and strides must be below 2^31 ({what})")
        if padded < span:
            raise ValueError(
                f"{op}: the kernel does not fit: {name} {n} + {pad} of padding = {padded}, but the kernel spans "
                f"{dilation} * ({k} - 1) + 1 = {span} ({what}); use a larger input, more padding or a smaller kernel"
            )
        counts.append((padded - span) // stride + 1)
    return tuple(counts)


def _columns(
    op: str, image: Sequence[int], kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair
) -> tuple[int, int, tuple[int, ...]]:
    """Rows and length of the columns of an image (C, H, W), and the kernel's numbers."""
    kernel = pair(op, "kernel_size", kernel_size, least=1)
    strides, dilations = pair(op, "stride", stride, least=1), pair(op, "dilation", dilation, least=1)
    pads = pair(op, "padding", padding, least=0)
    what = f"image {tuple(image)}, kernel {kernel}"
    counts = _positions(op, image[1:], kernel, strides, [2 * p for p in pads], dilations, what)
    numbers = (*kernel, *counts, *strides, *pads, *dilations)
    return image[0] * kernel[0] * kernel[1], counts[0] * counts[1], numbers
