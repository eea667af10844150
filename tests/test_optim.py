"""Optimizers and schedules: arguments, state, loading, in-place semantics. Against PyTorch: test_vs_torch_optim.py."""

from __future__ import annotations

import gc
import json

import numpy as np
import pytest

import fastnn
from fastnn import _core, kernels, nn, optim, tape
from fastnn.optim import lr_scheduler as schedules


def parameter(rng, *shape, dtype=np.float32):
    p = nn.Parameter(rng.standard_normal(shape).astype(dtype))
    p.grad = fastnn.tensor(rng.standard_normal(shape).astype(dtype))
    return p


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 33, 40000])
def test_sgd_step_formula(rng, dtype, size):
    w, dw, b = (rng.standard_normal(size).astype(dtype) for _ in range(3))
    g = dw.astype(np.float64) + 0.1 * w
    buffer = 0.9 * b + 0.5 * g
    want = w - 0.2 * (g + 0.9 * buffer)
    kernels.sgd_step(w, dw, b, lr=0.2, momentum=0.9, dampening=0.5, weight_decay=0.1, nesterov=True)
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(b, buffer, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(w, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 33, 40000])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_step_formula(rng, dtype, size, amsgrad, decoupled):
    w, dw, m = (rng.standard_normal(size).astype(dtype) for _ in range(3))
    v, high = (rng.random(size).astype(dtype) for _ in range(2))
    x = [a.astype(np.float64) for a in (w, dw, m, v, high)]
    g = x[1] + (0 if decoupled else 0.1 * x[0])
    mean, square = 0.8 * x[2] + 0.2 * g, 0.9 * x[3] + 0.1 * g**2
    largest = np.maximum(x[4], square)
    root = np.sqrt((largest if amsgrad else square) / (1 - 0.9**3))
    want = x[0] * (1 - 0.02 * 0.1 if decoupled else 1) - 0.02 * mean / (1 - 0.8**3) / (root + 1e-8)
    options = {"beta1": 0.8, "beta2": 0.9, "weight_decay": 0.1, "decoupled": decoupled}
    kernels.adam_step(w, dw, m, v, high if amsgrad else None, step=3, lr=0.02, **options)
    tolerance = 16 * np.finfo(dtype).eps
    for got, expected in ((w, want), (m, mean), (v, square), (high, largest if amsgrad else x[4])):
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def test_strided_parameters_and_gradients_are_updated(rng):
    wide = rng.standard_normal((5, 8)).astype(np.float32)
    w, dw = wide[:, ::2], rng.standard_normal((4, 5)).astype(np.float32).T
    want, others = w - 0.5 * dw, wide[:, 1::2].copy()
    kernels.sgd_step(w, dw, lr=0.5)
    np.testing.assert_allclose(w, want, rtol=1e-6)
    np.testing.assert_array_equal(wide[:, 1::2], others)


def test_wrong_arrays_are_named_and_nothing_changes(rng):
    w, dw = rng.standard_normal((2, 3)), rng.standard_normal((3, 2))
    before = w.copy()
    with pytest.raises(ValueError, match=r"sgd_step: 'w' is \(2, 3\) float64 but 'dw' is \(3, 2\) float64"):
        kernels.sgd_step(w, dw, lr=0.1)
    with pytest.raises(ValueError, match="float32"):
        kernels.sgd_step(w, w.astype(np.float32), lr=0.1)
    with pytest.raises(TypeError, match="int64"):
        kernels.sgd_step(np.ones(2, np.int64), np.ones(2, np.int64), lr=0.1)
    with pytest.raises(ValueError, match="step counts from 1"):
        kernels.adam_step(w, w, w, w, step=0, lr=0.1)
    with pytest.raises(ValueError, match=r"momentum=0\.9 needs a buffer"):
        kernels.sgd_step(w, w, lr=0.1, momentum=0.9)
    w.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        kernels.sgd_step(w, w, lr=0.1)
    np.testing.assert_array_equal(w, before)


def test_nan_reaches_the_parameter():
    for step in (
        lambda w, dw: kernels.sgd_step(w, dw, lr=0.1),
        lambda w, dw: kernels.adam_step(w, dw, np.zeros(3), np.zeros(3), np.zeros(3), step=1, lr=0.1),
    ):
        w = np.ones(3)
        step(w, np.array([0.5, np.nan, 0.5]))
        assert np.isnan(w).tolist() == [False, True, False]


def test_same_bits_on_1_2_3_threads(rng, threads):
    start, dw = rng.standard_normal(100_001).astype(np.float32), rng.standard_normal(100_001).astype(np.float32)
    seen = set()
    for count in (1, 2, 3):
        threads(count)
        w, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
        kernels.adam_step(w, dw, m, v, step=1, lr=0.1)
        kernels.sgd_step(w, dw, m, lr=0.1, momentum=0.9)
        seen.add(w.tobytes() + m.tobytes() + v.tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_parameters_without_gradient_are_left_alone(rng, make):
    p, q = parameter(rng, 3), parameter(rng, 3)
    q.grad = None
    before = q.array.copy()
    optimizer = make([p, q], lr=0.1)
    optimizer.step()
    np.testing.assert_array_equal(q.array, before)
    assert q not in optimizer.state


def test_update_is_noticed_by_the_tape(rng):
    p = parameter(rng, 3)
    y = (p * p).sum()
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_closure_is_run_with_gradients_and_its_loss_returned(rng):
    p = nn.Parameter(np.array([3.0], np.float32))
    optimizer = optim.SGD([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with fastnn.no_grad():
        assert optimizer.step(closure).item() == 9.0
    assert p.tolist() == [0.0]


def test_zero_grad(rng):
    p = parameter(rng, 3)
    gradient = p.grad.array
    optimizer = optim.SGD([p])
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.array is gradient and not gradient.any()
    optimizer.zero_grad()
    assert p.grad is None


def test_groups_have_their_own_options(rng):
    p, q = parameter(rng, 3), parameter(rng, 3)
    optimizer = optim.SGD([{"params": [p]}, {"params": q, "lr": 0.0}], lr=0.1)
    before = p.array.copy(), q.array.copy()
    optimizer.step()
    np.testing.assert_allclose(p.array, before[0] - 0.1 * p.grad.array, rtol=1e-6)
    np.testing.assert_array_equal(q.array, before[1])
    optimizer.param_groups[1]["lr"] = 1.0
    optimizer.step()
    np.testing.assert_allclose(q.array, before[1] - q.grad.array, rtol=1e-6)


def test_bad_arguments(rng):
    p = parameter(rng, 3)
    cases = [
        (ValueError, "empty", lambda: optim.SGD([])),
        (TypeError, "one Tensor", lambda: optim.SGD(p)),
        (TypeError, "can only train tensors", lambda: optim.SGD([np.ones(3)])),
        (TypeError, "order", lambda: optim.SGD([{"params": {p}}])),
        (ValueError, "result of an op", lambda: optim.SGD([p * 2])),
        (ValueError, "appears twice", lambda: optim.SGD([p, p])),
        (ValueError, "appears twice", lambda: optim.SGD([{"params": [p]}, {"params": [p]}])),
        (TypeError, "unknown option momentun", lambda: optim.SGD([{"params": [p], "momentun": 1}])),
        (ValueError, "lr must be at least 0, got -1", lambda: optim.SGD([p], lr=-1)),
        (ValueError, "momentum must be", lambda: optim.SGD([p], momentum=-1)),
        (ValueError, "weight_decay must be", lambda: optim.SGD([p], weight_decay=-1)),
        (ValueError, "nesterov needs", lambda: optim.SGD([p], nesterov=True)),
        (ValueError, "lr must be at least 0, got nan", lambda: optim.Adam([p], lr=float("nan"))),
        (ValueError, r"betas\[1\] must be in \[0, 1\), got 1", lambda: optim.Adam([p], betas=(0.9, 1))),
        (ValueError, "AdamW: eps", lambda: optim.AdamW([p], eps=-1)),
        (ValueError, "SGD: foreach=True is not supported", lambda: optim.SGD([p], foreach=True)),
        (ValueError, "Adam: fused=True is not supported", lambda: optim.Adam([p], fused=True)),
        (ValueError, "AdamW: capturable=True is not supported", lambda: optim.AdamW([p], capturable=True)),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message):
            call()


def test_arguments_of_pytorch_that_ask_for_nothing(rng):
    nothing = {"foreach": None, "differentiable": False, "fused": False}
    p = parameter(rng, 3)
    for optimizer in (
        optim.SGD([p], **nothing),
        optim.Adam([p], capturable=False, **nothing),
        optim.AdamW([p], capturable=False, **nothing),
    ):
        assert not set(nothing) & set(optimizer.param_groups[0])


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, momentum=0.9), lambda p: optim.Adam(p, amsgrad=True)])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda p: setattr(p.grad, "array", np.ones(4)), ValueError, r"\(3,\) float32 but its gradient is \(4,\)"),
        (lambda p: setattr(p.grad, "array", np.ones(3)), ValueError, "its gradient is .* float64"),
        (lambda p: setattr(p, "array", p.array.astype(np.float16)), TypeError, "got float16"),
        (lambda p: p.array.setflags(write=False), ValueError, "read-only"),
    ],
)
def test_a_step_updates_all_groups_or_nothing(rng, make, started, spoil, kind, message):
    p, q = parameter(rng, 2), parameter(rng, 3)
    optimizer = make([{"params": [p]}, {"params": [q], "lr": 0.5}])
    if started:
        optimizer.step()
    spoil(q)

    def everything():
        state = [(k, str(v)) for s in optimizer.state_dict()["state"].values() for k, v in s.items()]
        return p.array.tobytes(), q.array.tobytes(), tape._last_change, state

    before = everything()
    with pytest.raises(kind, match=f"parameter 0 of group 1 .*{message}"):
        optimizer.step()
    assert everything() == before


def test_a_gradient_is_checked_where_it_is_assigned(rng):
    p = parameter(rng, 3)
    p.grad = np.ones(3, np.float32)
    assert isinstance(p.grad, fastnn.Tensor) and p.grad.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"the tensor is \(3,\) float32 but the gradient is \(4,\) float32"):
        p.grad = fastnn.ones(4)
    with pytest.raises(ValueError, match=r"the gradient is .* float64"):
        p.grad = p.grad.double()
    with pytest.raises(TypeError, match="got list"):
        p.grad = [1.0, 2.0, 3.0]
    assert p.grad.tolist() == [1, 1, 1]


def test_state_of_another_dtype_is_named_before_the_step(rng):
    p = parameter(rng, 3)
    optimizer = optim.Adam([p])
    optimizer.step()
    p.array, p.grad.array = p.array.astype(np.float64), p.grad.array.astype(np.float64)
    with pytest.raises(ValueError, match=r"float64 but its exp_avg is .* float32"):
        optimizer.step()
    assert optimizer.state[p]["step"] == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: optim.Adam(p, lr=0.1, amsgrad=True),
        lambda p: optim.AdamW(p, lr=0.1),
    ],
)
def test_state_dict_resumes_with_the_same_bits(rng, make):
    shapes = [(3, 4), (5,), ()]
    gradients = [[rng.standard_normal(s).astype(np.float32) for s in shapes] for _ in range(6)]

    def run(parameters, optimizer, steps):
        for step in steps:
            for p, g in zip(parameters, gradients[step]):
                p.grad = fastnn.tensor(g)
            optimizer.step()

    start = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    whole = [nn.Parameter(a.copy()) for a in start]
    first = make(whole)
    run(whole, first, range(3))
    saved, values = first.state_dict(), [p.array.copy() for p in whole]
    numbers = json.loads(json.dumps(saved["param_groups"]))  # options are plain numbers
    copies = {str(i): {k: v.array.copy() if isinstance(v, fastnn.Tensor) else v for k, v in s.items()}
              for i, s in saved["state"].items()}  # fmt: skip
    run(whole, first, range(3, 6))

    resumed = [nn.Parameter(a.copy()) for a in values]
    second = make(resumed)
    second.load_state_dict({"state": copies, "param_groups": numbers})
    run(resumed, second, range(3, 6))
    assert [p.array.tobytes() for p in whole] == [p.array.tobytes() for p in resumed]


def test_loading_what_does_not_fit_changes_nothing(rng):
    p, q = parameter(rng, 3), parameter(rng, 4)
    source = optim.SGD([p], momentum=0.9, lr=0.5)
    source.step()
    target = optim.SGD([q], momentum=0.9, lr=0.1)
    with pytest.raises(ValueError, match=r"'momentum_buffer' of parameter 0 has shape \(3,\), the parameter \(4,\)"):
        target.load_state_dict(source.state_dict())
    with pytest.raises(ValueError, match=r"saved groups have \[1\] parameters, this optimizer's have \[2\]"):
        optim.SGD([p, q]).load_state_dict(source.state_dict())
    with pytest.raises(TypeError, match="'state' and 'param_groups'"):
        target.load_state_dict({})
    assert target.param_groups[0]["lr"] == 0.1 and not target.state


def test_state_of_another_optimizer_is_refused(rng):
    def stepped(make, **options):
        optimizer = make([parameter(rng, 3)], lr=0.1, **options)
        optimizer.step()
        return optimizer

    sgd, adam, adamw = stepped(optim.SGD, momentum=0.9), stepped(optim.Adam), stepped(optim.AdamW)
    for target, source, message in (
        (sgd, adam, r"SGD.load_state_dict: the state of parameter 0 holds exp_avg, exp_avg_sq; SGD keeps"),
        (adam, sgd, r"Adam.load_state_dict: the state of parameter 0 holds momentum_buffer; Adam keeps"),
        (optim.SGD([parameter(rng, 3)]), optim.Adam([parameter(rng, 3)]), "the saved options hold amsgrad, betas"),
        (adamw, adam, "the saved options hold decoupled_weight_decay=False"),
        (adam, adamw, "the saved options hold decoupled_weight_decay=True"),
    ):
        before = str(target.state_dict())
        with pytest.raises(ValueError, match=message):
            target.load_state_dict(source.state_dict())
        assert str(target.state_dict()) == before
    saved = sgd.state_dict()
    saved["param_groups"][0]["foreach"] = None  # as PyTorch saves it
    sgd.load_state_dict(saved)
    assert "foreach" not in sgd.param_groups[0]


def test_a_step_of_many_parameters_gives_the_bits_of_each_alone(rng, threads):
    sizes = [0, 1, 7, 64, 65, 100_003, 5, 32768, 70_000]
    arrays = [[rng.random(n).astype(np.float32) for n in sizes] for _ in range(5)]

    def copies():
        return [[x.copy() for x in column] for column in arrays]

    options = {"lr": 0.1, "weight_decay": 0.01}
    for count in (1, 3):
        threads(count)
        together, alone = copies(), copies()
        kernels.sgd_step(*together[:3], momentum=0.9, nesterov=True, **options)
        kernels.adam_step(*together, step=3, **options)
        for row in zip(*alone):
            kernels.sgd_step(*row[:3], momentum=0.9, nesterov=True, **options)
            kernels.adam_step(*row, step=3, **options)
        assert [x.tobytes() for c in together for x in c] == [x.tobytes() for c in alone for x in c]


def test_parameters_of_two_dtypes_or_on_shared_memory_are_stepped_one_by_one(rng):
    p, q = parameter(rng, 3), parameter(rng, 4, dtype=np.float64)
    want = [t.array - 0.5 * t.grad.array for t in (p, q)]
    optim.SGD([p, q], lr=0.5).step()
    for t, w in zip((p, q), want):
        np.testing.assert_allclose(t.array, w, rtol=1e-6)
    whole, dw = np.zeros(4), np.ones(3)
    kernels.sgd_step([whole[:3], whole[1:]], [dw, dw], lr=1.0)
    assert whole.tolist() == [-1, -2, -2, -1]


def test_a_list_that_grows_while_it_is_read(rng):
    w, dw = [np.ones(3) for _ in range(20)], [np.ones(3) for _ in range(30)]

    class Grower:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            w.extend(np.ones(3) for _ in range(10))

    gc.disable()
    try:
        Grower()
        kept = [[] for _ in range(2000)]  # so many that the collector runs at the next container: the lists as tuples
        gc.enable()
        result = _core.attempt.sgd_step(dw, w, None, 0.5, 0.0, 0.0, 0.0, 0, 0, 0)
    finally:
        gc.enable()
    assert len(kept) == 2000 and len(w) == 30
    assert {tuple(x) for x in w} == ({(0.5,) * 3} if result else {(1.0,) * 3})


def test_the_norm_of_all_gradients_and_scaling_it(rng):
    arrays = [rng.standard_normal(n).astype(t) for n in (0, 3, 70_001, 128) for t in (np.float32, np.float64)]
    vector = np.concatenate([a.astype(np.float64) for a in arrays])
    for p in (1, 2, 3.5, np.inf):
        np.testing.assert_allclose(kernels.total_norm(arrays, p), np.linalg.norm(vector, p), rtol=1e-6)
    assert kernels.total_norm([], 2) == 0
    poisoned = [*arrays, np.array([1.0, np.nan]), np.ones(3)]
    assert all(np.isnan(kernels.total_norm(poisoned, p)) for p in (1, 2, np.inf))
    strided = np.ones((4, 4), np.float32)
    kernels.scale([arrays[2], strided[:, ::2]], 0.5)
    assert strided.sum() == 12
    np.testing.assert_allclose(kernels.total_norm(strided[:, ::2]), 8**0.5 / 2)


def make_optimizer():
    return optim.SGD([nn.Parameter(np.ones(1, np.float32))], lr=0.5, momentum=0.9)


SCHEDULES = {
    "step": lambda o: schedules.StepLR(o, 3),
    "multi_step": lambda o: schedules.MultiStepLR(o, [2, 5, 5]),
    "exponential": lambda o: schedules.ExponentialLR(o, 0.9),
    "cosine": lambda o: schedules.CosineAnnealingLR(o, 7, 0.01),
    "linear": lambda o: schedules.LinearLR(o, total_iters=4),
    "one_cycle": lambda o: schedules.OneCycleLR(o, 1.0, 20),
    "plateau": lambda o: schedules.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_resumes_from_its_state_as_json(name):
    def advance(scheduler, steps):
        return [
            (scheduler.step(*([1.0] if name == "plateau" else [])), scheduler.get_last_lr())[1] for _ in range(steps)
        ]

    first = SCHEDULES[name](make_optimizer())
    advance(first, 4)
    saved = json.loads(json.dumps([first.state_dict(), first.optimizer.state_dict()["param_groups"]]))
    expected = advance(first, 10)
    second = SCHEDULES[name](make_optimizer())
    second.load_state_dict(saved[0])
    second.optimizer.load_state_dict({"state": {}, "param_groups": saved[1]})
    assert advance(second, 10) == expected


def test_lambda_schedule_per_group():
    o = optim.SGD([{"params": [nn.Parameter(np.ones(1))]}, {"params": [nn.Parameter(np.ones(1))], "lr": 2.0}], lr=1.0)
    s = schedules.LambdaLR(o, [lambda e: 1 / (e + 1), lambda e: 0.5**e])
    s.step()
    assert s.get_last_lr() == [0.5, 1.0]
    assert "lr_lambdas" not in s.state_dict()


def test_schedule_arguments():
    o = make_optimizer()
    cases = [
        (TypeError, "expected an Optimizer", lambda: schedules.StepLR(None, 3)),
        (ValueError, "step_size must be an int of at least 1", lambda: schedules.StepLR(o, 0)),
        (ValueError, "T_max", lambda: schedules.CosineAnnealingLR(o, 0)),
        (ValueError, "start_factor", lambda: schedules.LinearLR(o, 0)),
        (ValueError, "give total_steps", lambda: schedules.OneCycleLR(o, 1.0)),
        (ValueError, "2 values for 1", lambda: schedules.OneCycleLR(o, [1.0, 2.0], 10)),
        (ValueError, "anneal_strategy", lambda: schedules.OneCycleLR(o, 1.0, 10, anneal_strategy="x")),
        (ValueError, "mode must be", lambda: schedules.ReduceLROnPlateau(o, "low")),
        (ValueError, "factor must be below 1", lambda: schedules.ReduceLROnPlateau(o, factor=1)),
        (KeyError, "initial_lr", lambda: schedules.StepLR(make_optimizer(), 3, last_epoch=4)),
        (ValueError, "unknown entries nonsense", lambda: schedules.StepLR(o, 3).load_state_dict({"nonsense": 1})),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message):
            call()
    last = schedules.OneCycleLR(make_optimizer(), 1.0, 2)
    last.step(), last.step()
    with pytest.raises(ValueError, match="step 3 of a schedule of total_steps=2"):
        last.step()
