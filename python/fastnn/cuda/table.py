"""Every CUDA kernel that there is: units, each a file of csrc/cuda with the name expressions that are compiled of it.

One row per family of expressions. Host functions launch only what stands here; the compile tests compile all of it for
every architecture and hold it to its budget; the emulator builds it. Next: launch.py, tests/test_cuda_compile.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from . import conv_tiles
from .rows import HELD
from .tiles import GEMM, MmaTile

__all__ = ["ARCHS", "UNITS", "Kernel", "Unit", "each", "shared_limit"]

ARCHS = (75, 80, 86, 89, 90, 100, 120)
"""The architectures that every kernel is compiled for before a release; others of the same generations work alike."""

FLOATS = ("float", "double")
NUMBERS = (*FLOATS, "int64_t")
HELD_ROWS = tuple(f"{team}, {items}" for team, items in HELD)
TEAMS = tuple(sorted({team for team, _ in HELD}))
PACKS = ("float, 1", "float, 4", "double, 1", "double, 2")  # T, and the elements that are moved at once


@dataclass(frozen=True)
class Kernel:
    """One instantiation: what its launches may ask for, and what it may cost."""

    expression: str
    threads: int = 256  # the most per block
    shared: int = 0  # the most bytes of dynamic shared memory; beyond 48 KiB the launcher opts in
    arch: int = 75  # the oldest architecture that has the instructions
    registers: int = 0  # the most per thread; 0: as many as let one block of ``threads`` run

    @property
    def budget(self) -> int:
        """Registers per thread that the compile tests allow."""
        return self.registers or min(255, 65536 // self.threads)

    def fits(self, arch: int) -> bool:
        """Whether a device of this architecture can run it."""
        return arch >= self.arch and self.shared <= shared_limit(arch)


@dataclass(frozen=True)
class Unit:
    """A file of csrc/cuda and its kernels."""

    file: str
    kernels: dict[str, Kernel] = field(default_factory=dict)

    def part(self, expression: str, arch: int) -> list[str]:
        """The expressions that are compiled together with this one: all of float, or all of double."""
        wanted = "double" in expression
        return [e for e, kernel in self.kernels.items() if kernel.fits(arch) and ("double" in e) == wanted]


def shared_limit(arch: int) -> int:
    """Bytes of shared memory that a block may have, static and dynamic together."""
    known = {75: 64, 80: 163, 86: 99, 87: 163, 88: 99, 89: 99, 90: 227, 100: 227, 103: 227, 110: 227, 120: 99, 121: 99}
    return 1024 * known.get(arch, 99 if arch > 75 else 64)


def each(pattern: str, **choices: Any) -> list[Kernel]:
    """A kernel for every combination: ``each("relu<{T}>", T=FLOATS, threads=128)``. Lists and tuples are the choices
    that the pattern names; the other keywords are Kernel's."""
    names = [name for name, values in choices.items() if f"{{{name}}}" in pattern]
    rest = {name: value for name, value in choices.items() if name not in names}
    return [
        Kernel(pattern.format(**dict(zip(names, values))), **rest)
        for values in product(*(choices[name] for name in names))
    ]


def _unit(file: str, *families: Iterable[Kernel]) -> Unit:
    return Unit(file, {kernel.expression: kernel for family in families for kernel in family})


ACTIVATIONS: Sequence[str] = (
    "relu",
    "leaky_relu",
    "hardtanh",
    "elu",
    "softplus",
    "sigmoid",
    "tanh",
    "silu",
    "gelu",
    "gelu_tanh",
)

LOSSES: Sequence[str] = (  # by their numbers: the order of FASTNN_LOSSES in csrc/formulas.h
    "mse",
    "l1",
    "smooth_l1",
    "huber",
    "kl_div",
    "kl_div_log",
    "bce",
    "bce_logits",
    "hinge_embedding",
)

UNITS: dict[str, Unit] = {}

# -- elementwise ------------------------------------------------------------------------------------------------------
UNITS["elementwise"] = _unit(
    "elementwise.cu",
    each("map<{T}, {f}_of<{T}>>", T=FLOATS, f=ACTIVATIONS),
    each("map_gradient<{T}, {f}_gradient<{T}>>", T=FLOATS, f=ACTIVATIONS),
)

# -- arithmetic -------------------------------------------------------------------------------------------------------
BINARY = ("add", "subtract", "multiply", "power", "maximum", "minimum")
COMPARISONS = ("equal", "not_equal", "greater", "greater_equal")
BITWISE = ("bitwise_and", "bitwise_or", "bitwise_xor")
SIGNED = ("negative", "absolute", "sign", "square")
MATHS = ("exponential", "logarithm", "logarithm_of_one_and", "square_root")


def _arithmetic(t: str, binary: Sequence[str], unary: Sequence[str]) -> Unit:
    """Every function of one type: what a program uses first compiles with all that has the same type."""
    families = ("binary", "binary_strided")
    return _unit(
        "arithmetic.cu",
        each("{family}<{T}, {T}, {f}>", family=families, T=[t], f=binary),
        each("{family}<{T}, bool, {f}>", family=families, T=[t], f=COMPARISONS),
        each("unary<{T}, {f}>", T=[t], f=unary),
        each("where<{T}>", T=[t]),
    )


UNITS["arithmetic_float"] = _arithmetic("float", (*BINARY, "divide"), (*SIGNED, *MATHS))
UNITS["arithmetic_double"] = _arithmetic("double", (*BINARY, "divide"), (*SIGNED, *MATHS))
UNITS["arithmetic_int64_t"] = _arithmetic("int64_t", (*BINARY, *BITWISE), (*SIGNED, "invert"))
UNITS["arithmetic_bool"] = _arithmetic("bool", BITWISE, ("logical_not",))

# -- conv -------------------------------------------------------------------------------------------------------------
UNITS["conv_direct"] = _unit(
    "conv_direct.cu",
    each("conv_{f}<{T}>", f=("direct", "direct_weight", "sum_parts", "depthwise_weight"), T=FLOATS),
    each("conv_bias<{TV}>", TV=("float, 4", "float, 1", "double, 2", "double, 1")),
    each("conv_depthwise<{T}>", T=FLOATS, shared=8 * 1024),
)
UNITS["conv_small"] = _unit(
    "conv_small.cu",
    each("conv_small<float, {KP}>", KP=("8, 1", "8, 2", "16, 1", "16, 2", "16, 4"), threads=128, shared=48 * 1024),
    each("conv_small<double, {KP}>", KP=("8, 1", "8, 2"), threads=128, shared=48 * 1024),
)
for _tile in (row for table in (conv_tiles.FORWARD, conv_tiles.WEIGHT) for rows in table.values() for row in rows):
    _mma = isinstance(_tile.tile, MmaTile)
    UNITS.setdefault(_tile.unit, _unit("conv_mma.cu" if _mma else "conv_gemm.cu")).kernels.update(
        (e, Kernel(e, _tile.tile.threads, _tile.tile.shared, 80 if _mma else 75))
        for e in dict.fromkeys(_tile.expression.format(run=run) for run in conv_tiles.RUNS)
    )
UNITS["conv_gemm"].kernels.update((k.expression, k) for k in each("conv_{f}<{T}>", f=("pack", "sum_weight"), T=FLOATS))
UNITS["im2col"] = _unit("im2col.cu", each("{f}<{T}>", f=("unfold", "fold"), T=FLOATS))

# -- cross_entropy ----------------------------------------------------------------------------------------------------
UNITS["cross_entropy"] = _unit(
    "cross_entropy.cu",
    each("cross_entropy<{T}, 32, 2>", T=FLOATS, threads=1024),
    each("cross_entropy<{T}, {team}, 0>", T=FLOATS, team=TEAMS),
    each("cross_entropy_soft<{T}, {team}>", T=FLOATS, team=TEAMS),
    each("{op}_backward<{T}, {team}>", op=("cross_entropy", "cross_entropy_soft", "nll_loss"), T=FLOATS, team=TEAMS),
    each("{op}<{T}>", op=("nll_loss", "sum_losses", "finish_losses"), T=FLOATS),
)

# -- loss -------------------------------------------------------------------------------------------------------------
UNITS["loss"] = _unit(
    "loss.cu",
    each("loss_each<{T}, {f}_loss<{T}>>", T=FLOATS, f=LOSSES),
    each("loss_sum<{T}, {f}_loss<{T}>>", T=FLOATS, f=LOSSES),
    each("finish_loss<{T}>", T=FLOATS),
    [Kernel(f"loss_backward<{T}, {f}_slope<{T}>, {f}_target_slope<{T}>>") for T in FLOATS for f in LOSSES],
)

# -- gemm -------------------------------------------------------------------------------------------------------------
for _row in (row for rows in GEMM.values() for row in rows):
    _arch = 80 if isinstance(_row.tile, MmaTile) else 75
    UNITS.setdefault(_row.unit, _unit("gemm.cu")).kernels.update(
        (e, Kernel(e, _row.tile.threads, _row.tile.shared, _arch)) for e in _row.expressions()
    )
UNITS["gemm"].kernels.update((k.expression, k) for k in each("gemm_add_parts<{T}>", T=FLOATS))
UNITS["round"] = _unit("round.cu", [Kernel(e, arch=80) for e in ("round_rows", "round_columns")])

# -- images -----------------------------------------------------------------------------------------------------------
UNITS["images"] = _unit(
    "images.cu",
    each("windows<{T}>", T=(*FLOATS, "uint8_t")),
    each("place_of_target<{T}>", T=FLOATS),
)

# -- norm -------------------------------------------------------------------------------------------------------------
UNITS["norm"] = _unit(
    "norm.cu",
    each("batch_norm_sums<{P}>", P=PACKS),
    each("batch_norm_column_sums<{T}>", T=FLOATS),
    each("batch_norm_moments<{T}>", T=FLOATS),
    each("batch_norm_apply<{P}>", P=PACKS),
    each("batch_norm_backward_sums<{P}>", P=PACKS),
    each("batch_norm_backward_column_sums<{T}>", T=FLOATS),
    each("batch_norm_backward_weight<{T}>", T=FLOATS),
    each("batch_norm_backward<{P}>", P=PACKS),
    each("layer_norm<{P}, {lanes}>", P=PACKS, lanes=(32, 256)),
    each("layer_norm_backward<{P}, {lanes}>", P=PACKS, lanes=(32, 256)),
    each("layer_norm_column_sums<{T}>", T=FLOATS),
    each("layer_norm_backward_weight<{T}>", T=FLOATS),
)
UNITS["local_response"] = _unit(
    "local_response.cu",
    each("local_response_norm<{T}, {size}>", T=FLOATS, size=(0, 5)),
    each("local_response_norm_backward<{T}, {size}>", T=FLOATS, size=(0, 5)),
)

# -- optim ------------------------------------------------------------------------------------------------------------
UNITS["optim"] = _unit(
    "optim.cu",
    each("{op}<{T}>", op=("sgd_step", "adam_step", "scale", "norm_pieces"), T=FLOATS),
    [Kernel("finish_norm")],
)

# -- pad --------------------------------------------------------------------------------------------------------------
UNITS["pad"] = _unit(
    "pad.cu",
    each("pad_axis<{P}>", P=PACKS),
    each("pad_axis_backward<{P}>", P=PACKS),
)

# -- pool -------------------------------------------------------------------------------------------------------------
WINDOWS = ("0, 0, 1", "0, 0, 32", "2, 2, 1", "3, 2, 1")  # kernel size, stride (0: any), threads an output
UNITS["max_pool"] = _unit(
    "max_pool.cu",
    each("max_pool2d<{T}, {W}>", T=FLOATS, W=WINDOWS),
    each("max_pool2x2<{T}, {pairs}>", T=FLOATS, pairs=("true", "false")),
    each("max_pool2x2_backward<{T}, {pairs}>", T=FLOATS, pairs=("true", "false")),
    each("max_pool3x3_backward<{T}, {padding}, {pairs}>", T=FLOATS, padding=(0, 1), pairs=("true", "false")),
    each("max_pool2d_taps_backward<{T}>", T=FLOATS),
    each("max_pool2d_backward<{T}>", T=FLOATS, threads=512),
    each("adaptive_max_pool2d<{T}, {lanes}>", T=FLOATS, lanes=(1, 32)),
)
UNITS["avg_pool"] = _unit(
    "avg_pool.cu",
    each("avg_pool2d<{T}, {W}>", T=FLOATS, W=WINDOWS),
    each("avg_pool2d_backward<{T}>", T=FLOATS),
    each("avg_pool2x2_backward<{T}, {pairs}>", T=FLOATS, pairs=("true", "false")),
    each("adaptive_avg_pool2d<{T}, {lanes}>", T=FLOATS, lanes=(1, 32)),
    each("adaptive_avg_pool2d_backward<{T}>", T=FLOATS),
)

# -- random -----------------------------------------------------------------------------------------------------------
UNITS["random"] = _unit(
    "random.cu",
    [Kernel("random_bits")],
    each("{op}<{T}>", op=("uniform", "normal", "dropout", "dropout_groups"), T=FLOATS),
)

# -- reduce -----------------------------------------------------------------------------------------------------------
UNITS["reduce"] = _unit(
    "reduce.cu",
    each("sum_middle<{types}, {team}>", types=(*(f"{t}, {t}" for t in NUMBERS), "bool, int64_t"), team=TEAMS),
    each("place_of_extreme<{types}, {team}>", types=(*(f"{t}, {t}" for t in NUMBERS), "bool, int"), team=TEAMS),
    each("add_at<{T}>", T=FLOATS),
)

# -- softmax ----------------------------------------------------------------------------------------------------------
UNITS["softmax"] = _unit(
    "softmax.cu",
    each("{op}<{T}, {rows}>", op=("softmax", "log_softmax"), T=FLOATS, rows=HELD_ROWS),
    each("{op}_backward<{T}, {rows}>", op=("softmax", "log_softmax"), T=FLOATS, rows=HELD_ROWS),
)
