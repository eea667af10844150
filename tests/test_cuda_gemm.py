"""Matrix products on CUDA: every tile, edges, precisions, parts of K, the choice of tile, and shared memory's banks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from records.linear import ACTIVATIONS

import fastnn
from fastnn import kernels
from fastnn.cuda import gemm as host
from fastnn.cuda import precision, tiles

TRANSPOSES = list(itertools.product((False, True), repeat=2))
TILES = [(*key, row) for key, rows in tiles.GEMM.items() for row in rows]


def label(row):
    return f"{row.unit}-{row.tile.M}x{row.tile.N}"


@pytest.fixture
def device(gpu):
    """Not the CPU, whose kernels are the reference."""
    return gpu


@pytest.fixture
def at(monkeypatch):
    """Set the precision for the rest of a test."""
    return lambda name: monkeypatch.setattr(precision, "precision", lambda: name)


@pytest.fixture
def only(monkeypatch):
    """Compute with one tile for the rest of a test."""

    def choose(row):
        host.plan_of.cache_clear()
        monkeypatch.setattr(host, "choose", lambda shape: row)

    yield choose
    host.plan_of.cache_clear()


def rounded(x, name):
    """What a precision makes of an operand, as float64."""
    x = np.asarray(x, np.float32)
    bits = x.view(np.uint32).astype(np.uint64)
    if name == "medium":  # 13 bits fall, ties away from 0
        bits = (bits + 0x1000) & ~np.uint64(0x1FFF)
    elif name == "bfloat16":  # 16 bits fall, ties to even
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & ~np.uint64(0xFFFF)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def operands(rng, m, n, k, trans_a=False, trans_b=False, dtype=np.float32):
    a = rng.standard_normal((k, m) if trans_a else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if trans_b else (k, n)).astype(dtype)
    return a, b


def product(a, b, trans_a=False, trans_b=False, name="highest"):
    """In float64, of operands rounded as the precision has it."""
    if a.dtype == np.float32:
        a, b = rounded(a, name), rounded(b, name)
    return (a.T if trans_a else a) @ (b.T if trans_b else b)


def limit(k, dtype):
    """Of the sum of k products of numbers of size 1 in this dtype."""
    return 4 * np.finfo(dtype).eps * (np.sqrt(k) + 1) * 8


def sizes(row, trans_a, trans_b):
    """Shapes around a tile: more than one each way, its edges within; rows of whole packs where it needs them."""
    m, n = row.tile.M, row.tile.N
    if row.rounded:
        return [(m + 4, n + 4, 37), (m, n, 64), (m - 4, 4, 5)]
    if row.packs:
        return [(m + 4, n + 4, 36), (m, n, 32), (m - 4, 4, 84)]
    return [(m + 1, n + 3, 37), (m, n, 64), (m - 1, n + 4, 5), (3, 5, 131)]


@pytest.mark.parametrize("trans_a, trans_b", TRANSPOSES)
@pytest.mark.parametrize("name, dtype, row", TILES, ids=lambda x: label(x) if isinstance(x, tiles.Row) else x)
def test_every_tile(device, name, dtype, row, trans_a, trans_b, rng, at, only):
    at(name)
    only(row)
    for i, (m, n, k) in enumerate(sizes(row, trans_a, trans_b)):
        a, b = operands(rng, m, n, k, trans_a, trans_b, dtype)
        bias = [None, rng.standard_normal(n), rng.standard_normal((m, 1)), None][i]
        bias = None if bias is None else bias.astype(dtype)
        y = kernels.gemm(device.put(a), device.put(b), trans_a=trans_a, trans_b=trans_b, bias=device.put(bias))
        want = product(a, b, trans_a, trans_b, name) + (0 if bias is None else bias)
        assert np.abs(device.get(y) - want).max() <= limit(k, dtype), (m, n, k)


@pytest.mark.parametrize("name, dtype, row", TILES, ids=lambda x: label(x) if isinstance(x, tiles.Row) else x)
def test_epilogues_of_every_tile(device, name, dtype, row, rng, at, only):
    """alpha, beta, NaN in what beta = 0 overwrites, every activation: against the steps one by one."""
    at(name)
    only(row)
    m, n, k = row.tile.M + 4, 20, 16
    a, b = (device.put(x) for x in operands(rng, m, n, k, dtype=dtype))
    bias, c = (rng.standard_normal(shape).astype(dtype) for shape in ((n,), (m, n)))
    plain = device.get(kernels.gemm(a, b))
    out = device.put(c.copy())
    kernels.gemm(a, b, alpha=-0.5, beta=0.25, bias=device.put(bias), out=out)
    np.testing.assert_allclose(device.get(out), -0.5 * plain + 0.25 * c + bias, rtol=0, atol=limit(k, dtype))
    out = device.put(np.full_like(c, np.nan))
    assert device.get(kernels.gemm(a, b, out=out)).tobytes() == plain.tobytes()
    y = kernels.gemm(a, b, bias=device.put(bias))
    for activation, reference in ACTIVATIONS.items():
        fused = kernels.gemm(a, b, bias=device.put(bias), activation=activation)
        want = reference(device.get(y).astype(np.float64))
        np.testing.assert_allclose(device.get(fused), want, rtol=0, atol=8 * np.finfo(dtype).eps * np.abs(want).max())


@pytest.mark.parametrize("name, dtype, row", TILES, ids=lambda x: label(x) if isinstance(x, tiles.Row) else x)
def test_nan_reaches_its_row_and_column_only(device, name, dtype, row, rng, at, only):
    at(name)
    only(row)
    canonical = np.array([0x7FFFFFFF], np.uint32).view(np.float32)[0]  # what GPUs make: its bits are all ones
    for nan in (np.nan, canonical, -canonical):
        a, b = operands(rng, 36, 40, 20, dtype=dtype)
        a[7, 3] = nan
        y = device.get(kernels.gemm(device.put(a), device.put(b), activation="relu"))
        assert np.isnan(y[7]).all() and np.isnan(y).sum() == 40
        a[7, 3], b[11, 9] = 1, nan
        y = device.get(kernels.gemm(device.put(a), device.put(b), activation="gelu"))
        assert np.isnan(y[:, 9]).all() and np.isnan(y).sum() == 36


@pytest.mark.parametrize("name", ["highest", "high", "medium", "bfloat16"])
def test_infinity_is_not_lost(device, name, rng, at):
    at(name)
    a, b = operands(rng, 20, 24, 30)
    a[4, 5] = np.inf
    y = device.get(kernels.gemm(device.put(a), device.put(b)))
    want = product(a, b, name=name)
    assert np.isfinite(np.delete(y, 4, 0)).all()
    if name == "high":
        assert np.isnan(y[4]).all()
    else:
        np.testing.assert_array_equal(y[4], want[4].astype(np.float32))


def test_high_is_as_exact_as_float(device, rng, at):
    """3xTF32's error against float64 is within twice that of float32's own kernels."""
    for m, n, k in [(40, 33, 16), (64, 64, 200), (17, 30, 900)]:
        a, b = operands(rng, m, n, k)
        want, errors = product(a, b), {}
        for name in ("highest", "high", "medium", "bfloat16"):
            at(name)
            y = device.get(kernels.gemm(device.put(a), device.put(b)))
            errors[name] = np.sqrt(np.mean((y - want) ** 2))
        assert errors["high"] <= 2 * errors["highest"], (m, n, k, errors)
        assert 10 * errors["high"] < errors["medium"] < errors["bfloat16"], (m, n, k, errors)  # they are what they say


@pytest.mark.parametrize("name", ["highest", "high", "medium", "bfloat16"])
def test_parts_of_k_are_added_in_order(device, name, rng, at):
    """Products of few tiles and a long K run in parts: same bits in any order of blocks, and everything fused."""
    at(name)
    m, n, k = 20, 36, 1100
    assert host.plan_of(shape_of(name, m, n, k)).grid[1] == 4
    a, b = operands(rng, m, n, k, trans_a=True)
    bias, c = rng.standard_normal((m, 1)).astype(np.float32), rng.standard_normal((m, n)).astype(np.float32)
    seen = set()
    for order in ({}, {"threads": "reverse", "blocks": "reverse"}, {"threads": "random", "seed": 5}):
        with device.schedule(**order):
            options = {"alpha": 0.5, "beta": -1.5, "bias": device.put(bias), "activation": "tanh"}
            out = device.put(c.copy())
            kernels.gemm(device.put(a), device.put(b), trans_a=True, out=out, **options)
            seen.add(device.get(out).tobytes())
    assert len(seen) == 1
    want = np.tanh(0.5 * product(a, b, True, False, name) - 1.5 * c + bias)
    np.testing.assert_allclose(device.get(out), want, rtol=0, atol=limit(k, np.float32))


def test_precision_is_what_the_user_set(device, rng):
    a, b = (device.put(x) for x in operands(rng, 9, 8, 40))
    found = {"highest": kernels.gemm(a, b)}
    with fastnn.autocast("bfloat16"):
        found["bfloat16"] = kernels.gemm(a, b)
    try:
        for name in ("high", "medium"):
            fastnn.set_float32_matmul_precision(name)
            found[name] = kernels.gemm(a, b)
    finally:
        fastnn.set_float32_matmul_precision("highest")
    for name, y in found.items():
        want = product(device.get(a), device.get(b), name=name)
        assert np.abs(device.get(y) - want).max() <= limit(40, np.float32), name


@pytest.mark.parametrize("name", ["highest", "high", "medium", "bfloat16"])
def test_batches_and_empty_products(device, name, rng, at):
    at(name)
    for count_a, count_b, trans_a, trans_b in [(3, 3, False, False), (1, 3, True, False), (3, 1, False, True)]:
        a = rng.standard_normal((count_a, *((9, 17) if trans_a else (17, 9)))).astype(np.float32)
        b = rng.standard_normal((count_b, *((70, 9) if trans_b else (9, 70)))).astype(np.float32)
        y = device.get(kernels.gemm_batch(device.put(a), device.put(b), trans_a=trans_a, trans_b=trans_b))
        for i in range(3):
            want = product(a[i % count_a], b[i % count_b], trans_a, trans_b, name)
            assert np.abs(y[i] - want).max() <= limit(9, np.float32)
    for m, n, k in [(0, 4, 5), (4, 0, 5), (4, 8, 0)]:
        a, b = operands(rng, m, n, k)
        bias = np.arange(n, dtype=np.float32)
        y = kernels.gemm(device.put(a), device.put(b), bias=device.put(bias))
        np.testing.assert_array_equal(device.get(y), np.broadcast_to(bias, (m, n)))
        y = kernels.gemm_batch(device.put(a[None]), device.put(b[None]))
        np.testing.assert_array_equal(device.get(y), np.zeros((1, m, n), np.float32))


def test_arrays_that_are_not_aligned(device, rng):
    """Views that begin anywhere: the tiles that copy and store packs are not for them."""
    a, b = operands(rng, 64, 64, 64)
    shifted = []
    for x in (a, b):
        room = device.put(np.zeros(x.size + 1, np.float32))
        room[1:] = device.put(x.ravel())
        shifted.append(room[1:].reshape(x.shape))
    y = kernels.gemm(device.put(a), device.put(b))
    assert device.get(kernels.gemm(*shifted)).tobytes() == device.get(y).tobytes()


def test_the_choice_of_tile(device):
    for name, shape, packs, tile in [
        ("highest", (4096, 4096, 4096), "aby", (128, 256)),
        ("highest", (4096, 4096, 4095), "by", (128, 256)),
        ("highest", (4096, 4095, 4096), "a", (128, 128)),
        ("highest", (1024, 1024, 1024), "aby", (64, 64)),
        ("highest", (128, 1024, 400), "aby", (32, 32)),
        ("highest", (128, 120, 400), "aby", (16, 32)),
        ("highest", (1, 10, 84), "a", (16, 32)),
        ("high", (4096, 4096, 4096), "aby", (128, 128)),
        ("medium", (4096, 4096, 4096), "aby", (128, 256)),
        ("medium", (4096, 4096, 4095), "by", (64, 64)),
        ("bfloat16", (4096, 4096, 4095), "by", (128, 256)),  # of rounded copies, which are aligned
        ("bfloat16", (256, 4096, 4096), "aby", (64, 64)),
    ]:
        row = host.choose(shape_of(name, *shape, packs=packs))
        assert tile == (row.tile.M, row.tile.N), (name, shape, packs)
    for (name, dtype), rows in tiles.GEMM.items():
        assert not rows[-1].packs and not rows[-1].rounded, "the last row takes any shape"
        assert host.choose(shape_of(name, 2048, 2048, 64, dtype)) is rows[0]
        for row in rows:
            assert row.tile.shared <= device.gpu.shared_limit
    assert host.choose(shape_of("highest", 4096, 4096, 64, limit=64 << 10)).tile.N == 128  # of an older GPU
    assert host.plan_of(shape_of("highest", 2048, 2048, 10**4)).grid == (128, 1)
    assert host.plan_of(shape_of("highest", 64, 64, 10**4)).grid == (8, 35)


def shape_of(name, m, n, k, dtype="float32", packs="aby", limit=227 << 10):
    return host.Shape(name, dtype, m, n, k, 1, packs, limit)


def test_lowered_precision_needs_tensor_cores(emulated, rng, at):
    from emulator.device import EmulatedDevice

    old = EmulatedDevice(75)
    a, b = (old.xp.asarray(x) for x in operands(rng, 40, 50, 30))
    y = old.xp.empty((40, 50), np.float32)
    arguments = (a, b, None, y, 0, 1, 0, 1.0, 0.0)
    for name in ("bfloat16", "medium", "high"):
        at(name)
        with pytest.raises(RuntimeError, match=f"gemm: precision '.*{name[:4]}.*' needs tensor cores.*8.0.*7.5"):
            old.kernels.gemm(a, b, None, y, 0, 0, 0, 1.0, 0.0)
    at("highest")
    old.kernels.gemm(*arguments[:4], 0, 0, 0, 1.0, 0.0)
    np.testing.assert_allclose(y.get(), product(a.get(), b.get()), rtol=0, atol=limit(30, np.float32))


# -- banks -------------------------------------------------------------------------------------------------------------
def conflicts(words):
    """How often two different words of a simultaneous access lie in one of the 32 banks."""
    words = np.unique(np.asarray(words, np.int64))
    return len(words) - len(np.unique(words % 32))


@pytest.mark.parametrize("rows", [64, 128, 256])
@pytest.mark.parametrize("panel", ["AlongK", "AlongRows"])
def test_panels_are_free_of_bank_conflicts(emulated, panel, rows):
    """Eight lanes read or write 16 bytes at a time, sixteen 8 bytes, 32 four: each time in banks of their own."""
    from emulator import build, fake_cupy

    expressions = tuple(f"panel_reads<{kind}<{n}>>" for kind in ("AlongK", "AlongRows") for n in (64, 128, 256))
    loaded = build.load(build.Unit("panels", build.HERE / "panels.cu", expressions))
    size = 16 * (rows + 8)
    for row in (0, 16, rows - 16):
        at, a, b = (
            fake_cupy.zeros(shape, kind) for shape, kind in (((rows, 16), "i4"), ((32, 8), "f4"), ((32, 4), "f4"))
        )
        arguments = (at, a, b, np.int32(rows), np.int32(row), np.int32(size))
        emulated.gpu.run(loaded, f"panel_reads<{panel}<{rows}>>", (1,), (32,), arguments, size * 4)
        at, a, b = at.get(), a.get(), b.get()
        assert len(np.unique(at)) == at.size and at.min() >= 0 and at.max() < size
        g, t = np.arange(32) // 4, np.arange(32) % 4
        for register, column in enumerate((0, 4, 8, 12)):  # what the instructions want, in the order they want it
            np.testing.assert_array_equal(b[:, register], at[row + g, column + t])
            for odd in (0, 1):
                found = a[:, register // 2 * 4 + register % 2 * 2 + odd]
                np.testing.assert_array_equal(found, at[row + 2 * g + odd, column + t])
            assert conflicts(b[:, register]) == 0
            both = a[:, register // 2 * 4 + register % 2 * 2 :][:, :2]
            for reads in (both[:, 0], both[:, 1]) if panel == "AlongK" else (both[:16], both[16:]):
                assert conflicts(reads) == 0
    packs = at.reshape(rows, 4, 4) if panel == "AlongK" else at.T.reshape(16, rows // 4, 4)
    assert (np.diff(packs) == 1).all() and (packs[..., 0] % 4 == 0).all(), "a pack is 16 aligned bytes"
    for eight in packs.reshape(-1, 8, 4):
        assert conflicts(eight) == 0
    if panel == "AlongRows":  # numbers one by one: 32 rows of a column, eight columns of four rows
        for first in range(0, rows, 32):
            assert all(conflicts(at[first : first + 32, column]) == 0 for column in range(16))
        assert all(conflicts(at[first : first + 4, k : k + 8]) == 0 for first in range(0, rows, 4) for k in (0, 8))
    else:  # sixteen columns of two rows
        assert all(conflicts(at[first : first + 2]) == 0 for first in range(0, rows, 2))
