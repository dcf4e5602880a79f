"""Data sets for tests/test_data_workers.py: in a file that workers can import."""

import os
import random
import signal
import sys
import threading
import time

import duograd as dg
import numpy as np

N = 23


class Counted(dg.data.Dataset):
    """N samples of many kinds; one draws random numbers of every kind."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return {
            "index": index,
            "array": np.full((2, 3), index, np.float64),
            "half": dg.full((3,), index, dtype=dg.bfloat16),
            "empty": np.zeros((0, 2), np.int8),
            "text": f"sample {index}",
            "drawn": (random.random(), np.random.rand(), dg.rand((2,))),
        }


class Plain(dg.data.Dataset):
    """Sample i is i."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return index


class Failing(Plain):
    """Samples 5 and 9 raise."""

    def __getitem__(self, index):
        if index == 5:
            raise ValueError("of no use")
        return {}["absent"] if index == 9 else index


class Killed(Plain):
    """Sample 5 ends the process at once."""

    def __getitem__(self, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


class Slow(Plain):
    """A sample takes half a minute."""

    def __getitem__(self, index):
        time.sleep(30)
        return index


INIT: list = []


def note_start(worker):
    """A worker_init_fn."""
    INIT.append(worker)


class Stream(dg.data.IterableDataset):
    """The numbers below 17, shared out among the workers, and what each is like, as a text."""

    def __iter__(self):
        info = dg.data.get_worker_info()
        for k in range(info.id, 17, info.num_workers):
            y = dg.rand((64,)) * 2
            facts = {
                "threads": (threading.active_count(), os.environ["DUOGRAD_NUM_THREADS"]),
                "heavy": [m for m in ("numba", "onnx", "duograd.nn") if m in sys.modules],
                "init": INIT,
            }
            yield k, y, repr(facts)
