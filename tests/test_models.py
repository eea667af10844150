"""The models: sizes, names, shapes, repeatability, and PyTorch's weights of the same architecture."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn import io, models, nn, optim


@pytest.mark.parametrize(
    ("name", "parameters", "shape"),
    [
        ("mlp", 13_002, (1, 28, 28)),
        ("lenet5", 61_706, (1, 28, 28)),
        ("alexnet_small", 6_976_842, (3, 32, 32)),
        ("perceptron", 3, (2,)),
    ],
)
def test_sizes_and_shapes(name, parameters, shape):
    model = models.create(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.name == name and model.input_shape == shape
    y = model.eval()(fastnn.tensor(np.ones((2, *shape), np.float32)))
    assert y.shape == (2, 1 if name == "perceptron" else 10) and np.isfinite(y.array).all()


def test_names():
    assert models.names() == ["alexnet_small", "lenet5", "mlp", "perceptron"]
    for spelling in ("alexnet-small", "alexnet_small", "AlexNet-Small"):
        assert models.create(spelling).name == "alexnet_small"
    assert models.create("lenet", num_classes=3).classifier[-1].out_features == 3
    with pytest.raises(ValueError, match=r"unknown model 'lenet-6'; did you mean 'lenet5'\? known: alexnet_small, "):
        models.create("lenet-6")
    with pytest.raises(ValueError, match="unknown model 'zzz'; known"):
        models.create("zzz")


def test_options():
    classic = models.lenet5(activation="tanh", pool="avg")
    assert "Tanh" in repr(classic) and "AvgPool2d" in repr(classic)
    assert models.mlp((5, 4, 3), "relu", input_shape=(5,))(np.ones((2, 5), np.float32)).shape == (2, 3)
    for call in (
        lambda: models.lenet5(pool="min"),
        lambda: models.lenet5(activation="relu6"),
        lambda: models.mlp((3,)),
        lambda: models.perceptron(activation="relu"),
    ):
        with pytest.raises(ValueError):
            call()


def test_perceptron_computes_and():
    unit = models.perceptron(2, "step")
    unit.load_state_dict({"unit.weight": np.array([[1.0, 1.0]]), "unit.bias": np.array([-1.5])})
    assert unit(fastnn.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).tolist() == [[0], [0], [0], [1]]


def test_same_seed_same_bits():
    def weights(seed):
        fastnn.manual_seed(seed)
        return b"".join(p.array.tobytes() for p in models.lenet5().parameters())

    assert weights(1) == weights(1) != weights(2)


def test_wrong_input_names_the_layer():
    with pytest.raises(ValueError, match=r"^features\.0 \(Conv2d\): conv2d: "):
        models.lenet5()(np.ones((2, 3, 28, 28), np.float32))


def pytorchs_lenet(torch):
    t = torch.nn

    class LeNet(t.Module):
        def __init__(self):
            super().__init__()
            self.features = t.Sequential(
                t.Conv2d(1, 6, 5, padding=2), t.ReLU(), t.MaxPool2d(2), t.Conv2d(6, 16, 5), t.ReLU(), t.MaxPool2d(2)
            )
            self.classifier = t.Sequential(t.Linear(400, 120), t.ReLU(), t.Linear(120, 84), t.ReLU(), t.Linear(84, 10))

        def forward(self, x):
            return self.classifier(self.features(x).flatten(1))

    torch.manual_seed(0)
    return LeNet()


def test_pytorch_weights_load_unchanged(tmp_path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    theirs, ours = pytorchs_lenet(torch), models.lenet5()
    save_file(theirs.state_dict(), tmp_path / "lenet.safetensors")
    ours.load_state_dict(io.load(tmp_path / "lenet.safetensors"))
    x = np.random.default_rng(0).standard_normal((4, 1, 28, 28)).astype(np.float32)
    np.testing.assert_allclose(ours(x).detach(), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_lenet_trains_as_in_pytorch():
    torch = pytest.importorskip("torch")
    theirs, ours = pytorchs_lenet(torch), models.lenet5()
    ours.load_state_dict(theirs.state_dict())
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}
    a, b = optim.SGD(ours.parameters(), **options), torch.optim.SGD(theirs.parameters(), **options)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, 16)
    for _ in range(15):
        a.zero_grad(), b.zero_grad()
        mine = nn.CrossEntropyLoss()(ours(x), y)
        other = torch.nn.CrossEntropyLoss()(theirs(torch.tensor(x)), torch.tensor(y))
        assert mine.item() == pytest.approx(other.item(), rel=1e-3, abs=1e-3)
        mine.backward(), other.backward()
        a.step(), b.step()
    assert mine.item() < 2.2
