"""Loaders with worker processes: the same batches for any number of them, and every end a clean one."""

import ast
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing import resource_tracker
from pathlib import Path

import duograd as dg
import numpy as np
import pytest
from duograd.interop.data import DataLoader, TensorDataset
from sample_sets import Counted, Failing, Killed, Plain, Slow, Stream, note_start

ROOT = Path(dg.__file__).parent


def _plain(x):
    """A batch as what can be compared."""
    if isinstance(x, dg.Tensor):
        return str(x.type), x.to(dg.float32).tolist()
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    return tuple(map(_plain, x)) if isinstance(x, tuple) else x


def _processes_of(parent):
    """Data workers that a process has started and that are there, dead ones not waited for too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and (b"spawn_main" in command or fields[0] == "Z"):
            found.append(int(folder.name))
    return found


@pytest.fixture(autouse=True)
def no_trace(own_garbage):
    """Nothing is left of the workers of a test: no process, dead or alive, and no descriptor."""
    resource_tracker.ensure_running()  # stays for good
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()  # an error that was caught has a traceback, which has the pass
    assert _processes_of(os.getpid()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def _drawing(workers, **options):
    return DataLoader(Counted(), 4, shuffle=True, seed=3, num_workers=workers, **options)


# ---------------------------------------------------------------- values


def test_batches_are_the_same_for_any_number_of_workers():
    here = _drawing(0)
    epochs = [[_plain(b) for b in here] for _ in range(3)]
    assert epochs[0] != epochs[1]
    kept = _drawing(2, persistent_workers=True, prefetch_factor=3)
    assert [_plain(b) for b in kept] == epochs[0]
    for batch in kept:  # left in the middle
        assert _plain(batch) == epochs[1][0]
        break
    assert [_plain(b) for b in kept] == epochs[2]
    one = pickle.loads(pickle.dumps(_drawing(1, persistent_workers=True)))
    first, second = iter(one), iter(one)  # at once: the second has workers of its own
    pairs = [(_plain(a), _plain(b)) for a, b in zip(first, second)]
    assert pairs == list(zip(epochs[0], epochs[1]))


def test_random_numbers_of_this_process_are_left_alone():
    np.random.seed(1)
    dg.manual_seed(1)
    expected = np.random.rand(), dg.rand((2,)).tolist()
    np.random.seed(1)
    dg.manual_seed(1)
    list(_drawing(0))
    assert (np.random.rand(), dg.rand((2,)).tolist()) == expected


def test_a_stream_is_shared_out_in_turns_by_light_workers():
    assert dg.data.get_worker_info() is None
    dg.rand((64,)) * 2  # its kernels are on the disk from here on: workers need no compiler
    batches = list(DataLoader(Stream(), 3, num_workers=2, worker_init_fn=note_start))
    numbers = [k.tolist() for k, _, _ in batches]
    assert numbers == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11], [12, 14, 16], [13, 15]]
    for at, (_, _, facts) in enumerate(batches):
        expected = {"threads": (1, "1"), "heavy": [], "init": [at % 2]}
        assert [ast.literal_eval(text) for text in facts] == [expected] * len(facts)


def test_tensors_of_a_data_set_are_not_copied_into_the_pickle_and_come_back_new():
    x = np.arange(600_000, dtype=np.float32).reshape(6, -1)
    loader = DataLoader(TensorDataset(x, dg.arange(6).to(dg.bfloat16)), 4, num_workers=1)
    a, b = loader
    assert a[0].numpy().tolist() == x[:4].tolist()
    assert b[1].dtype == dg.bfloat16
    a[0].zero_()
    assert b[0].numpy().tolist() == x[4:].tolist()


# ---------------------------------------------------------------- errors


def _broken_order():
    yield from ([0, 1], [4, 5], [9], [10])
    raise ValueError("no more positions")


def test_an_error_at_a_sample_names_it_and_the_loop_may_go_on():
    batches = iter(DataLoader(Failing(), batch_sampler=_broken_order(), num_workers=1))
    assert next(batches).tolist() == [0, 1]
    with pytest.raises(
        dg.errors.WorkerError, match=r"sample 5 failed in worker 0: ValueError: of no use"
    ) as e:
        next(batches)
    assert isinstance(e.value, ValueError)
    assert "test_data_workers.py" in e.value.line
    assert "sample_sets.py" in str(e.value)  # the worker's traceback
    assert isinstance(e.value.__cause__, ValueError)
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)
    with pytest.raises(KeyError, match="sample 9 failed"):
        next(batches)
    assert next(batches).tolist() == [10]
    with pytest.raises(ValueError, match="no more positions") as e:  # the sampler's, in its turn
        next(batches)
    assert not isinstance(e.value, dg.errors.WorkerError)
    assert list(batches) == []


def test_a_killed_worker_is_an_error():
    batches = iter(DataLoader(Killed(), 4, num_workers=1))
    assert next(batches).tolist() == [0, 1, 2, 3]
    with pytest.raises(dg.errors.WorkerError, match=r"worker 0 \(process \d+\) was killed by SIGKILL"):
        next(batches)
    assert list(batches) == []


def test_a_late_batch_is_an_error():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"no batch in timeout=0.2 seconds"):
        next(iter(DataLoader(Slow(), 4, num_workers=1, timeout=0.2)))
    assert time.monotonic() - start < 20


class _Local(Plain):
    def __reduce__(self):
        raise TypeError("made of a socket")


@pytest.mark.parametrize(
    ("dataset", "options", "match"),
    [
        (Plain(), {"collate_fn": lambda x: x}, "collate_fn cannot be sent to workers"),
        (Plain(), {"worker_init_fn": lambda k: k}, "worker_init_fn cannot be sent"),
        (_Local(), {}, "the data set cannot be sent to workers: made of a socket"),
        ([lambda: 1], {}, "the data set cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_a_process_is_started(dataset, options, match):
    with pytest.raises(TypeError, match=match) as e:
        iter(DataLoader(dataset, num_workers=2, **options))
    assert isinstance(e.value, dg.errors.DuogradError)


# ---------------------------------------------------------------- programs

START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes ignore it
sys.path.insert(0, {rows!r})
import duograd as dg
from sample_sets import *
"""
LOOP = """
if __name__ == "__main__":
    loader = dg.data.DataLoader(Counted(), 2, num_workers=1, persistent_workers=True, {options})
    batches = iter(loader)
    next(batches)
    print("first", flush=True)
    {then}
"""


def _program(tmp_path, text):
    """A program that runs in a process group of its own."""
    path = tmp_path / "program.py"
    path.write_text(START.format(rows=str(ROOT / "tests" / "rows")) + textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    return subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip


def _group(pid):
    """Live processes of a group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def _ends(program, seconds=20):
    try:
        out, err = program.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        program.communicate()
        raise
    until = time.monotonic() + seconds
    while _group(program.pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert _group(program.pid) == []
    return out, err


def test_a_program_may_end_with_passes_left_open(tmp_path):
    program = _program(tmp_path, LOOP.format(options="", then="pass"))
    assert _ends(program) == ("first\n", "")
    assert program.returncode == 0


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_program_takes_its_workers_along(tmp_path, kind):
    program = _program(tmp_path, LOOP.format(options="timeout=100", then="import time; time.sleep(60)"))
    assert program.stdout.readline() == "first\n"
    (os.killpg if kind == signal.SIGINT else os.kill)(program.pid, kind)
    out, err = _ends(program)
    assert out == ""
    assert err.count("Traceback") == (kind == signal.SIGINT)  # the program's own alone
    assert "KeyboardInterrupt" in err or kind == signal.SIGKILL


def test_a_program_without_a_guard_is_told_so(tmp_path):
    program = _program(tmp_path, "for x in dg.data.DataLoader(Plain(), 4, num_workers=1): pass")
    _, err = _ends(program)
    assert "a worker that starts runs the program's main file" in err
    assert "ended with exit code 1 before it began" in err
    assert '`if __name__ == "__main__":`' in err


def test_classes_of_an_interactive_session_are_told_so():
    code = """
    import duograd as dg
    class Typed(dg.data.Dataset):
        def __len__(self): return 4
        def __getitem__(self, i): return i
    for x in dg.data.DataLoader(Typed(), 4, num_workers=1): pass
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
    )  # fmt: skip
    assert "loading the data set failed in worker 0: AttributeError" in run.stderr
    assert "not in an interactive session" in run.stderr
