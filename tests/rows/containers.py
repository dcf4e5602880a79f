"""Calls whose arguments are containers that are state, too: what they hold, and what an onlooker sees of the calls."""

import collections
import dataclasses

import duograd as dg
import numpy as np


@dataclasses.dataclass
class Record:
    n: int = 1
    row: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    row: list


class State:
    def __init__(self):
        self.log, self.other, self.rows, self.table = [], [], [[], []], {}
        self.record, self.seen, self.queue, self.n = Record(), set(), collections.deque(maxlen=3), 0


def T(*values):
    return dg.tensor(list(values or (1.0, 2.0)))


def see(x):
    if isinstance(x, dg.Tensor):
        return x.detach().numpy().tolist(), x.requires_grad
    if isinstance(x, dict):
        return [(k, see(v)) for k, v in x.items()]
    if isinstance(x, (State, Record)):
        return [(k, see(v)) for k, v in vars(x).items()]
    if isinstance(x, Frozen):
        return see(x.row)
    if isinstance(x, np.ndarray):
        return type(x).__name__, x.tolist()
    return [see(y) for y in x] if isinstance(x, (list, tuple, set, collections.deque)) else x


def calls(jit, fn, arguments, keep=(), n=5):
    """What calls give, and what they leave in their arguments and in `keep`; errors by their words."""
    f, found = jit(fn), []
    for k in range(n):
        given = arguments(k)
        try:
            found.append(see(f(*given)))
        except Exception as e:
            found.append(f"{type(e).__name__}: {e}")
        found.append([see(x) for x in (*given, *keep)])
    return found


def with_log(jit, fn, n=4, log=None):
    """Calls with a tensor and `m.log`, which starts anew from `log` at each of them, if that is given."""
    m = State()

    def arguments(k):
        if log is not None:
            m.log[:] = log
        return T(), m.log

    return calls(jit, lambda x, a: fn(m, x, a), arguments, [m], n)
