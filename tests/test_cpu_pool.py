"""The CPU's native floor: the thread pool and the program runner."""

from __future__ import annotations

import os
import textwrap
import threading
from types import SimpleNamespace

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cpu import pool
from duograd.backends.cpu.conv_axes import fewer_chunks
from duograd.core.backend import Program
from duograd.core.errors import ArgumentError, ArgumentTypeError, FlagError
from kernels_by_hand import ADD_ONE, SUM, Table, address, in_new_process

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture
def threads():
    """Set the number of threads for one test."""
    before = pool.get_num_threads()
    yield pool.set_num_threads
    pool.set_num_threads(before)


@pytest.mark.parametrize("nthreads", [1, 2, 4])
def test_wave_starts_after_everything_before_it(threads, nthreads):
    threads(nthreads)
    n, chunks = 4096, 8
    x = np.zeros(n, np.int64)
    out = np.zeros((50, chunks), np.int64)
    launches = []
    for k in range(50):
        half = n // 2 * 8
        launches.append((ADD_ONE, (address(x), n // 2), chunks, 1))
        launches.append((ADD_ONE, (address(x) + half, n // 2), chunks, 0))
        launches.append((SUM, (address(x), n, address(out[k])), chunks, 1))
    table = Table(*launches)
    for repeat in range(20):
        table.run([])
        expected = (np.arange(1, 51) + repeat * 50) * n
        np.testing.assert_array_equal(out, np.repeat(expected[:, None], chunks, axis=1))


def test_every_chunk_runs_once_when_there_are_very_many(threads):
    threads(3)
    mark = "def kernel(args, chunk, nchunks):\n    store_i64(args[0], chunk, load_i64(args[0], chunk) + 1)\n"
    for chunks in (1, 2, 3, 65535, 65536, 150000):
        x = np.zeros(chunks, np.int64)
        Table((mark, (address(x),), chunks, 1)).run([])
        assert (x == 1).all()


def test_rows_of_one_wave_share_the_threads(threads):
    threads(2)
    x = np.zeros(40, np.int64)
    rows = [(ADD_ONE, (address(x[k:]), 1), 1, int(k == 0)) for k in range(40)]
    Table(*rows).run([])
    assert (x == 1).all()


def test_patches_fill_slots_with_offsets():
    x = np.zeros(6, np.int64)
    table = Table((ADD_ONE, (0, 0), 1, 1), patches=[(0, 1, 16), (1, 0, 0)], ndynamic=2)
    table.run([3, address(x)])
    table.run((2, address(x)))
    assert x.tolist() == [0, 0, 2, 2, 1, 0]
    dyn = np.array([1, address(x)])
    pool.entry()(*table.addresses, address(dyn))
    assert x.tolist() == [0, 0, 3, 2, 1, 0]


def test_bound_program_refuses_wrong_values_and_stays_usable():
    x = np.zeros(2, np.int64)
    table = Table((ADD_ONE, (0, 2), 1, 1), patches=[(0, 0, 0)], ndynamic=1)
    for bad, error in (([], TypeError), ([1, 2], TypeError), (["x"], TypeError), ([1 << 70], OverflowError)):
        with pytest.raises(error):
            table.run(bad)
    with pytest.raises(TypeError):
        table.run(3)
    table.run([address(x)])
    assert x.tolist() == [1, 1]


@pytest.mark.parametrize("release_gil", [True, False])
def test_threads_may_run_one_program_at_once(threads, release_gil):
    threads(2)
    n, repeats = 2000, 60
    table = Table(
        (ADD_ONE, (0, n), 4, 1),
        (ADD_ONE, (0, n), 1, 1),
        patches=[(0, 0, 0), (2, 0, 0)],
        ndynamic=1,
        release_gil=release_gil,
    )
    arrays = [np.zeros(n, np.int64) for _ in range(4)]

    def work(array):
        for _ in range(repeats):
            table.run([address(array)])

    workers = [threading.Thread(target=work, args=(array,)) for array in arrays]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for array in arrays:
        assert (array == 2 * repeats).all()


def test_number_of_threads_can_change_at_any_time(threads):
    x = np.zeros(64, np.int64)
    table = Table((ADD_ONE, (address(x), 64), 8, 1))
    for count, nthreads in enumerate([1, 4, 2, 1, 3, 3, 2], 1):
        threads(nthreads)
        assert pool.get_num_threads() == nthreads
        table.run([])
        assert (x == count).all()


def test_number_of_threads_is_checked():
    with pytest.raises(ArgumentError, match="set_num_threads"):
        pool.set_num_threads(0)


def test_number_of_threads_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("DUOGRAD_NUM_THREADS", "3")
    assert pool.default_num_threads() == 3
    monkeypatch.setenv("DUOGRAD_NUM_THREADS", "many")
    with pytest.raises(FlagError, match="DUOGRAD_NUM_THREADS"):
        pool.default_num_threads()


@pytest.mark.parametrize("n", [0, -1, 1.0, "2", True, None])
def test_a_number_of_threads_that_is_none_is_an_error(threads, n):
    threads(2)
    with pytest.raises((ArgumentError, ArgumentTypeError), match=r"\[set_num_threads\] n"):
        dg.set_num_threads(n)
    assert dg.get_num_threads() == 2


def test_results_do_not_depend_on_the_number_of_threads(threads):
    x, w = dg.randn(300, 257), dg.randn(257, 130)
    call = lambda x, w: (dg.softmax(x @ w, axis=-1), dg.gelu(x).sum(axis=0))
    results = []
    for n in (1, np.int64(3), 2):
        dg.set_num_threads(n)
        assert dg.get_num_threads() == n
        for mode in (call, dg.function(call)):
            results.append([y.numpy().tobytes() for y in mode(x, w)])
    assert all(r == results[0] for r in results)


def test_a_graph_sets_and_asks_for_threads_at_every_call(threads):
    @dg.function
    def sets(x, n):
        dg.set_num_threads(n)
        return x + 1

    asks = dg.function(lambda x: x * dg.get_num_threads())
    for n in (1, 3, 2, 2):
        threads(4)
        sets(dg.ones(2), n)
        assert dg.get_num_threads() == n
        assert asks(dg.ones(2)).tolist() == [n, n]


PARALLEL = """
from duograd.backends.cpu import native, pool
x = np.zeros(1000, np.int64)
args = np.array([x.ctypes.data, 1000])
rows = np.array([[native.kernel_address(ADD_ONE), args.ctypes.data, 8, 1]])
run = pool.bind(rows.ctypes.data, 1, 0, 0, args.ctypes.data, 2, 0)
run([])
"""


def test_forked_child_gets_threads_of_its_own():
    code = """
    import time
    time.sleep(0.02)  # the workers sleep, inside their lock's wait
    pid = os.fork()
    for _ in range(50):
        run([])
    assert (x == 51).all()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        print(pool._pool.get("STARTED"))
    else:
        started = pool._pool.get("STARTED")
        os._exit(0 if started == 2 else 1)
    """
    assert in_new_process(PARALLEL + textwrap.dedent(code), DUOGRAD_NUM_THREADS="3") == "2\n"


@pytest.mark.parametrize("ending", ["", "import time; time.sleep(0.05)", "sys.exit(0)"])
def test_process_ends_with_workers_spinning_or_asleep(ending):
    in_new_process(PARALLEL + ending, DUOGRAD_NUM_THREADS="4")


def test_interrupt_reaches_the_main_thread_and_not_a_worker():
    code = """
    import signal, time
    signal.signal(signal.SIGUSR1, lambda *a: print("handled"))
    signal.alarm(60)
    start = time.monotonic()
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGUSR1)
        run([])
    tasks = os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else ["1", "2"]
    print(len(tasks) >= 2)
    """
    lines = in_new_process(PARALLEL + textwrap.dedent(code), DUOGRAD_NUM_THREADS="2").split()
    assert lines == ["handled"] * 20 + ["True"]


def test_workers_may_run_wherever_the_process_may():
    code = """
    import time
    for _ in range(200):
        run([])
    time.sleep(0.05)  # till the workers sleep: one on its way to another CPU is bound to it for a moment
    allowed = os.sched_getaffinity(0)
    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    print(len(tasks) >= 3, all(os.sched_getaffinity(task) == allowed for task in tasks))
    """
    if not hasattr(os, "sched_getaffinity") or not os.path.isdir("/proc/self/task"):
        pytest.skip("needs Linux's list of threads and their CPUs")
    assert in_new_process(PARALLEL + textwrap.dedent(code), DUOGRAD_NUM_THREADS="3") == "True True\n"


@pytest.mark.parametrize("nthreads", [1, 2, 3])
def test_threads_get_as_many_pieces_each(nthreads):
    backend = SimpleNamespace(num_threads=lambda: nthreads, serial_work=4.0)
    program = Program(backend)
    for items in range(1, 9 * nthreads):
        for work in (3.0, 7.0, 1e9):
            chunks = program.chunks(items, work)
            assert 1 <= chunks <= items
            assert chunks <= nthreads or chunks % nthreads == 0
    assert program.chunks(10**6, 1e9) == (1 if nthreads == 1 else 4 * nthreads)
    for nbytes in (1, 1 << 17, 150_000, 1 << 30):
        assert fewer_chunks(program, 4 * nthreads, nbytes) % nthreads == 0
