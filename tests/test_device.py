"""Tensors, modules, optimizers and files across devices: the same numbers on each, moved where they are told to."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim


def host(t):
    return t.detach().cpu().numpy()


def test_a_tensor_goes_there_and_back(gpu, rng):
    x = rng.standard_normal((3, 5)).astype(np.float32)
    t = fastnn.tensor(x)
    there = t.to("cuda")
    assert there.device == "cuda:0" and t.device == "cpu" and isinstance(there.array, gpu.array_type)
    assert there.to("cuda:0") is there and there.cuda() is there and t.cpu() is t
    back = there.cpu()
    assert type(back.array) is np.ndarray
    np.testing.assert_array_equal(back.array, x)
    np.testing.assert_array_equal(there.numpy(), x)
    np.testing.assert_array_equal(np.asarray(there), x)
    assert there.tolist() == x.tolist() and there[1, 2].item() == x[1, 2]
    assert "device='cuda:0'" in repr(there) and "device" not in repr(back)


def test_constructors_make_tensors_on_the_device(gpu):
    make = [
        lambda d: fastnn.tensor([1.5, 2], device=d),
        lambda d: fastnn.zeros(2, 3, device=d),
        lambda d: fastnn.ones((2,), dtype=np.int64, device=d),
        lambda d: fastnn.full((2, 2), 7, device=d),
        lambda d: fastnn.arange(5, device=d),
        lambda d: fastnn.eye(3, device=d),
        lambda d: fastnn.zeros(0, 4, device=d),
    ]
    for f in make:
        a, b = f("cpu"), f("cuda")
        assert b.device == "cuda:0" and a.dtype == b.dtype
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    there = fastnn.ones(2, device="cuda")
    assert fastnn.zeros_like(there).device == fastnn.ones_like(there).device == "cuda:0"
    assert fastnn.tensor(there).device == fastnn.tensor(there.array).device == "cuda:0"
    assert fastnn.tensor(there, device="cpu").device == "cpu"
    assert fastnn.tensor(there, dtype=np.float64).dtype == np.float64


def test_random_tensors_have_the_cpus_numbers(gpu):
    for make in (fastnn.rand, fastnn.randn):
        fastnn.manual_seed(3)
        a = make(5, 7)
        fastnn.manual_seed(3)
        b = make(5, 7, device="cuda")
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-7, atol=1e-7)


def test_gradients_go_back_where_the_leaf_lives(gpu, rng):
    x = fastnn.tensor(rng.standard_normal((4, 3)).astype(np.float32), requires_grad=True)
    y = x.to("cuda").relu().cpu().sum()
    y.backward()
    assert x.grad.device == "cpu"
    np.testing.assert_array_equal(x.grad.numpy(), (x.detach().numpy() > 0).astype(np.float32))
    leaf = fastnn.tensor(x.detach(), device="cuda", requires_grad=True)
    leaf.relu().backward(fastnn.ones(4, 3, device="cuda"))
    assert leaf.grad.device == "cuda:0"
    np.testing.assert_array_equal(leaf.grad.numpy(), x.grad.numpy())
    leaf.grad = None
    with pytest.raises(ValueError, match="'tensor' is on cuda:0 but 'gradient' is on cpu"):
        leaf.relu().backward(fastnn.ones(4, 3))
    with pytest.raises(ValueError, match=r"cuda:0.*cpu"):
        leaf.grad = fastnn.ones(4, 3)


def test_in_place_changes(gpu):
    t = fastnn.zeros(2, 3, device="cuda")
    t.fill_(2)
    t[0] = 5
    t.copy_(t.cpu() * 2)
    assert t.device == "cuda:0" and host(t).tolist() == [[10.0] * 3, [4.0] * 3]
    t.zero_()
    assert not host(t).any()


def test_dlpack_shares_the_devices_memory(gpu):
    t = fastnn.arange(6, dtype=np.float32, device="cuda")
    same = fastnn.from_dlpack(t.array)
    same.fill_(3)
    assert host(t).tolist() == [3.0] * 6

    class Foreign:  # another library's array
        __dlpack__ = t.array.__dlpack__
        __dlpack_device__ = t.array.__dlpack_device__

    shared = fastnn.from_dlpack(Foreign())
    t.fill_(4)
    assert shared.device == "cuda:0" and host(shared).tolist() == [4.0] * 6
    assert t.__dlpack_device__() == (2, 0)


def test_dlpack_on_the_cpu():
    x = np.arange(4.0)
    t = fastnn.from_dlpack(x)
    t.fill_(1)
    assert x.tolist() == [1.0] * 4

    class Foreign:
        __dlpack__ = x.__dlpack__
        __dlpack_device__ = x.__dlpack_device__

    assert np.shares_memory(fastnn.from_dlpack(Foreign()).array, x)
    assert np.shares_memory(np.from_dlpack(t), x)
    with pytest.raises(TypeError, match="__dlpack__"):
        fastnn.from_dlpack([1.0])


def test_mixed_devices_are_refused_by_name(gpu, rng):
    a, b = fastnn.ones(2, 2), fastnn.ones(2, 2, device="cuda")
    for call in (
        lambda: a @ b,
        lambda: b @ a,
        lambda: fastnn.functional.linear(b, a),
        lambda: fastnn.kernels.gemm(b.array, b.array, bias=np.ones(2, np.float32)),
        lambda: fastnn.kernels.relu_backward(a.array, b.array),
        lambda: fastnn.kernels.relu_backward(b.array, a.array),
        lambda: a + b,
        lambda: b * a,
    ):
        with pytest.raises((TypeError, ValueError), match=r"cpu.*cuda:0|cuda:0.*cpu"):
            call()
    with pytest.raises(TypeError, match="'out' must be a ndarray on cuda:0"):
        fastnn.kernels.relu(b.array, out=np.empty((2, 2), np.float32))


def test_a_module_moves_with_its_gradients(gpu, rng):
    fastnn.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    weight = net[0].weight
    weight.grad = fastnn.ones(3, 4)
    assert net.cuda() is net and net[0].weight is weight
    assert all(p.device == "cuda:0" for p in [*net.parameters(), *net.buffers()]) and weight.grad.device == "cuda:0"
    state = net.state_dict()
    assert {v.device for v in state.values()} == {"cuda:0"}
    for name, value in state.items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    net.to("cpu", np.float64)
    assert weight.device == weight.grad.device == "cpu" and weight.grad.dtype == np.float64
    net.load_state_dict(state)  # from the device to the CPU
    np.testing.assert_allclose(weight.detach().numpy(), before["0.weight"])
    net.to("cuda", np.float32).load_state_dict(before)  # and back
    np.testing.assert_array_equal(host(weight), before["0.weight"])


def test_layers_made_on_the_device_start_from_the_cpus_numbers(gpu):
    fastnn.manual_seed(1)
    a = nn.Linear(5, 4)
    fastnn.manual_seed(1)
    b = nn.Linear(5, 4, device="cuda")
    assert b.weight.device == "cuda:0"
    np.testing.assert_array_equal(a.weight.detach().numpy(), host(b.weight))
    for init in ("trunc_normal_", "xavier_normal_", "ones_", "eye_"):
        fastnn.manual_seed(2)
        getattr(nn.init, init)(a.weight)
        fastnn.manual_seed(2)
        getattr(nn.init, init)(b.weight)
        np.testing.assert_allclose(a.weight.detach().numpy(), host(b.weight), rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: optim.Adam(p, 0.1)])
def test_optimizers_step_there_and_their_state_moves(gpu, rng, make):
    w, g = rng.standard_normal((2, 7)).astype(np.float32)
    cpu, there = (fastnn.tensor(w, device=d, requires_grad=True) for d in ("cpu", "cuda"))
    ours, theirs = make([cpu]), make([there])
    for _ in range(3):
        cpu.grad, there.grad = fastnn.tensor(g), fastnn.tensor(g, device="cuda")
        ours.step()
        theirs.step()
    np.testing.assert_allclose(cpu.detach().numpy(), host(there), rtol=1e-6)
    remembered = [v for v in theirs.state[there].values() if isinstance(v, fastnn.Tensor)]
    assert remembered and all(v.device == "cuda:0" for v in remembered)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert all(v.device == "cpu" for v in ours.state[cpu].values() if isinstance(v, fastnn.Tensor))
    assert all(v.device == "cuda:0" for v in theirs.state[there].values() if isinstance(v, fastnn.Tensor))
    ours.step()
    theirs.step()
    np.testing.assert_allclose(cpu.detach().numpy(), host(there), rtol=1e-6)
    layer = nn.Linear(2, 2)
    late = make(layer.parameters())
    layer(fastnn.ones(1, 2)).sum().backward()
    late.step()
    layer.to("cuda")
    with pytest.raises(ValueError, match=r"is on cuda:0 but its .* is on cpu: move the model before"):
        late.step()
    late.load_state_dict(late.state_dict())
    late.step()


def test_clipping_gradients(gpu, rng):
    g = rng.standard_normal((3, 4)).astype(np.float32)
    results = []
    for d in ("cpu", "cuda"):
        p = fastnn.zeros(3, 4, device=d, requires_grad=True)
        p.grad = fastnn.tensor(g, device=d)
        total = nn.utils.clip_grad_norm_([p], 0.5)
        nn.utils.clip_grad_value_([p], 0.1)
        assert total.device == p.grad.device == p.device
        results.append((float(total), host(p.grad)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6)


def test_files_hold_arrays_of_any_device(gpu, tmp_path):
    there = fastnn.arange(6, dtype=np.float32, device="cuda").reshape(2, 3)
    fastnn.save({"x": there, "y": there.array}, tmp_path / "a.safetensors")
    fastnn.save({"x": there.cpu(), "y": there.cpu()}, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = fastnn.load(tmp_path / "a.safetensors", device="cuda")
    assert isinstance(loaded["x"], gpu.array_type)
    np.testing.assert_array_equal(loaded["x"].get(), there.numpy())
    assert type(fastnn.load(tmp_path / "a.safetensors")["x"]) is np.ndarray


def test_copies_and_empty_shapes(gpu):
    t = fastnn.ones(2, 3, device="cuda")
    assert t.clone().device == "cuda:0" and t.T.contiguous().array.flags.c_contiguous
    assert bool((t == t).all()) and bool((t > 0).any()) and host(~(t > 1)).all()
    assert host(fastnn.zeros(0, 3, device="cuda").relu()).shape == (0, 3)


def trainer_on(device, out):
    from fastnn.data import ArrayDataset, DataLoader
    from fastnn.train import Trainer

    rng = np.random.default_rng(0)
    data = ArrayDataset(rng.random((12, 1, 4, 4), np.float32), rng.integers(0, 3, 12))
    fastnn.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, device=device, out=out, quiet=True, seed=3)
    return trainer, DataLoader(data, batch_size=4, shuffle=True)


def test_a_run_goes_on_on_another_device(gpu, tmp_path):
    """Its checkpoints hold the arrays of any device; the rest of the run differs by rounding alone."""
    whole, loader = trainer_on("cpu", tmp_path / "whole")
    whole.fit(loader, loader, epochs=4)
    out = tmp_path / "moved"
    for epochs, device in ((2, "cuda"), (3, "cpu"), (4, "cuda")):
        trainer, loader = trainer_on(device, out)
        trainer.fit(loader, loader, epochs=epochs, resume=epochs > 2)
        assert trainer.epoch == epochs and {p.device for p in trainer.model.parameters()} <= {"cpu", "cuda:0"}
    for a, b in zip(whole.model.parameters(), trainer.model.parameters()):
        np.testing.assert_allclose(host(a), host(b), rtol=1e-4, atol=1e-6)
    assert trainer.history[-1]["train"]["loss"] == pytest.approx(whole.history[-1]["train"]["loss"], rel=1e-5)
