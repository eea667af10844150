"""Metrics, progress, log and checkpoints: the trainer's parts, each by itself."""

import io
import json

import numpy as np
import pytest

from fastnn.train import CheckpointError, accuracy, checkpoint, load_state, load_weights, log, save_state, save_weights
from fastnn.train import top5 as top5_metric
from fastnn.train.metrics import Sums, resolve
from fastnn.train.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_accuracy_and_top5_count_rows(rng):
    output = rng.normal(size=(50, 10))
    target = rng.integers(0, 10, 50)
    order = np.argsort(-output, axis=1)
    assert accuracy(output, target) == (order[:, 0] == target).sum()
    assert top5_metric(output, target) == (order[:, :5] == target[:, None]).any(1).sum()
    assert accuracy(output, np.eye(10)[target]) == accuracy(output, target)


def test_metrics_of_ties_nan_and_few_classes():
    output = np.zeros((2, 10))
    assert accuracy(output, np.array([0, 9])) == 1
    assert top5_metric(output, np.array([4, 5])) == 1
    assert top5_metric(np.full((1, 10), np.nan), np.array([0])) == 0
    assert top5_metric(np.zeros((3, 2)), np.array([0, 1, 1])) == 3
    assert accuracy(np.zeros((0, 3)), np.zeros(0, np.int64)) == 0


@pytest.mark.parametrize("shapes", [((4,), (4,)), ((4, 3, 2), (4, 2)), ((4, 3), (5,))])
def test_metrics_name_wrong_shapes(shapes):
    with pytest.raises(ValueError, match=r"accuracy.*metrics=\(\)"):
        accuracy(np.zeros(shapes[0]), np.zeros(shapes[1], np.int64))


def test_unknown_metric_and_taken_name():
    with pytest.raises(ValueError, match="unknown metric 'acc'"):
        resolve(["acc"])
    with pytest.raises(ValueError, match="always measured"):
        resolve({"loss": accuracy})


def test_sums_weigh_by_samples_and_survive_json():
    sums = Sums(resolve(["accuracy"]))
    sums.add(1.0, np.eye(3), np.arange(3))
    sums.add(0.1, np.eye(3)[:1], np.array([2]))
    assert sums.means() == {"loss": 3.1 / 4, "accuracy": 0.75}
    again = Sums(sums.metrics)
    again.load_state_dict(json.loads(json.dumps(sums.state_dict())))
    assert again.means() == sums.means()


def test_progress_is_silent_without_a_terminal_and_on_request():
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        with Progress(10, quiet, stream) as progress:
            progress.advance(64, "epoch 1/1", "loss 1.0")
            progress.line("epoch 1/1 done")
        assert stream.getvalue() == ""


def test_progress_shows_rate_and_time_left_and_leaves_a_clean_line():
    stream = Terminal()
    with Progress(4, stream=stream) as progress:
        progress.start -= 10  # as if ten seconds had passed
        progress.advance(640, "epoch 1/2", "loss 0.5")
        progress.line("epoch 1/2  loss 0.5")
    text = stream.getvalue()
    assert "64 images/s" in text and "0:30 left" in text and "epoch 1/2 [" in text
    assert "epoch 1/2  loss 0.5\x1b[K\n" in text and text.endswith("\r\x1b[K")
    assert [clock(s) for s in (0, 61.4, 3723)] == ["0:00", "1:01", "1:02:03"]


def test_log_rewinds_to_a_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    for step in range(1, 8):
        log.append(path, {"event": "step", "step": step})
        if step % 3 == 0:
            log.append(path, {"event": "epoch", "epoch": step // 3, "step": step})
    with path.open("a") as file:
        file.write('{"event": "step", "st')  # cut short by a crash
    log.rewind(path, epoch=1, step=4)
    assert [(r["event"], r["step"]) for r in log.read(path)] == [
        ("step", 1), ("step", 2), ("step", 3), ("epoch", 3), ("step", 4),
    ]  # fmt: skip
    log.rewind(path, 0, 3)  # a checkpoint at the epoch's last step that does not know the epoch yet
    assert [r["event"] for r in log.read(path)] == ["step"] * 3
    assert log.read(tmp_path / "none") == []


STATE = {
    "about": {"model": "m", "classes": ["a", "b"]},
    "model": {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.asarray(3, np.int64)},
    "optimizer": {"state": {0: {"momentum": np.zeros((0, 2)), "step": 7}}, "param_groups": [{"betas": (0.9, 0.999)}]},
    "loss": 0.1 + 0.2,
    "none": None,
    "random": (2**64 - 1, 5),
}


def test_state_comes_back_with_its_types(tmp_path):
    save_state(tmp_path / "last.safetensors", STATE)
    state = load_state(tmp_path / "last.safetensors")
    assert state["random"] == (2**64 - 1, 5) and state["loss"] == 0.1 + 0.2 and state["none"] is None
    assert state["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
    slot = state["optimizer"]["state"][0]
    assert slot["step"] == 7 and slot["momentum"].shape == (0, 2)
    np.testing.assert_array_equal(state["model"]["a.weight"], STATE["model"]["a.weight"])
    assert state["model"]["n"].shape == () and state["model"]["n"].dtype == np.int64
    weights, about = load_weights(tmp_path / "last.safetensors")
    assert sorted(weights) == ["a.weight", "n"] and about["model"] == "m"


def test_weights_are_plain_safetensors(tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, STATE["model"], {"model": "m"})
    weights, about = load_weights(path)
    assert sorted(weights) == ["a.weight", "n"] and about == {"model": "m"}
    safetensors = pytest.importorskip("safetensors.numpy")
    assert sorted(safetensors.load_file(path)) == ["a.weight", "n"]
    with pytest.raises(CheckpointError, match=r"holds weights, not the state of a run.*last\.safetensors"):
        load_state(path)


def test_any_damage_is_named(tmp_path):
    path = tmp_path / "last.safetensors"
    save_state(path, STATE)
    whole = path.read_bytes()
    for end in (0, 4, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged"):
            load_state(path)
    for at in (8, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged|holds weights"):
            load_state(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_state(tmp_path / "none.safetensors")


def test_damage_points_to_the_best_weights(tmp_path):
    save_weights(tmp_path / "best.safetensors", STATE["model"], {})
    (tmp_path / "last.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"use the weights in .*best\.safetensors"):
        load_state(tmp_path / "last.safetensors")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    save_state(path, STATE)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"cannot hold 'x\.y'"):
        save_state(path, {"x": {"y": object()}})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.io.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_state(path, {"x": np.ones(3)})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]
