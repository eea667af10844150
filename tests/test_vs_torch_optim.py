"""Optimizers and schedules against PyTorch's, option by option."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim

torch = pytest.importorskip("torch")

SHAPES = [(7, 5), (33,), (), (3, 2, 5, 5)]


def compare(name, options, steps=50, dtype=np.float32, groups=False, scheduler=None):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(s).astype(dtype) for s in SHAPES]
    ours = [nn.Parameter(a.copy()) for a in start]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in start]

    def make(module, parameters):
        if groups:
            parameters = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.05, "weight_decay": 0.01}]
        return getattr(module, name)(parameters, **options)

    a, b = make(optim, ours), make(torch.optim, theirs)
    for step in range(steps):
        for i, (p, q) in enumerate(zip(ours, theirs)):
            gradient = rng.standard_normal(p.shape).astype(dtype)
            absent = i == 1 and step % 5 == 2
            p.grad = None if absent else fastnn.tensor(gradient)
            q.grad = None if absent else torch.tensor(gradient)
        if step % 10 == 9:  # the rate may change at any step
            for group in (*a.param_groups, *b.param_groups):
                group["lr"] *= 0.7
        a.step()
        b.step()
    tolerance = 200 * np.finfo(dtype).eps  # 50 steps of rounding
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.array, q.detach().numpy(), rtol=tolerance, atol=tolerance)
    return a, b


SGD_OPTIONS = [
    {},
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "maximize": True},
    {"lr": 0.1, "weight_decay": 0.1},
]
ADAM_OPTIONS = [
    {},
    {"lr": 0.05, "betas": (0.8, 0.95)},
    {"lr": 0.05, "weight_decay": 0.1},
    {"lr": 0.05, "amsgrad": True},
    {"lr": 0.05, "amsgrad": True, "maximize": True, "weight_decay": 0.1, "eps": 1e-3},
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [*(("SGD", o) for o in SGD_OPTIONS), *((n, o) for n in ("Adam", "AdamW") for o in ADAM_OPTIONS)],
)
def test_fifty_steps(name, options, groups, dtype):
    compare(name, options, dtype=dtype, groups=groups)


@pytest.mark.parametrize(
    ("name", "options"), [("SGD", {"lr": 0.1, "momentum": 0.9}), ("Adam", {"amsgrad": True}), ("AdamW", {})]
)
def test_state_dict_has_pytorchs_structure_and_loads_it(name, options):
    a, b = compare(name, options, steps=5)
    mine, other = a.state_dict(), b.state_dict()
    assert mine["state"].keys() == other["state"].keys()
    for i, entry in other["state"].items():
        assert mine["state"][i].keys() == entry.keys()
    for x, y in zip(mine["param_groups"], other["param_groups"]):
        assert x.keys() <= y.keys() and all(x[k] == y[k] for k in x)
    fresh = getattr(optim, name)([nn.Parameter(np.zeros(s, np.float32)) for s in SHAPES])
    fresh.load_state_dict(
        {**other, "state": {i: {k: v.numpy() for k, v in e.items()} for i, e in other["state"].items()}}
    )
    for p, entry in zip(fresh.param_groups[0]["params"], other["state"].values()):
        for key, value in entry.items():
            got = fresh.state[p][key]
            np.testing.assert_array_equal(got.array if isinstance(got, fastnn.Tensor) else got, value.numpy())


SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [8, 2, 2, 11]}),
    ("ExponentialLR", {"gamma": 0.95}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
    ("CosineAnnealingLR", {"T_max": 40}),
    ("CosineAnnealingLR", {"T_max": 1}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.5, "total_iters": 13}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 40}),
    ("OneCycleLR", {"max_lr": 1.0, "epochs": 10, "steps_per_epoch": 4, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 45, "three_phase": True, "pct_start": 0.4, "div_factor": 10.0}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 40, "cycle_momentum": False, "final_div_factor": 10.0}),
]


def pair_of(name="SGD", **options):
    a = getattr(optim, name)([nn.Parameter(np.ones(1, np.float32))], lr=0.5, **options)
    return a, getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(1))], lr=0.5, **options)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_schedule(name, options, optimizer):
    a, b = pair_of(optimizer, **({"momentum": 0.9} if optimizer == "SGD" else {}))
    mine = getattr(optim.lr_scheduler, name)(a, **options)
    other = getattr(torch.optim.lr_scheduler, name)(b, **options)
    b.step()
    for _ in range(40):
        assert mine.get_last_lr() == pytest.approx(other.get_last_lr(), rel=1e-12, abs=1e-15)
        for key in ("momentum", "betas"):
            if key in a.param_groups[0]:
                assert a.param_groups[0][key] == pytest.approx(b.param_groups[0][key], rel=1e-12)
        mine.step()
        other.step()


def test_schedules_chain():
    a, b = pair_of()
    mine = [optim.lr_scheduler.LinearLR(a), optim.lr_scheduler.ExponentialLR(a, 0.9)]
    other = [torch.optim.lr_scheduler.LinearLR(b), torch.optim.lr_scheduler.ExponentialLR(b, 0.9)]
    b.step()
    for _ in range(20):
        for s in (*mine, *other):
            s.step()
        assert a.param_groups[0]["lr"] == pytest.approx(b.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize(
    "name", ["StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR", "LinearLR", "OneCycleLR"]
)
def test_schedule_resumed_by_last_epoch(name):
    options = next(o for n, o in SCHEDULES if n == name)
    a, b = pair_of(momentum=0.9)
    for group in (a.param_groups[0], b.param_groups[0]):
        group.update(initial_lr=0.5, max_lr=1.0, min_lr=1e-3, max_momentum=0.95, base_momentum=0.85)
    mine = getattr(optim.lr_scheduler, name)(a, **options, last_epoch=4)
    other = getattr(torch.optim.lr_scheduler, name)(b, **options, last_epoch=4)
    b.step()
    for _ in range(20):
        assert mine.get_last_lr() == pytest.approx(other.get_last_lr(), rel=1e-12)
        mine.step()
        other.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("cooldown", [0, 3])
def test_plateau(mode, threshold_mode, cooldown):
    rng = np.random.default_rng(1)
    a, b = pair_of()
    options = {"mode": mode, "threshold_mode": threshold_mode, "threshold": 0.05, "patience": 2, "cooldown": cooldown}
    options |= {"factor": 0.5, "min_lr": 0.01}
    mine = optim.lr_scheduler.ReduceLROnPlateau(a, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = torch.optim.lr_scheduler.ReduceLROnPlateau(b, **options)
    for step in range(60):
        metric = (
            float("nan")
            if step == 30
            else float(rng.standard_normal() * 0.1 + (1 if mode == "max" else -1) * step / 30)
        )
        mine.step(metric)
        other.step(metric)
        assert mine.get_last_lr() == other.get_last_lr()
