"""Work on a GPU that is not CuPy's current one: whatever CuPy itself does must be told where, or it works elsewhere.

The emulated device stands for the other GPU. CuPy's functions (the stand-in's) are refused outside its ``current()``.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

import fastnn
from fastnn import functional as F
from fastnn import nn, optim
from fastnn.cuda import device as devices
from fastnn.data import ArrayDataset, DataLoader, RandomCrop, RandomHorizontalFlip
from fastnn.kernels import _backend
from fastnn.train import Trainer


@pytest.fixture
def other(emulated, monkeypatch):
    from emulator import fake_array
    from emulator.device import EmulatedDevice

    inside: list[bool] = []

    class Other(EmulatedDevice):
        several = True

        @contextmanager
        def current(self):
            inside.append(True)
            try:
                yield
            finally:
                inside.pop()

    def only_inside(function):
        def wrapped(*args, **kwargs):
            assert inside, f"CuPy's {function.__name__} is called where another GPU may be current"
            return function(*args, **kwargs)

        return wrapped

    for name in ("_allocate", "_ufunc"):
        monkeypatch.setattr(fake_array, name, only_inside(getattr(fake_array, name)))
    for name in ("fill", "__setitem__"):
        monkeypatch.setattr(fake_array.ndarray, name, only_inside(getattr(fake_array.ndarray, name)))
    monkeypatch.setattr(_backend, "_alone", {np.ndarray})
    gpu = Other()
    devices.install(gpu)
    yield gpu
    devices.install(None)


def test_a_training_on_another_gpu(other, rng):
    images = rng.integers(0, 256, (24, 1, 8, 8), np.uint8)
    data = ArrayDataset(images, (np.arange(24) % 3).astype(np.int32), mean=0.5, std=0.25)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(64, 3),
    )  # fmt: skip
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(weight=fastnn.tensor([1.0, 2.0, 1.0], device="cuda")),
        optim.Adam(model.parameters(), 0.01),
        metrics=("accuracy", "top5"),
        device="cuda",
        quiet=True,
    )
    transform = [RandomCrop(8, padding=1), RandomHorizontalFlip()]
    loader = DataLoader(data.to("cuda"), 8, shuffle=True, transform=transform, num_workers=1)
    history = trainer.fit(loader, DataLoader(data, 8), epochs=2)
    assert len(history) == 2
    model.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())
    trainer.optimizer.zero_grad(set_to_none=False)
    assert trainer.predict(images[:3].astype(np.float32)).shape == (3, 3)
    model.double().cpu()


def test_tensors_on_another_gpu(other, rng):
    x = fastnn.tensor(rng.standard_normal((3, 4)), device="cuda", requires_grad=True)
    y = fastnn.randn(3, 4, dtype=np.float64, device="cuda")
    for _ in range(2):
        z = (x * 2 + y.t().contiguous().t()) @ y.t() + x.sum(1) + x.max() + x[1:, [0, 2]].mean() + x.float().exp().sum()
        z = z + fastnn.where(x > y, x, 0.0).sum() + fastnn.cat([x, y]).abs().max(0)[0].sum() + (x == y).any().float()
        F.mse_loss(z, z.detach() * 0.5).backward()
    with fastnn.no_grad():
        x += 1
        x[0] = 5
        x.zero_()
    assert x.grad.shape == (3, 4) and float(x.sum()) == 0
    w = fastnn.ones(4, dtype=np.float64, device="cuda")
    F.binary_cross_entropy(x.sigmoid(), fastnn.ones_like(x), weight=w).backward()
    F.nll_loss(F.log_softmax(x, 1), fastnn.tensor([0, 1, 2], device="cuda"), weight=w).backward()
    F.multi_margin_loss(x, fastnn.tensor([0, 1, 2], device="cuda")).backward()
    fastnn.arange(3, device="cuda"), fastnn.eye(3, device="cuda"), fastnn.full((2,), 7, device="cuda")
