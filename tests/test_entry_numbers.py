"""The quick way into a variant for calls with numbers: as the general way, for constants and for live numbers."""

import math

import duograd as dg
import numpy as np
import pytest
from changing_numbers import State, facts

MIXED = (
    1, 2, 3, 4, 5, 1.0, 2.0, 2.5, True, False, None, "a", "b", -0.0, 0.0, math.nan, math.inf, 2**70, np.float64(2.0),
    np.float32(0.5), np.int64(3), 7, 8, 9, "a", None, True, 1e300, 10**400, 6, 5,
)  # fmt: skip


def plain(m, x, a):
    return x * 2 if a is None or isinstance(a, str) else x * a


def both(m, x, a):
    if isinstance(a, (str, type(None))):
        return a, x
    return x + a, a * 2, x * (a + 1)


def state(m, x, a):
    m.t += 1
    m.lr *= 0.9
    m.log.append(m.t)
    m.last = a
    return x * m.lr + m.t


def branch(m, x, a):
    if isinstance(a, (int, float)) and a > 4:
        return x - a, a
    return x, a


def read(m, x, a):
    return x * 2, f"{a}"


def gradients(m, x, a):
    m.w.grad = None
    (m.w * x * (a if isinstance(a, float) else 2.0)).sum().backward()
    with dg.no_grad():
        m.w -= 0.1 * m.w.grad
    return m.w.grad


@pytest.mark.parametrize("body", [plain, both, state, branch, read, gradients], ids=lambda f: f.__name__)
def test_mixed_numbers_as_without_compiling(body):
    found = []
    for mode in ("eager", "graph"):
        m, rows = State(), []
        f = dg.function(lambda x, a, m=m: body(m, x, a), mode=mode, limit=1000)
        for a in (*MIXED, *MIXED[:8], *[k / 3 for k in range(12)], *MIXED, *range(12)):
            try:
                rows.append(facts(f(dg.tensor([1.0, -2.0, 3.5]), a)))
            except Exception as e:
                rows.append((type(e).__name__, str(e).split("\n")[0].partition(", line")[0]))
            rows.append(m.seen())
        found.append(rows)
    assert found[0] == found[1]


def test_there_is_a_quick_way():
    def entries(body, *calls):
        f = dg.function(body)
        for args in calls:
            f(*args)
        return len(f._entries)

    x, m = dg.ones((3,)), State()
    assert entries(lambda x, a: x * a, *[(x, 2.0)] * 4) == 1
    assert entries(lambda x, a: x * a, *[(x, k / 3) for k in range(6)]) == 1
    assert entries(lambda a, x, b, y: x * a + b * y, *[(k, x, k / 3, x * 2) for k in range(6)]) == 1
    assert entries(lambda x: state(m, x, 0.5), *[(x,)] * 6) == 1
    assert entries(lambda x, a: x * a[0], *[(x, (k / 3,)) for k in range(6)]) == 0


def test_it_gives_way_where_it_does_not_fit():
    f = dg.function(lambda x, a, b=1.0: x * a + b)
    x = dg.ones((2,))
    for k in range(6):
        f(x, k / 3)
    assert len(f._entries) == 1
    for args, named, want in (
        ((x, 0.5), {}, 1.5), ((x, 0.5, 3.0), {}, 3.5), ((x,), {"a": 0.5}, 1.5), ((x, 0.5), {"b": 2}, 2.5),
        ((x.to(dg.float64), 0.5), {}, 1.5), ((x, 2), {}, 3.0), ((x, np.float32(0.5)), {}, 1.5),
        ((dg.ones((3,)), 0.5), {}, 1.5),
    ):  # fmt: skip
        y = f(*args, **named)
        assert y.numpy()[0] == want
        assert y.dtype is args[0].dtype
        assert y.shape == args[0].shape
    with pytest.raises(TypeError):
        f(x, 1.0, 2.0, 3.0)
    with dg.mode("eager"):
        assert f(x, 0.5).numpy()[0] == 1.5
