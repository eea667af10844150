"""Tensor and tape: what users of PyTorch rely on, and the errors that keep them from wrong gradients."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import fastnn
from fastnn import Tensor, tensor


def leaf(*shape, seed=0, dtype=np.float64):
    return tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def test_tensor_owns_its_numbers_and_follows_pytorchs_dtypes():
    source = np.ones(3, np.float64)
    t = tensor(source)
    source[0] = 5
    assert t.array[0] == 1 and t.dtype == np.float64
    assert tensor([1.0, 2.0]).dtype == np.float32
    assert tensor([1, 2]).dtype == np.int64
    assert tensor([True]).dtype == np.bool_
    assert tensor(3.5).shape == ()
    with pytest.raises(TypeError, match="tensor"):
        tensor(["a"])
    with pytest.raises(TypeError, match="requires_grad"):
        tensor([1, 2], requires_grad=True)
    with pytest.raises(ValueError, match="device"):
        tensor([1.0], device="tpu")


@pytest.mark.parametrize(
    "a, b, dtype",
    [
        (np.float32, 2.5, np.float32),
        (np.int64, 2.5, np.float32),
        (np.int64, 2, np.int64),
        (np.float32, np.float64(2.5), np.float32),
        (np.float32, np.int64, np.float32),
        (np.float32, np.float64, np.float64),
    ],
)
def test_dtype_of_arithmetic(a, b, dtype):
    x = tensor(np.ones(3, a))
    y = tensor(np.ones(3, b)) if isinstance(b, type) else b
    assert (x + y).dtype == dtype
    assert (y + x).dtype == dtype


def test_a_0d_tensor_does_not_widen():
    assert (tensor(np.ones(3, np.float32)) * tensor(np.float64(2))).dtype == np.float32


def test_division_of_integers_gives_float32():
    assert (tensor([1, 2]) / 2).dtype == np.float32
    assert (tensor([1, 2]) / tensor([2, 4])).array.tolist() == [0.5, 0.5]


def test_arrays_and_numbers_on_either_side():
    x, a = leaf(2, 3), np.ones((2, 3))
    for y in (x + a, a + x, x * 2, 2 * x, 1 / x, x - a, a - x, x**2, 2**x):
        assert isinstance(y, Tensor) and y.requires_grad


def numeric_gradient(f, x, dy, step=1e-6):
    g = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        g[i] = ((f(up) - f(down)) * dy).sum() / (2 * step)
    return g


UNARY = {
    "neg": lambda x: -x,
    "exp": lambda x: x.exp(),
    "log": lambda x: (x * x + 1).log(),
    "sqrt": lambda x: (x * x + 1).sqrt(),
    "abs": lambda x: abs(x),
    "pow": lambda x: x**3,
    "rpow": lambda x: 2**x,
    "clip": lambda x: x.clip(-0.5, 0.5),
    "sum": lambda x: x.sum(),
    "sum dim": lambda x: x.sum(dim=1),
    "sum dims keepdim": lambda x: x.sum(dim=(0, -1), keepdim=True),
    "mean": lambda x: x.mean(dim=-1),
    "max": lambda x: x.max(),
    "max dim": lambda x: x.max(dim=1)[0],
    "min dim": lambda x: x.min(dim=0, keepdim=True)[0],
    "reshape": lambda x: x.reshape(-1, 2),
    "flatten": lambda x: x.flatten(1),
    "transpose": lambda x: x.transpose(0, 2),
    "permute": lambda x: x.permute(2, 0, 1),
    "T": lambda x: x.T,
    "squeeze": lambda x: x.unsqueeze(1).squeeze(),
    "expand": lambda x: x.unsqueeze(0).expand(2, -1, -1, -1),
    "slice": lambda x: x[1:, ::-1, 0],
    "take": lambda x: x[[0, 1, 0]],
    "mask": lambda x: x[x.detach() > 0],
    "broadcast": lambda x: x * x[0, 0] + x[:, :1],
    "div": lambda x: 1 / (x * x + 1) + x[:, :1] / (x * x + 2),
    "sub": lambda x: 1 - (x - x.transpose(0, 2)[:, :1]),
    "power": lambda x: (x * x + 1) ** x,
    "min": lambda x: x.min(),
    "cat": lambda x: fastnn.cat([x, x * 2], 1),
    "stack": lambda x: fastnn.stack([x, x], -1),
    "where": lambda x: fastnn.where(x.detach() > 0, x, x * x),
    "clone": lambda x: x.clone(),
    "cast": lambda x: x.to(np.float64) * 2,
    "diamond": lambda x: (x + 1) * (x + 1) + x,
}


@pytest.mark.parametrize("name", UNARY)
def test_gradients(name, device):
    f = UNARY[name]
    a = leaf(2, 3, 2).array
    x = tensor(device.put(a), requires_grad=True)
    y = f(x)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(device.put(dy))
    numeric = numeric_gradient(lambda a: f(tensor(a)).array, a, dy)
    assert isinstance(y.array, device.array_type) and isinstance(x.grad.array, device.array_type)
    np.testing.assert_allclose(device.get(y.array), f(tensor(a)).array, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(device.get(x.grad.array), numeric, rtol=1e-6, atol=1e-7)


def test_gradients_accumulate_and_do_not_alias():
    x, y = leaf(3), leaf(3, seed=1)
    z = x + y
    z.backward(np.ones(3))
    x.grad.array[0] = 7
    assert y.grad.array[0] == 1
    (x * 1).sum().backward()
    assert x.grad.array.tolist() == [8, 2, 2]


def test_backward_needs_a_scalar_or_a_gradient():
    x = leaf(2)
    with pytest.raises(RuntimeError, match="scalar"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"\(3,\)"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(RuntimeError, match="requires_grad"):
        tensor([1.0]).backward()


@pytest.mark.parametrize("op", [lambda x: x + 1, lambda x: x.reshape(2, 3), lambda x: x.T, lambda x: x[...]])
def test_a_gradient_that_was_passed_in_stays_the_callers(op):
    x, other = leaf(3, 2), leaf(3, 2)
    dy = np.arange(6.0).reshape(op(x).shape)
    before = dy.copy()
    for times in (1, 2, 3):
        (op(x) + op(other)).backward(dy)
        assert x.grad.array.sum() == times * dy.sum()
    arrays = [x.grad.array, other.grad.array, dy]
    assert not any(np.may_share_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    np.testing.assert_array_equal(dy, before)
    np.testing.assert_array_equal(x.grad.array, other.grad.array)


def test_an_error_in_a_gradient_leaves_every_leaf_as_it_was():
    x, w = leaf(2), leaf(2, seed=1)
    kept = x * 1
    y = (kept.exp() * w).sum()
    kept.exp().sum().backward(retain_graph=True)
    before = x.grad.array.copy()
    kept._node.vjp = lambda dy, need: 1 / 0
    with pytest.raises(ZeroDivisionError):
        y.backward()
    assert w.grad is None
    np.testing.assert_array_equal(x.grad.array, before)


def test_freed_graph_and_retain_graph():
    x = leaf(2)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad.array, 4 * x.array)
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.backward()


def test_in_place_misuse_is_an_error():
    x = leaf(2)
    with pytest.raises(RuntimeError, match="no_grad"):
        x += 1
    with pytest.raises(RuntimeError, match="no_grad"):
        x[0] = 1
    w = x * 1
    y = w * w
    w.detach().zero_()  # what y's gradient needs is changed behind its back
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_in_place_ops_pass_gradients_on():
    w = tensor([1.0, 2.0], requires_grad=True)
    buffer = fastnn.zeros(2)
    buffer[0] = w[0] * 3
    (buffer * w).sum().backward()
    assert w.grad.array.tolist() == [6, 0]
    total = fastnn.zeros(2)
    total += w * 3
    total *= w
    w.grad = None
    total.sum().backward()
    assert w.grad.array.tolist() == [6, 12]
    y = w * 1
    square = y * y
    y -= 5.0  # square keeps what y was
    w.grad = None
    (square + y).sum().backward()
    assert w.grad.array.tolist() == [3, 5]
    copied = fastnn.zeros(2, 2).copy_(w)
    w.grad = None
    copied.sum().backward()
    assert w.grad.array.tolist() == [2, 2]


def test_changes_through_views_made_without_recording_are_noticed():
    w = leaf(2, 2)
    x = leaf(2, 2, seed=1)
    y = (x * w).sum()
    with fastnn.no_grad():
        w[0].fill_(100.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_an_index_that_changes_later_does_not_move_the_gradient():
    x, i = leaf(3), tensor([0, 0])
    y = x[i]
    i.fill_(1)
    y.sum().backward()
    assert x.grad.array.tolist() == [2, 0, 0]


def test_gradients_are_writable_and_accumulate():
    x = tensor([2.0], requires_grad=True)
    for expected in (1, 2):
        x.mean().backward()
        assert x.grad.array.tolist() == [expected]


def test_requires_grad_is_guarded():
    i = tensor([1])
    with pytest.raises(TypeError, match="floating-point"):
        i.requires_grad = True
    y = leaf(2) * 2
    with pytest.raises(RuntimeError, match="detach"):
        y.requires_grad = False


def test_whole_array_extremes_share_the_gradient_among_equals():
    x = tensor([3.0, 1.0, 3.0], requires_grad=True)
    x.max().backward()
    assert x.grad.array.tolist() == [0.5, 0, 0.5]
    assert leaf(2, 3).sum(()).shape == ()


def test_set_grad_enabled_in_its_three_uses():
    x = leaf(2)
    with fastnn.set_grad_enabled(False):
        assert not (x * 1).requires_grad
    assert (x * 1).requires_grad

    @fastnn.set_grad_enabled(False)
    def f():
        return x * 1

    assert fastnn.is_grad_enabled() and not f().requires_grad
    fastnn.set_grad_enabled(False)
    try:
        assert not (x * 1).requires_grad
    finally:
        fastnn.set_grad_enabled(True)


def test_change_through_a_view_is_noticed():
    x = leaf(2, 3)
    w = x * 1
    y = w.exp()
    y.reshape(6).detach().fill_(0)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_a_change_that_no_gradient_needs_is_allowed():
    x = leaf(2)
    w = x * 1
    y = w + 1  # the gradient of + needs no operand
    w.detach().zero_()
    y.sum().backward()
    assert x.grad.array.tolist() == [1, 1]


def test_in_place_under_no_grad_keeps_dtype_and_shape():
    x = leaf(2, dtype=np.float32)
    with fastnn.no_grad():
        x += 1.0
        x[0] = 5
        with pytest.raises(ValueError, match="shape"):
            x += np.ones((3, 2), np.float32)
    assert x.array[0] == 5 and x.dtype == np.float32


def test_no_grad_nests_and_belongs_to_its_thread():
    x = leaf(2)
    seen = []
    with fastnn.no_grad():
        assert not (x * 2).requires_grad
        with fastnn.enable_grad():
            assert (x * 2).requires_grad
        assert not fastnn.is_grad_enabled()
        other = threading.Thread(target=lambda: seen.append(fastnn.is_grad_enabled()))
        other.start()
        other.join()
    assert seen == [True] and fastnn.is_grad_enabled()

    @fastnn.no_grad()
    def f():
        return x * 2

    assert not f().requires_grad


def test_deep_graphs_need_no_recursion():
    x = leaf(2)
    y = x
    for _ in range(50_000):
        y = y + 1
    y.sum().backward()
    assert x.grad.array.tolist() == [1, 1]
    del y
    gc.collect()


def test_retain_grad():
    x = leaf(2)
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    np.testing.assert_allclose(y.grad.array, 2 * y.array)


def test_broadcast_error_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(4,\)"):
        leaf(2, 3) + leaf(4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: x.reshape(5), "6 elements"),
        (lambda x: x.sum(dim=2), "out of range"),
        (lambda x: x.sum(dim=(0, 0)), "twice"),
        (lambda x: x.permute(0), "permute"),
        (lambda x: x.expand(3, 3), "expand"),
        (lambda x: x[0:0].max(), "no elements"),
        (lambda x: x.item(), "item"),
        (lambda x: bool(x), "ambiguous"),
        (lambda x: fastnn.cat([x, x.T]), "cat"),
        (lambda x: fastnn.cat([]), "cat"),
    ],
)
def test_errors_name_the_op(call, message):
    with pytest.raises(ValueError, match=message):
        call(leaf(2, 3))


def test_numpy_conversion_refuses_to_lose_a_gradient():
    x = leaf(2)
    for convert in (lambda: x.numpy(), lambda: np.asarray(x)):
        with pytest.raises(RuntimeError, match="detach"):
            convert()
    assert np.shares_memory(x.detach().numpy(), x.array)
    assert np.from_dlpack(x.detach()).tolist() == x.array.tolist()


def test_comparisons_and_iteration():
    x = tensor([1.0, 2.0, 3.0])
    assert (x > 1.5).array.tolist() == [False, True, True]
    assert (x == 2).any() and not (x == 2).all()
    assert [v.item() for v in x] == [1, 2, 3]
    assert x.argmax().item() == 2
    values, indices = tensor([[1.0, 5.0], [7.0, 2.0]]).max(dim=1)
    assert values.array.tolist() == [5, 7] and indices.array.tolist() == [1, 0]
    assert len({x, x}) == 1
    assert ((x > 1) & ~(x > 2)).array.tolist() == [False, True, False]


def test_in_place_activations_change_the_tensor():
    from fastnn import functional as F

    x = tensor([-1.0, 2.0])
    assert F.relu(x, inplace=True) is x
    assert x.array.tolist() == [0, 2]
    w = leaf(3)
    y = w * 2
    F.relu(y, inplace=True)
    (y + y).sum().backward()
    np.testing.assert_allclose(w.grad.array, 4 * (w.array > 0))
    with pytest.raises(RuntimeError, match="leaf"):
        F.relu(w, inplace=True)


def test_cat_follows_pytorchs_dtypes_and_gives_each_its_own():
    a, b = leaf(2, dtype=np.float32), leaf(3)
    y = fastnn.cat([a, b, fastnn.zeros(0)])
    y.sum().backward()
    assert y.dtype == np.float64 and a.grad.dtype == np.float32
    assert fastnn.cat([tensor([1]), tensor([1.5])]).dtype == np.float32


def test_clip_with_float_bounds_makes_floats():
    assert fastnn.arange(5).clip(0.5, 2.5).array.tolist() == [0.5, 1, 2, 2.5, 2.5]
    with pytest.raises(ValueError, match="bounds"):
        leaf(2).clip(max=leaf(2))


def test_labels_changed_before_backward_are_an_error():
    x, t = leaf(4, 3), tensor([0, 1, 2, 0])
    loss = fastnn.functional.cross_entropy(x, t)
    t.copy_(tensor([1, 1, 1, 1]))
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_memory_of_a_file_is_its_owners(tmp_path):
    """NumPy's views of a subclass keep the whole way to their memory, not one step."""
    file = np.memmap(tmp_path / "seed", np.float64, "w+", shape=6)
    file[:] = 1
    x = leaf(6)
    for _ in range(2):
        x.reshape(3, 2).backward(file.reshape(3, 2))
    assert (file == 1).all() and (x.grad.array == 2).all()

    w, t = leaf(6), Tensor(np.asarray(file))
    y = (w * t).sum()
    t += 1
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_a_read_only_gradient_is_not_added_to():
    x, z = leaf(2), leaf(2)
    given = np.ones(2)
    given.flags.writeable = False
    z.grad = given
    (x * z).sum().backward()
    assert (given == 1).all()
    np.testing.assert_array_equal(z.grad.array, 1 + x.array)
    np.testing.assert_array_equal(x.grad.array, z.array)
