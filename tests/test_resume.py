"""Exact resume: a training killed (SIGKILL) at any moment and resumed ends with the same bits as one left alone."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fastnn.train import load_state, load_weights, log

# Everything that has a state takes part: dropout, batch norm, momentum, a schedule, shuffling and augmentation, early
# stopping, steps and epochs of checkpoints. KILL names the moment at which the process kills itself.
PROGRAM = """
import os, signal, sys
import fastnn
from fastnn import nn, optim, io
from fastnn.data import DataLoader, RandomCrop, Subset, digits
from fastnn.train import Trainer

out, kill, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
moment, _, number = kill.partition(":")
fastnn.set_num_threads(threads)
fastnn.manual_seed(7)
model = nn.Sequential(
    nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(256, 10)
)
optimizer = optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
train = DataLoader(
    Subset(digits(), range(300)), 64, shuffle=True, seed=7, transform=RandomCrop(8, padding=1), num_workers=1
)
test = DataLoader(Subset(digits(train=False), range(100)), 50)
trainer = Trainer(
    model, nn.CrossEntropyLoss(), optimizer, scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
    scheduler_every="step", metrics=("accuracy", "top5"), patience=3, out=out, checkpoint_every=2, log_every=1,
)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def after(function, count):
    calls = []
    def wrapped(*args, **kwargs):
        result = function(*args, **kwargs)
        calls.append(0)
        if len(calls) == count:
            die()
        return result
    return wrapped

if moment == "step":  # after the update of a step, before anything is written
    def look(step=optimizer.step):
        step()
        if trainer.step + 1 == int(number):
            die()
    optimizer.step = look
elif moment == "fsync":  # a checkpoint is in its temporary file, not yet in place
    os.fsync = after(os.fsync, int(number))
elif moment == "best":  # best.safetensors is new, last.safetensors old
    import fastnn.train.trainer as module
    module.save_weights = after(module.save_weights, int(number))
elif moment == "validation":
    trainer._evaluate = after(trainer._evaluate, int(number))

trainer.fit(train, test, epochs=4, resume=True)
"""


def train(out, kill="none", threads=1):
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out), kill, str(threads)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == (0 if kill == "none" else -signal.SIGKILL), done.stderr
    return done


def content(out):
    """All that must be equal: without the times."""
    state = load_state(out / "last.safetensors")
    timed = {"seconds", "images_per_second"}
    history = [{k: v for k, v in record.items() if k not in timed} for record in state.pop("history")]
    lines = [{k: v for k, v in record.items() if k not in timed} for record in log.read(out / "log.jsonl")]
    state.pop("seconds")
    best = load_weights(out / "best.safetensors")
    return flat({"state": state, "history": history, "log": lines, "best": best})


def flat(value, path=""):
    if isinstance(value, dict):
        return [item for key, part in value.items() for item in flat(part, f"{path}.{key}")]
    if isinstance(value, (list, tuple)):
        return [item for i, part in enumerate(value) for item in flat(part, f"{path}.{i}")]
    return [(path, value.tobytes() if isinstance(value, np.ndarray) else value)]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    out = tmp_path_factory.mktemp("untouched")
    train(out)
    return content(out)


def test_killed_again_and_again(untouched, tmp_path):
    """One run, killed at every kind of moment, resumed with another number of threads each time."""
    moments = [
        "step:1",
        "step:4",
        "fsync:1",
        "step:5",
        "best:1",
        "validation:1",
        "step:9",
        "fsync:4",
        "best:1",
        "step:20",
    ]
    for i, kill in enumerate(moments):
        train(tmp_path, kill, threads=1 + i % 3)
    train(tmp_path, threads=2)
    assert content(tmp_path) == untouched
    before = (tmp_path / "last.safetensors").read_bytes()
    train(tmp_path)  # it is finished: nothing to do
    assert (tmp_path / "last.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".png") == [
        "best.safetensors", "last.safetensors", "log.jsonl",
    ]  # fmt: skip


def test_command_line_killed_from_outside(tmp_path):
    """``fastnn train`` killed at some moment after the first epoch, then resumed."""
    command = [sys.executable, "-m", "fastnn", "train", "mlp", "--epochs", "4", "--validation", "0.2", "--quiet"]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, "--out", str(out), "--checkpoint-every", "3"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while sum(r["event"] == "epoch" for r in log.read(out / "log.jsonl")) < 1:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    done = subprocess.run([*command, "--out", str(out), "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(tmp_path / "whole")
