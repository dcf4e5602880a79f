"""The story that an onlooker sees of a function with Python numbers that change: the same in both modes."""

import collections
from dataclasses import dataclass

import duograd as dg
import numpy as np

FLOATS = (0.1, 0.25, -1.5, 3.0, 7.7, 0.1)


def facts(x):
    """A value with types and bits."""
    if isinstance(x, dg.Tensor):
        array = np.array(x._array())
        return "tensor", str(array.dtype), array.shape, array.tobytes()
    if isinstance(x, np.ndarray):
        return "array", str(x.dtype), x.tobytes()
    if isinstance(x, dict):
        return "dict", [(facts(k), facts(v)) for k, v in x.items()]
    if isinstance(x, (list, tuple, collections.deque)):
        return type(x).__name__, [facts(v) for v in x]
    if type(x) is float:
        return "float", "nan" if x != x else x.hex()
    return type(x).__name__, repr(x)


@dataclass
class Record:
    n: float
    m: int = 0


class State:
    """What functions keep."""

    def __init__(self):
        self.t, self.lr, self.last = 0, 1.0, None
        self.table, self.row, self.log = {"lr": 1.0, "n": 2}, [1, 2.5], []
        self.w = dg.tensor([0.5, -1.0, 2.0])
        self.w.requires_grad_()

    def seen(self):
        grad = None if self.w.grad is None else facts(self.w.grad)
        return (
            facts([self.t, self.lr, getattr(self, "last", 0), self.table, self.row, self.log]),
            facts(self.w.detach()),
            grad,
        )


def story(body, numbers, mode, before=lambda m, k: None):
    """What an onlooker sees of a call for each number, and how many variants there are."""
    m, f, seen = State(), dg.function(body, mode=mode, limit=1000), []
    x = dg.tensor([1.0, -2.0, 3.5])
    dg.manual_seed(3)
    for k, n in enumerate(numbers):
        before(m, k)
        try:
            seen.append(facts(f(m, x, n)))
        except Exception as e:
            seen.append((type(e).__name__, str(e).split("\n")[0].partition(", line")[0]))
        seen.append(m.seen())
    return seen, len(f.variants)


def check(body, numbers=FLOATS, variants=None, **options):
    """Both modes give the same; graph mode traces so often."""
    want, got = story(body, numbers, "eager", **options), story(body, numbers, "graph", **options)
    for a, b in zip(want[0], got[0], strict=True):
        assert a == b
    if variants is not None:
        assert got[1] == variants
