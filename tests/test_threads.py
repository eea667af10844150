"""The thread pool: fork, concurrent and nested callers, a hogged CPU, changing counts, floating-point state."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import fastnn
from fastnn import _core, kernels


def run(code, **environment):
    """Run ``code`` in a new interpreter; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def work(seed=0):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((150, 170)).astype(np.float32) for _ in range(2))
    return kernels.gemm(a, b, trans_b=True)


def test_set_and_get(threads):
    for count in (1, 3, 2):
        threads(count)
        assert fastnn.get_num_threads() == count
    for bad in (0, -1, 10**6):
        with pytest.raises(ValueError, match="set_num_threads"):
            fastnn.set_num_threads(bad)


def test_environment_limits_the_count():
    code = "import fastnn; print(fastnn.get_num_threads())"
    assert run(code, FASTNN_NUM_THREADS="1") == "1"
    assert int(run(code, FASTNN_NUM_THREADS="100000")) <= os.cpu_count()


@pytest.mark.parametrize("bad", ["0", "-2", "two", "1.5"])
def test_bad_environment_is_an_error(bad):
    code = """
        import fastnn
        try:
            fastnn.get_num_threads()
        except ValueError as error:
            print(error)
    """
    assert f"FASTNN_NUM_THREADS={bad}" in run(code, FASTNN_NUM_THREADS=bad)


def test_affinity_limits_the_count():
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import fastnn
        from fastnn import _core
        print(fastnn.get_num_threads(), _core.default_num_threads()[1])
    """
    assert run(code).startswith("1 ")


def test_fork_in_mid_work(threads):
    threads(3)
    want = work().tobytes()
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if work().tobytes() == want and fastnn.get_num_threads() == 3 else 1)
        assert work().tobytes() == want
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_fork_while_another_thread_computes(threads):
    threads(2)
    want = work().tobytes()
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            work()

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if work().tobytes() == want else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        busy.join()


def test_concurrent_callers_get_their_own_results(threads):
    threads(3)
    want = [work(seed).tobytes() for seed in range(4)]
    wrong = []

    def check(seed):
        for _ in range(20):
            if work(seed).tobytes() != want[seed]:
                wrong.append(seed)

    callers = [threading.Thread(target=check, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_count_changes_while_another_thread_computes(threads):
    want = work().tobytes()
    wrong = []

    def check():
        for _ in range(50):
            if work().tobytes() != want:
                wrong.append(1)

    caller = threading.Thread(target=check)
    caller.start()
    while caller.is_alive():
        for count in (1, 2, 3):
            threads(count)
    caller.join()
    assert not wrong


def test_more_threads_than_chunks_and_exit_at_once():
    code = """
        import numpy as np, fastnn
        fastnn.set_num_threads(16)
        x = np.ones(100_000, np.float32)
        print(fastnn.kernels.relu(x).sum())
    """
    for _ in range(3):
        assert run(code) == "100000.0"


def test_denormals_are_flushed_and_the_callers_state_restored(threads):
    tiny = np.full(200_000, 1e-40, np.float32)
    for count in (1, 3):
        threads(count)
        flushed = kernels.gemm(tiny[:10_000].reshape(100, 100), np.eye(100, dtype=np.float32))
        assert (flushed == 0).all()
        assert (tiny[:8] * np.float32(0.5) != 0).all(), "NumPy must still see denormals after a kernel"


def test_memory_is_reused():
    x = np.ones((64, 6, 28, 28), np.float32)
    first = kernels.relu(x)
    address = first.ctypes.data
    del first
    assert kernels.relu(x).ctypes.data == address
    assert _core.memory_status()[1] > 0
    _core.memory_trim()
    assert _core.memory_status()[1] == 0


def test_exit_while_a_daemon_thread_computes():
    code = """
        import threading, time, numpy as np, fastnn
        x = np.zeros((300, 300), np.float32)
        def loop():
            while True:
                fastnn.kernels.gemm(x, x)
        for _ in range(2):
            threading.Thread(target=loop, daemon=True).start()
        time.sleep(0.2)
        print("end")
    """
    for _ in range(3):
        assert run(code) == "end"


def test_fewer_threads_than_asked_for_still_compute():
    code = """
        import resource, numpy as np, fastnn
        x = np.ones((200, 200), np.float32)
        want = fastnn.kernels.gemm(x, x)
        fastnn.set_num_threads(250)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
        assert (fastnn.kernels.gemm(x, x) == want).all()
        print("ok")
    """
    assert run(code) == "ok"


def test_the_count_can_be_read_while_a_kernel_runs():
    x = np.zeros(30_000_000, np.float32)
    worker = threading.Thread(target=kernels.gelu, args=(x,))
    worker.start()
    reads = 0
    while worker.is_alive():
        fastnn.get_num_threads()
        reads += 1
    worker.join()
    assert reads > 10


def test_outputs_may_not_lie_across_other_arrays():
    x = np.zeros(20, np.float32)
    with pytest.raises(ValueError, match="overlaps"):
        _core.kernels.relu(x[:10], x[5:15])
    _core.kernels.relu(x, x)  # the same array as a whole is in place
