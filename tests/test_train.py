"""Trainer: fit, evaluate, predict, early stopping, what it writes, and the errors it names."""

import json
import os

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn.data import DataLoader, Subset, digits
from fastnn.train import CheckpointError, NonFiniteError, Trainer, load_state, load_weights, log, save_state


def loaders(batch_size=32, samples=200):
    train = DataLoader(Subset(digits(), range(samples)), batch_size, shuffle=True, seed=1)
    return train, DataLoader(Subset(digits(train=False), range(100)), 64)


def small_model(width=16):
    fastnn.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def make(model=None, lr=0.1, **options):
    model = small_model() if model is None else model
    return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr, momentum=0.9), **options)


def weights(model):
    return b"".join(p.array.tobytes() for p in model.parameters())


def test_fit_learns_and_says_how_well():
    trainer = make(metrics=("accuracy", "top5"))
    train, test = loaders()
    history = trainer.fit(train, test, epochs=6)
    assert [record["epoch"] for record in history] == list(range(1, 7)) and history[-1]["step"] == 6 * len(train)
    assert history[-1]["train"]["loss"] < 0.3 * history[0]["train"]["loss"]
    result = trainer.evaluate(test)
    assert result == history[-1]["validation"] and result["accuracy"] > 0.8 and result["top5"] >= result["accuracy"]
    images = test.dataset.normalize(test.dataset.gather(np.arange(100))[0])
    output = trainer.predict(images, batch_size=33)
    assert output.shape == (100, 10)
    labels = test.dataset.gather(np.arange(100))[1]
    assert (output.argmax(1) == labels).mean() == pytest.approx(result["accuracy"])
    np.testing.assert_allclose(trainer.predict(test), output, rtol=1e-5, atol=1e-5)
    assert trainer.predict(images[:0]).shape == (0, 10)
    assert trainer.model.training  # left as it was


def test_fit_counts_epochs_from_the_first():
    train, test = loaders()
    once, twice = make(), make()
    once.fit(train, test, epochs=4)
    twice.fit(train, test, epochs=2)
    twice.fit(train, test, epochs=4)
    twice.fit(train, test, epochs=3)  # done already
    assert weights(once.model) == weights(twice.model) and len(twice.history) == 4


def test_zero_epochs_do_nothing(tmp_path):
    trainer = make(out=tmp_path)
    before = weights(trainer.model)
    assert trainer.fit(*loaders(), epochs=0) == [] and weights(trainer.model) == before


def test_any_loader_and_any_target():
    """Lists of batches, regression, own metrics, no validation."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    y = x @ np.array([[1.0], [2.0], [-1.0]], np.float32)
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)]
    model = nn.Linear(3, 1)
    far = {"far": lambda output, target: int((abs(output - target) > 0.1).sum())}
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), 0.1), metrics=far, monitor="loss")
    history = trainer.fit(batches, epochs=20)
    assert history[-1]["train"]["loss"] < 1e-3 and history[-1]["train"]["far"] == 0
    assert trainer.best["epoch"] == min(history, key=lambda r: r["train"]["loss"])["epoch"]


def test_what_a_run_leaves(tmp_path):
    trainer = make(out=tmp_path / "runs" / "a", log_every=3, about={"model": "small"})
    train, test = loaders()
    trainer.fit(train, test, epochs=2)
    records = log.read(trainer.out / "log.jsonl")
    assert [r["epoch"] for r in records if r["event"] == "epoch"] == [1, 2]
    assert [r["step"] for r in records if r["event"] == "step"] == [3, 6, 9, 12]
    assert all(json.loads(line) for line in (trainer.out / "log.jsonl").read_text().splitlines())
    best, about = load_weights(trainer.out / "best.safetensors")
    assert about["model"] == "small" and about["best"]["metric"] == "accuracy"
    model = small_model()
    model.load_state_dict(best)
    assert make(model).evaluate(test)["accuracy"] == trainer.best["value"]
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    assert (trainer.out / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_early_stopping_waits_and_best_keeps_the_best(tmp_path, monkeypatch):
    trainer = make(out=tmp_path, patience=2, min_delta=0.05)
    values = iter([0.5, 0.6, 0.62, 0.64, 0.9])
    monkeypatch.setattr(trainer, "_evaluate", lambda *_: {"loss": 1.0, "accuracy": next(values)})
    trainer.fit(*loaders(), epochs=5)
    assert trainer.stopped and trainer.epoch == 4  # 0.62 and 0.64 gain less than 0.05 over 0.6
    assert trainer.best == {"epoch": 4, "value": 0.64}
    assert trainer.fit(*loaders(), epochs=5)[-1]["epoch"] == 4


def test_plateau_scheduler_gets_the_monitored_value(monkeypatch):
    model = small_model()
    optimizer = optim.SGD(model.parameters(), 1.0)
    plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, scheduler=plateau)
    monkeypatch.setattr(trainer, "_train_epoch", lambda *_: 0.0)
    monkeypatch.setattr(trainer, "_evaluate", lambda *_: {"loss": 1.0, "accuracy": 0.5})
    history = trainer.fit(*loaders(), epochs=3)
    assert [r["learning_rate"] for r in history] == pytest.approx([1.0, 1.0, 0.1])


# -- NaN -----------------------------------------------------------------------------------------------------------
class Poison(nn.Module):
    """Infinite from a given call on."""

    def __init__(self, call):
        super().__init__()
        self.calls, self.call = 0, call

    def forward(self, x):
        self.calls += 1
        return x * float("inf") if self.calls >= self.call else x


def test_nan_names_the_first_layer_and_keeps_the_checkpoint(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Sequential(nn.Tanh(), Poison(10)), nn.Linear(16, 10))
    trainer = make(model, out=tmp_path, checkpoint_every=2)
    with pytest.raises(NonFiniteError, match=r"step 10 \(epoch 2\): the output of layer '2\.1' has .* \(Poison\)") as e:
        trainer.fit(loaders()[0], epochs=3)
    assert e.value.step == 10 and e.value.where == "2.1"
    stored, _ = load_weights(tmp_path / "last.safetensors")
    assert all(np.isfinite(x).all() for x in stored.values())
    assert make(model, out=tmp_path).resume() is None


def test_nan_in_the_input_targets_parameters_and_gradients(tmp_path):
    train, _ = loaders()
    x, y = next(iter(train))
    bad = x.copy()
    bad[0, 0, 3, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"step 1 .*the batch's 'input' has 1 NaN"):
        make().fit([(bad, y)], epochs=1)
    model = small_model()
    model[1].weight.array[2, 3] = np.inf
    with pytest.raises(NonFiniteError, match=r"parameter '1\.weight' has 1 infinite of 1024"):
        make(model).fit([(x, y)], epochs=1)
    target = np.full((len(x), 10), np.nan, np.float32)
    with pytest.raises(NonFiniteError, match=r"targets"):
        make(metrics=()).fit([(x, target)], epochs=1)


def test_divergence_never_reaches_a_checkpoint(tmp_path):
    trainer = make(lr=1e30, out=tmp_path, checkpoint_every=1)
    with pytest.raises(NonFiniteError, match="lower learning rate"):
        trainer.fit(*loaders(), epochs=2)
    if (tmp_path / "last.safetensors").exists():
        stored, _ = load_weights(tmp_path / "last.safetensors")
        assert all(np.isfinite(x).all() for x in stored.values())


def test_nan_search_repeats_the_same_dropout():
    """The failing step is run again with the random numbers it had, or the layer would not fail again."""

    class Fussy(nn.Module):
        def forward(self, x):
            return x * float("inf") if not x.array[0, :5].any() else x  # once in 32 draws

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), Fussy(), nn.Linear(16, 10))
    with pytest.raises(NonFiniteError, match=r"layer '3'.*\(Fussy\)"):
        make(model, lr=1e-3).fit(loaders()[0], epochs=100)


# -- errors ----------------------------------------------------------------------------------------------------------
def test_empty_data_is_named():
    train, _ = loaders()
    nothing = DataLoader(Subset(digits(), []), 8)
    with pytest.raises(ValueError, match="train loader is empty"):
        make().fit(nothing, epochs=1)
    with pytest.raises(ValueError, match="validation loader is empty"):
        make().fit(train, nothing, epochs=1)
    with pytest.raises(ValueError, match="evaluation loader is empty"):
        make().evaluate(nothing)
    with pytest.raises(ValueError, match=r"step 1: the batch is empty, x has shape \(0, 64\)"):
        make().fit([(np.zeros((0, 64), np.float32), np.zeros(0, np.int64))], epochs=1)
    with pytest.raises(TypeError, match="needs a length"):
        make().fit(iter([]), epochs=1)
    with pytest.raises(TypeError, match=r"batches \(x, y\)"):
        make().fit([np.zeros((2, 64))], epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("acuracy",)}, "unknown metric 'acuracy'"),
        ({"monitor": "top5"}, "monitor must be one of loss, accuracy"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"scheduler_every": "batch"}, "'epoch' or 'step'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_negative_epochs():
    with pytest.raises(ValueError, match="epochs must be at least 0"):
        make().fit(*loaders(), epochs=-1)


def test_a_run_is_not_overwritten(tmp_path):
    make(out=tmp_path).fit(*loaders(), epochs=1)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run"):
        make(out=tmp_path).fit(*loaders(), epochs=1)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_resume_with_something_else(tmp_path):
    train, test = loaders()
    make(out=tmp_path).fit(train, test, epochs=1)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: .*another model: its '1\.weight' is \(16, 64\)"):
        make(small_model(8), out=tmp_path).fit(train, test, epochs=2, resume=True)
    with pytest.raises(CheckpointError, match="measures loss, accuracy"):
        make(out=tmp_path, metrics=()).fit(train, test, epochs=2, resume=True)
    with pytest.raises(CheckpointError, match="7 steps an epoch, this loader gives 13"):
        make(out=tmp_path).fit(loaders(16)[0], test, epochs=2, resume=True)
    train.seed = 2
    with pytest.raises(ValueError, match="seed"):
        make(out=tmp_path).fit(train, test, epochs=2, resume=True)
    model = small_model()
    other = optim.SGD([{"params": [p]} for p in model.parameters()], 0.1)
    with pytest.raises(CheckpointError, match=r"groups of \[4\] parameters"):
        Trainer(model, nn.CrossEntropyLoss(), other, out=tmp_path).fit(train, test, epochs=2, resume=True)


def adam(parameters):
    return optim.Adam(parameters, 0.1)


def sgd(parameters):
    return optim.SGD(parameters, 0.2, momentum=0.5)


def steps(optimizer):
    return optim.lr_scheduler.StepLR(optimizer, 1)


def cosine(optimizer):
    return optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)


@pytest.mark.parametrize(
    ("saved", "wanted", "message"),
    [
        ((adam, None), (sgd, None), "the checkpoint's optimizer is Adam, this trainer's is SGD"),
        ((sgd, None), (adam, None), "the checkpoint's optimizer is SGD, this trainer's is Adam"),
        ((sgd, steps), (sgd, cosine), "the checkpoint's scheduler is StepLR, this trainer's is CosineAnnealingLR"),
        ((sgd, None), (sgd, cosine), "the checkpoint's scheduler is None, this trainer's is CosineAnnealingLR"),
    ],
)
def test_resume_with_another_optimizer_or_scheduler(tmp_path, saved, wanted, message):
    def trainer(optimizer, scheduler):
        model = small_model()
        chosen = optimizer(model.parameters())
        return Trainer(
            model, nn.CrossEntropyLoss(), chosen, scheduler=scheduler and scheduler(chosen), out=tmp_path, quiet=True
        )

    trainer(*saved).fit(*loaders(), epochs=1)
    other = trainer(*wanted)
    before = weights(other.model), other.optimizer.state_dict()
    with pytest.raises(CheckpointError, match=rf"last\.safetensors: {message}"):
        other.fit(*loaders(), epochs=2, resume=True)
    assert (weights(other.model), other.optimizer.state_dict()) == before


def test_a_state_that_does_not_fit_changes_nothing(tmp_path):
    """Whichever part is wrong, the others are as before; the error names the file."""
    make(out=tmp_path).fit(*loaders(), epochs=1)
    last = tmp_path / "last.safetensors"
    good = load_state(last)
    buffer = {"momentum_buffer": np.zeros(3, np.float32)}
    for change in (
        {"optimizer": {**good["optimizer"], "state": {0: buffer}}},
        {"random": "lost"},
        {"stopping": {}},
        {"model": {name: value.astype("U3") for name, value in good["model"].items()}},
        {"model": [1]},
    ):
        trainer = make()
        before = weights(trainer.model), trainer.optimizer.state_dict(), fastnn.random.get_rng_state()
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
            trainer.load_state_dict({**good, **change})
        assert (weights(trainer.model), trainer.optimizer.state_dict(), fastnn.random.get_rng_state()) == before
        assert trainer.step == 0 and trainer.history == []
    save_state(last, {**good, "random": "lost"})
    with pytest.raises(CheckpointError, match=r"last\.safetensors is not the state of a run"):
        make().resume(last)


def test_files_of_others_are_left_alone(tmp_path):
    mine = tmp_path / "log.jsonl"
    for text in ('{"time": 3}\n', "notes\n", "notes", '[1]\n{"event": "epoch", "epoch": 1}\n'):
        mine.write_text(text)
        with pytest.raises(FileExistsError, match=r"log\.jsonl is not the log of a run"):
            make(out=tmp_path).fit(*loaders(), epochs=1)
        assert mine.read_text() == text
    mine.write_text('{"event": "step", "epoch": 1, "step": 1}\n{"event": "st')  # of a run killed before it saved
    make(out=tmp_path).fit(*loaders(), epochs=1)
    assert [record["event"] for record in log.read(mine)] == ["epoch"]
    foreign = [tmp_path / name for name in (".notes.tmp", ".last.safetensors.tmp", ".other.bin.12-0123abcd.tmp")]
    own = [tmp_path / name for name in (".last.safetensors.12-0123abcd.tmp", ".log.jsonl.7-ffffffff.tmp")]
    for path in foreign + own:
        path.write_text("x")
    make(out=tmp_path).fit(*loaders(), epochs=2, resume=True)
    assert all(path.exists() for path in foreign) and not any(path.exists() for path in own)


def test_resume_needs_a_directory():
    with pytest.raises(ValueError, match=r"resume=True needs the run's directory"):
        make().fit(*loaders(), epochs=1, resume=True)


def test_measuring_leaves_every_module_in_its_mode():
    trainer = make()
    trainer.model[1].eval()
    modes = [module.training for module in trainer.model.modules()]
    test = loaders()[1]
    trainer.evaluate(test)
    assert [module.training for module in trainer.model.modules()] == modes
    trainer.predict(test)
    assert [module.training for module in trainer.model.modules()] == modes


def test_damaged_checkpoint(tmp_path):
    make(out=tmp_path).fit(*loaders(), epochs=1)
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged: .*truncated.*best\.safetensors"):
        make(out=tmp_path).fit(*loaders(), epochs=2, resume=True)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_unwritable_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot make the run's directory .*file"):
        make(out=tmp_path / "file" / "run").fit(*loaders(), epochs=1)


def test_interrupt_leaves_whole_files(tmp_path):
    class Interrupt(nn.Module):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            if type(self).calls == 10:
                raise KeyboardInterrupt
            return x

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Interrupt())
    with pytest.raises(KeyboardInterrupt):
        make(model, out=tmp_path).fit(loaders()[0], epochs=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.safetensors", "last.safetensors", "log.jsonl"]
    trainer = make(model, out=tmp_path)
    trainer.fit(loaders()[0], epochs=3, resume=True)
    assert trainer.epoch == 3
