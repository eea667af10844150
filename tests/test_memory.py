"""A steady training step takes its memory from what the step before gave back: the system hands out no page."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from fastnn import _core

resource = pytest.importorskip("resource")

STEPS = """
import resource, sys
import numpy as np
import fastnn
from fastnn import nn, optim

model, batch, optimizer, steps = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
net, loss = fastnn.models.create(model), nn.CrossEntropyLoss()
optimizer = getattr(optim, optimizer)(net.parameters(), lr=1e-3)
x = fastnn.tensor(np.random.default_rng(0).standard_normal((batch, *net.input_shape)).astype(np.float32))
t = fastnn.tensor(np.arange(batch) % 10)

def step():
    optimizer.zero_grad()
    y = net(x)
    (loss(y, t) + 1e-4 * (y * y).sum()).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(4):
    step()
before = faults()
for _ in range(steps):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
@pytest.mark.skipif("san" in os.environ.get("LD_PRELOAD", ""), reason="sanitizers reuse no memory")
@pytest.mark.parametrize(
    ("model", "batch", "optimizer", "steps"), [("lenet5", 64, "SGD", 100), ("alexnet_small", 16, "Adam", 6)]
)
def test_a_steady_step_faults_no_page(model, batch, optimizer, steps):
    command = [sys.executable, "-c", STEPS, model, str(batch), optimizer, str(steps)]
    faults = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults <= 20, f"{faults} page faults in {steps} steps: an array or a scratch is not reused"


@pytest.mark.skipif("san" in os.environ.get("LD_PRELOAD", ""), reason="sanitizers reuse no memory")
def test_a_large_array_lives_in_the_memory_of_one_that_was_larger():
    _core.memory_trim()
    live = _core.memory_status()[0]
    large = _core.empty((3 << 20,), np.dtype(np.uint8))
    del large
    smaller, tiny = _core.empty((2 << 20,), np.dtype(np.uint8)), _core.empty((64,), np.dtype(np.uint8))
    assert _core.memory_status()[0] + _core.memory_status()[1] == live + (3 << 20) + 64
    del smaller
    assert _core.memory_status()[0] == live + 64
    far = _core.empty((1 << 19,), np.dtype(np.uint8))  # less than LARGE: a small array does not sit on a large block
    assert _core.memory_status()[1] == 3 << 20
    del far, tiny
    _core.memory_trim()
