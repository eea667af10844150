"""Training on a GPU, real or emulated: the CPU's numbers within rounding, batches made there, losses read seldom."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastnn
from fastnn import models, nn, optim
from fastnn.data import ArrayDataset, DataLoader, RandomCrop, RandomHorizontalFlip, digits, random_split
from fastnn.train import NonFiniteError, Trainer
from fastnn.train.metrics import accuracy, top5
from fastnn.train.unread import Unread


def test_batches_are_made_on_the_device_and_are_the_cpus(gpu, rng):
    images = rng.integers(0, 256, (37, 3, 9, 11), np.uint8)
    here = ArrayDataset(images, np.arange(37) % 5, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25], classes="abcde")
    there = here.to("cuda")
    assert isinstance(there.images, gpu.array_type) and isinstance(here.images, np.ndarray) and len(there) == 37
    transforms = [
        [],
        [RandomCrop((8, 7), padding=(1, 2), fill=9.0), RandomHorizontalFlip()],
        [RandomHorizontalFlip(1.0)],
    ]
    for transform in transforms:
        options = {"batch_size": 10, "shuffle": True, "seed": 3, "transform": transform}
        for (x, y), (u, v) in zip(DataLoader(here, **options), DataLoader(there, **options), strict=True):
            assert isinstance(u, gpu.array_type) and isinstance(v, gpu.array_type)
            np.testing.assert_array_equal(gpu.get(u), x)
            np.testing.assert_array_equal(gpu.get(v), y)
    part = random_split(there, [0.5, 0.5], seed=1)[0]
    np.testing.assert_array_equal(gpu.get(next(iter(DataLoader(part, 4)))[1]), here.labels[part.indices[:4]])
    assert isinstance(there.to("cpu").images, np.ndarray)


def test_metrics_on_the_device_are_the_cpus(gpu, rng):
    output = rng.integers(0, 4, (33, 9)).astype(np.float32)  # full of ties
    output[5, 2] = output[6, 0] = np.nan
    target = rng.integers(0, 9, 33)
    metrics = {"accuracy": accuracy, "top5": top5, "own": lambda output, target: float((target == 3).sum())}
    unread = Unread(metrics)
    for part in (slice(0, 20), slice(20, 33)):
        unread.add(1, gpu.put(np.float32([0.5])).reshape(()), gpu.put(output[part]), gpu.put(target[part]))
    assert len(unread) == 2
    batches = list(unread.read())
    assert [b.samples for b in batches] == [20, 13] and not list(unread.read()) and batches[0].loss == 0.5
    finite = ~np.isnan(output).any(1)
    for name, metric in (("accuracy", accuracy), ("top5", top5)):
        assert sum(b.values[name] for b in batches) == metric(output[finite], target[finite])
    assert sum(b.values["own"] for b in batches) == (target == 3).sum()


def test_metrics_of_a_few_classes_and_of_what_is_not_contiguous(gpu, rng):
    output = rng.standard_normal((6, 8)).astype(np.float32)
    output[2, 6] = np.nan
    target = np.array([0, 1, 2, 2, 1, 0], np.int32)
    narrow, labels = gpu.put(output)[:, 5:], gpu.put(np.repeat(target, 2))[::2]
    unread = Unread({"accuracy": accuracy, "top5": top5})
    unread.add(1, gpu.put(np.float32([0.5])).reshape(()), narrow, labels)
    (batch,) = unread.read()
    rows = [0, 1, 3, 4, 5]
    assert batch.values == {"accuracy": accuracy(output[rows, 5:], target[rows]), "top5": 5}


def test_the_progress_shows_nothing_before_a_loss_is_read(gpu, monkeypatch):
    shown = []
    monkeypatch.setattr("fastnn.train.progress.Progress.advance", lambda self, n, label, text: shown.append(text))
    fit("cuda", epochs=1, log_every=4)
    assert shown[:3] == ["", "", ""] and shown[3].startswith("loss ") and "nan" not in "".join(shown)


def lenet_steps(device, steps=3):
    fastnn.manual_seed(1)
    model = models.create("lenet").to(device)
    optimizer = optim.SGD(model.parameters(), 0.05, momentum=0.9)
    loader = DataLoader(digits(size=28).to(device), 8, shuffle=True)
    losses = []
    for x, y in loader:
        loss = nn.CrossEntropyLoss()(model(fastnn.Tensor(x)), fastnn.Tensor(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) == steps:
            return losses, {name: p.detach().cpu().numpy() for name, p in model.state_dict().items()}


def test_lenet_trains_as_on_the_cpu(gpu):
    losses, weights = lenet_steps("cpu")
    there, moved = lenet_steps("cuda")
    np.testing.assert_allclose(there, losses, rtol=1e-5)
    for name, w in weights.items():
        np.testing.assert_allclose(moved[name], w, rtol=1e-4, atol=1e-5, err_msg=name)


def test_lenet_trains_to_the_same_bits_again(gpu):
    once, again = lenet_steps("cuda", 2)[1], lenet_steps("cuda", 2)[1]
    assert all(once[name].tobytes() == again[name].tobytes() for name in once)


def mlp():
    fastnn.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 10))


def fit(device, out=None, epochs=2, resume=False, lr=0.1, **options):
    model = mlp()
    training, test = digits().to(device), digits(train=False).to(device)
    training, _ = random_split(training, [200, len(training) - 200])
    test, _ = random_split(test, [60, len(test) - 60])
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        optim.Adam(model.parameters(), lr * 0.1),
        metrics=("accuracy", "top5"),
        device=device,
        out=out,
        seed=0,
        **options,
    )
    trainer.fit(DataLoader(training, 32, shuffle=True, seed=1), DataLoader(test, 64), epochs=epochs, resume=resume)
    return trainer


def comparable(history):
    keep = ("loss", "accuracy", "top5")
    return [[record[part][name] for part in ("train", "validation") for name in keep] for record in history]


def test_the_trainers_history_is_the_cpus(gpu, tmp_path):
    here, there = fit("cpu"), fit("cuda", tmp_path / "a", log_every=3)
    np.testing.assert_allclose(comparable(there.history), comparable(here.history), rtol=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["event"] == "step"]
    assert steps == [3, 6, 9, 12]
    assert there.model[1].weight.device == "cuda:0"


def test_losses_are_read_once_per_interval(gpu, monkeypatch):
    reads = []
    read = Unread.read
    monkeypatch.setattr(Unread, "read", lambda self: reads.append(len(self)) or read(self))
    fit("cuda", epochs=1, log_every=4)
    assert [n for n in reads if n] == [4, 3, 1]  # seven steps; then the validation batch


def test_a_run_moves_between_devices(gpu, tmp_path):
    """Started on one, resumed on the other: the rest of the run is the CPU's within rounding."""
    straight = fit("cpu", epochs=3)
    for first, second in (("cuda", "cpu"), ("cpu", "cuda")):
        out = tmp_path / first
        fit(first, out, epochs=1, checkpoint_every=3)
        moved = fit(second, out, epochs=3, resume=True)
        np.testing.assert_allclose(comparable(moved.history), comparable(straight.history), rtol=1e-3)


def test_a_loss_that_is_not_finite_stops_the_run(gpu, tmp_path):
    with pytest.raises(NonFiniteError, match=r"the loss is (nan|inf)") as error:
        fit("cuda", tmp_path / "a", lr=1e30, log_every=2)
    assert error.value.step >= 1


def test_the_command_line_trains_evaluates_and_resumes(gpu, tmp_path, capsys, monkeypatch):
    from fastnn.cli import main

    monkeypatch.chdir(tmp_path)
    options = ["--device", "cuda", "--quiet", "--json"]
    train = ["train", "mlp", "--dataset", "digits", "--epochs", "1", "--batch-size", "256", "--out", "run"]
    assert main([*train, "--precision", "medium", *options]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["precision"] == "medium"
    assert main(["eval", "run", *options[:2], "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated and trained
    assert main(["train", "--resume", "run", *options]) == 0
    assert fastnn.get_float32_matmul_precision() == "highest"


def test_a_label_out_of_range_stops_the_run(gpu, rng):
    model = nn.Linear(4, 3).to("cuda")
    x, labels = rng.standard_normal((5, 4)).astype(np.float32), np.array([0, 2, 7, 1, 0])
    data = [(gpu.put(x), gpu.put(labels))]
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), quiet=True)
    with pytest.raises(NonFiniteError, match=r"the loss is nan \(on a GPU a label out of range gives that too\)"):
        trainer.fit(data, epochs=1)
