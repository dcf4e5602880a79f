"""Python numbers that change from call to call: one variant works out what they give; what Python reads is guarded."""

import collections
import copy
import functools
import gc
import json
import math
import queue
import threading
import typing
import weakref
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import duograd as dg
import duograd.nn.functional as F
import numpy as np
import pytest
from changing_numbers import FLOATS, State, check, facts

INF, NAN = math.inf, math.nan
SPECIAL = (0.5, NAN, 0.0, -0.0, INF, -INF, 1e-46, 1e300, 16777217.0, 0.1)
INTS = (1, 2, 3, -4, 0, 250, 2**31, -(2**40), 2**62, 5)
HUGE = (1, 2, 2**63 - 1, 2**63, 2**64, 2**70, 10**400, -(2**63), 3)


# ---------------------------------------------------------------- numbers that meet tensors


def elementwise(m, x, a):
    return x * a, a * x, x + a, a - x, x / a, a / x, a**x, x > a, dg.where(x > a, x, a), dg.maximum(x, a)


def dtypes(m, x, a):
    kinds = (dg.float64, dg.float16, dg.bfloat16, dg.int32, dg.complex64, dg.bool)
    return [y * a for y in (x.to(k) for k in kinds)] + [a + x.to(k) for k in kinds]


def in_place(m, x, a):
    y = x * 1
    y *= a
    y[0] = a
    y[1:] += a
    z = dg.zeros((2,))
    z.fill_(a)
    return y, z, dg.full((2,), a), dg.full_like(x, a), x.masked_fill(x > 0, a)


def formulas(m, x, a):
    b = (a * 0.9 + 1) / 3 - -abs(a)
    return x * b, b, a * a, 2 - a, (a, {"a": [a + 1]}), round(a * 3, 1), x * (b > a) if False else x - b


def nested(m, x, a):
    inner = dg.function(lambda t, k: t * k + k)
    late = lambda t, k=a: t * k
    return inner(x, a * 2), late(x), sum(late(x) for _ in range(2)), functools.partial(late, k=a + 1)(x)


def transforms(m, x, a):
    return (
        dg.vmap(lambda t: t * a + a)(x), dg.grad(lambda t: (t**2 * a).sum())(x),
        dg.cond(x.sum() > 2, lambda t: t * a, lambda t: t - a, x),
        dg.scan(lambda c, t: (c * a + t, c), x[0], x), dg.checkpoint(lambda t: t.tanh() * a, x),
    )  # fmt: skip


def gradients(m, x, a):
    m.w.grad = None
    ((m.w * x) ** 2 * a).sum().backward()
    with dg.no_grad():
        m.w -= 0.01 * a * m.w.grad
    return m.w.grad * a


@pytest.mark.parametrize("numbers", [FLOATS, SPECIAL, INTS], ids=("floats", "special", "ints"))
@pytest.mark.parametrize(
    "body", [elementwise, in_place, nested, transforms, gradients], ids=lambda f: f.__name__
)
def test_a_number_that_meets_tensors_is_traced_twice(body, numbers):
    check(
        body, numbers, None if numbers is INTS and body is nested else 2
    )  # twice 2 ** 62 is more than 64 bits


@pytest.mark.parametrize("numbers", [FLOATS, SPECIAL], ids=("floats", "special"))
@pytest.mark.parametrize("body", [dtypes, formulas], ids=lambda f: f.__name__)
def test_dtypes_and_formulas_of_floats(body, numbers):
    check(body, numbers, 2)


def test_ops_of_numbers_alone():
    check(
        lambda m, x, a: (dg.exp(a), dg.add(a, 1), dg.maximum(a, 0.5) * x), [*FLOATS, NAN, INF, -0.0, 1e30], 2
    )
    check(lambda m, x, a: (dg.add(a, 1), dg.multiply(a, 0.5) * x), (1, 2, 3, 4), 2)


def test_formulas_of_integers():
    check(
        lambda m, x, a: (x * (a + 1), a * a, -a, a // 2, a / 3, a % 7, x * 0.9**a, ~a, a << 2),
        (1, 2, 3, 4, 50),
        2,
    )
    check(formulas, INTS)


@pytest.mark.parametrize("numbers", [INTS, HUGE], ids=("ints", "huge"))
def test_integers_that_fit_a_dtype_or_do_not(numbers):
    check(lambda m, x, a: x.to(dg.uint8) + a, numbers)
    check(lambda m, x, a: (x.to(dg.int32) * a, (x > 0) * a), numbers)
    check(lambda m, x, a: (x * a, x.to(dg.float64) - a, x.to(dg.complex64) * a), numbers)
    check(lambda m, x, a: (dg.exp(a), a * a, a + 1), numbers)


def test_a_step_that_becomes_another_type_is_another_variant():
    check(lambda m, x, a: (x * 2**a, 2**a), (1, 2, -1, 3, -2, 5), 3)
    check(lambda m, x, a: ((-8.0) ** a, x * abs((-8.0) ** a)), (0.5, 2.0, -1.5, 4.0))
    check(lambda m, x, a: x if a is None else x * a, (1, 1.0, 2, 2.0, True, None, 3, 3.5, False, 4, 4.5), 7)


def test_a_bool_is_guarded():
    check(lambda m, x, a: x * a, (True, False, True, False), 2)


# ---------------------------------------------------------------- numbers of state


def adam_by_hand(m, x, _):
    m.t += 1
    m.lr *= 0.9
    return x * m.lr * (1 - 0.999**m.t) ** 0.5 / (1 - 0.9**m.t)


def of_containers(m, x, _):
    m.table["lr"] *= 0.5
    m.row[0] += 1
    m.row[-1] -= 0.25
    m.table["n"] += m.row[0]
    return x * m.table["lr"] + m.row[1] - m.table["n"]


def that_are_kept(m, x, a):
    m.last = a * 2
    m.log.append(m.last + 1)
    m.table["a"] = a
    m.t += a
    return x * m.t, m.log[-1]


def before_and_after_a_value(m, x, a):
    m.t += 1
    y = x * m.t
    if y.sum() > 8:
        m.lr = m.lr * 0.5 + a
    return y + m.lr


@pytest.mark.parametrize("body", [adam_by_hand, of_containers, that_are_kept], ids=lambda f: f.__name__)
def test_state_that_changes_at_every_call_is_traced_twice(body):
    check(body, range(1, 12), 2)


class Table(dict):
    """A dict with methods of its own."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)

    def more(self):
        self["n"] = self["n"] + 1
        return self["n"]


class Whole(Table):
    """One that makes up what it has not."""

    def __missing__(self, key):
        self.asked = getattr(self, "asked", 0) + 1
        return 7


@pytest.mark.parametrize(
    ("kind", "variants"),
    [(Table, 2), (collections.OrderedDict, 2), (Whole, None), (collections.defaultdict, None)],
    ids=lambda x: getattr(x, "__name__", "n"),
)
def test_items_of_classes_of_dicts_change(kind, variants):
    def before(m, k):
        if k == 0:
            m.last = kind(int) if kind is collections.defaultdict else kind()
            m.last.update(n=1, lr=0.5)
        if k == 5 and variants is None:
            dict.pop(m.last, "n")

    def body(m, x, _):
        m.last["lr"] *= 0.9
        n = m.last.more() if isinstance(m.last, Table) else m.last["n"] + 1
        m.last["n"] = n
        return x * m.last["lr"] + n, len(m.last), getattr(m.last, "asked", 0)

    check(body, range(9), variants, before=before)


def test_a_class_among_several_is_asked_for():
    def body(m, x, a):
        m.t += 1
        return x * m.t if isinstance(m.t, (int, float)) and not isinstance(a, (str, bytes)) else x

    check(body, FLOATS, 2)


def in_rows(m, x, a):
    for t, k in zip((m.table, m.table), (1, 2)):
        t["lr"] *= 0.5 + k
    for k, t in enumerate([m.table]):
        t["n"] += 1 + k
    return x * m.table["lr"] + m.table["n"]


def test_a_loop_over_rows_of_containers_does_not_look_into_them():
    check(in_rows, range(9), 2)


def in_an_element_of_a_generator(m, x, a):
    for t in (t for t in (m.table,) if t):
        t["lr"] *= 0.5
    return x * m.table["lr"]


def in_the_next_element(m, x, a):
    rows = [m.table]
    t = next(iter(rows))
    t["lr"] *= 0.5
    return x * m.table["lr"]


@pytest.mark.parametrize("body", [in_an_element_of_a_generator, in_the_next_element])
def test_what_a_generator_gives_is_not_looked_into(body):
    check(body, range(9), 2)


def test_a_segment_ends_between_numbers():
    check(before_and_after_a_value, [0.1 * k for k in range(9)], 3)  # `lr` is the same in the first two calls


COUNT = 0


def test_globals_and_cells_and_classes():
    global COUNT
    for mode in ("eager", "graph"):
        count, step, COUNT = 0, 0.5, 0

        class Held:
            n = 1

        def f(x):
            global COUNT
            nonlocal count, step
            count += 1
            COUNT += 3
            step *= 0.9
            Held.n += 2
            return x * count + step - Held.n * COUNT

        f = dg.function(f, mode=mode)
        out = [facts(f(dg.ones((2,)) * k)) for k in range(8)], count, step, Held.n, COUNT
        if mode == "eager":
            want = out
    assert out == want
    assert len(f.variants) == 2


def that_is_replaced_with_tensors(m, x, a):
    kept = m.last or {"h": x, "n": 0, "box": [a, x]}
    y = x * kept["n"] + kept["h"] + kept["box"][0] * kept["box"][1]
    m.last = {"h": y * 0.5, "n": kept["n"] + 1, "box": [a, y]}
    return y


def that_changes_beside_tensors(m, x, a):
    if m.last is None:
        m.last = {"h": x, "n": 0, "row": [x, 1.0]}
    m.last["h"] = m.last["h"] * 0.5 + x * m.last["n"]
    m.last["n"] += a
    m.last["row"][1] *= 0.5
    m.last["row"][0] = m.last["row"][0] * m.last["row"][1]
    return m.last["h"] + m.last["row"][0]


@pytest.mark.parametrize(
    "body", [that_is_replaced_with_tensors, that_changes_beside_tensors], ids=lambda f: f.__name__
)
def test_numbers_beside_tensors_in_state(body):
    check(body, range(1, 9))
    check(body, [0.5] * 9)


def test_state_changed_from_outside():
    def between(m, k):
        m.lr, m.table["n"] = 0.1 * k, k * k

    check(lambda m, x, _: x * m.lr + m.table["n"], (0,) * 8, 2, before=between)


def test_another_type_in_the_place_is_noticed():
    values = (1, 2, 3.5, True, None, 4, "a", dg.ones((3,)), 5, 6)

    def between(m, k):
        m.lr = values[k]

    check(lambda m, x, _: x if m.lr is None or m.lr == "a" else x * m.lr, (0,) * len(values), before=between)


def test_state_that_is_absent_is_noticed():
    def between(m, k):
        m.t += 1
        if k == 4:
            del m.last
        elif k == 6:
            m.last = 9
        elif k < 4:
            m.last = k

    check(lambda m, x, _: x * getattr(m, "last", 100) * m.t, (0,) * 9, before=between)


def test_modules_have_numbers_of_their_own():
    class Layer(dg.nn.Module):
        def __init__(self, t):
            super().__init__()
            self.t = t

        @dg.function
        def forward(self, x):
            self.t += 1
            return x * self.t

    layers = [Layer(10 * k) for k in range(3)]
    for turn in range(1, 5):
        for k, layer in enumerate(layers):
            assert layer(dg.ones((1,))).item() == 10 * k + turn
    dead = weakref.ref(layers.pop())
    del layer
    for _ in range(70):  # more than a function keeps
        Layer(3)(dg.ones((1,)))
    gc.collect()
    assert dead() is None


# ---------------------------------------------------------------- what Python reads


@dataclass
class Record:
    n: float
    m: int = 0


READS = {
    "branch": (lambda m, x, a: x * a if a > 2 else x - a, 3),
    "chain": (lambda m, x, a: x * a if 0 < a <= 3 else x - a, None),
    "every third": (lambda m, x, a: x * a + (1 if a % 3 == 0 else 0), 3),
    "whole": (lambda m, x, a: x * int(a // 4), None),
    "loop": (lambda m, x, a: sum((x for _ in range(a)), start=x), 8),
    "index": (lambda m, x, a: x[a % 3] * m.row[a % 2], None),
    "part": (lambda m, x, a: x[: a % 3] * a, None),
    "key": (lambda m, x, a: x * {1: 5}.get(a, a), None),
    "set key": (lambda m, x, a: (m.table.__setitem__(a % 2, a), x * a)[1], None),
    "format": (lambda m, x, a: (f"{a:.2f} {a}", x * a), 8),
    "percent": (lambda m, x, a: ("%d %s" % (a, a), x * a), 8),  # noqa: UP031
    "shape": (lambda m, x, a: dg.zeros((a,)), 8),
    "axis": (lambda m, x, a: x[None].sum(axis=a % 2), None),
    "repeat": (lambda m, x, a: ([1] * a, "ab" * a, x * a), 8),
    "type": (lambda m, x, a: x * (2 if type(a) is int else 3) * a, 8),
    "class": (lambda m, x, a: (x * a, a.__class__, isinstance(a, int), isinstance(a, float)), 2),
    "methods": (lambda m, x, a: (x * a, a.bit_length(), a.real, a.conjugate()), 8),
    "math": (lambda m, x, a: (x * math.sqrt(a), math.floor(a / 3), math.comb(a, 2)), 2),
    "least": (lambda m, x, a: (x * max(a, 3), min(a, 4), sorted([a, 3]), sum([a, a])), None),
    "numpy": (lambda m, x, a: (np.asarray(a), np.float32(a), np.arange(a), np.ones(2) * a), 8),
    "numpy operators": (lambda m, x, a: (np.ones(2, np.float32) * a, np.float32(2) * a, a + np.int8(1)), 8),
    "tensor": (lambda m, x, a: (dg.tensor(a), dg.tensor([a, 1.0]), dg.asarray([a])), 8),
    "complex": (lambda m, x, a: (a * 1j, complex(a), x * abs(a * 1j)), 8),
    "exact": (lambda m, x, a: (Fraction(a) / 3, Decimal(a) + 1, Fraction(1, 3) + a), 8),
    "json": (lambda m, x, a: (json.dumps({"a": a}), x * a), 8),
    "copy": (lambda m, x, a: (copy.deepcopy([a, {"a": a}]), copy.copy(a), x * a), None),
    "identity": (lambda m, x, a: (setattr(m, "last", a), m.last is a, x * a)[1:], 8),
    "truth": (lambda m, x, a: x * a if a else x - 1, None),
    "membership": (lambda m, x, a: x * a if a in (1, 5, 7) else x + a, None),
    "whole dict": (lambda m, x, a: (m.table.update(a=a), [x * v for v in m.table.values()])[1], 3),
    "dropout": (lambda m, x, a: F.dropout(x, 1 / (a + 1)), None),
    "attribute of an op": (lambda m, x, a: (F.leaky_relu(x, 1 / a), x.clip(-a, a)), 2),
    "attribute of integers": (lambda m, x, a: (x.to(dg.int32).clip(-a, a), dg.quantile(x, a / 9)), 8),
    "eps": (lambda m, x, a: F.layer_norm(x, (3,), eps=1e-3 * a), 2),
    "text": (lambda m, x, a: (a == "a", a != None, x * a), 2),  # noqa: E711
    "record": (lambda m, x, a: (lambda r: (x * r.n, r, r.m + 1))(Record(a, a * 2)), 2),
    "deque": (lambda m, x, a: (collections.deque([a], maxlen=2), x * a), 2),
    "exception": (lambda m, x, a: _raised_and_caught(a) * x, 2),
    "slice": (lambda m, x, a: (setattr(m, "last", slice(a, None)), slice(a), (slice(a, a), 1), x * a)[1:], 8),
    "protocols": (lambda m, x, a: (x * a, *(isinstance(a, c) for c in PROTOCOLS), isinstance(1 / a, PROTOCOLS)), 8),
    "has": (lambda m, x, a: (x * a, [hasattr(a, k) for k in ("__bytes__", "__array__", "__copy__", "real")]), 8),
    "dunders": (lambda m, x, a: (x * a, a.__radd__(2.5), a.__doc__[:4], a.__add__(1), a.__round__(1)), 8),
    "lacks": (lambda m, x, a: x * a if getattr(a, "__array__", None) is None else x, 8),
    "words": (lambda m, x, a: (x * a, [_words_of(w, a) for w in WRONG]), 8),
    "words of a float": (lambda m, x, a: (x * a, [_words_of(w, a / 3) for w in WRONG], _words_of(_part, x, a / 3)), 8),
    "thread": (lambda m, x, a: (r := _in_a_thread(lambda: (a, a + 1, -a, a > 3, bool(a - 3))), x * r[1]), 8),
    "cache": (lambda m, x, a: x * _doubled(a) + _doubled(a + 1), 8),
    "class of its own": (lambda m, x, a: (x * Celsius(a), x * Count(a) + Celsius(a) * a), 8),
    "printed": (lambda m, x, a: (dg.print("{} {}", a, x, to=m.log.append), x * a)[1], 8),
}  # fmt: skip


def _raised_and_caught(a):
    try:
        raise KeyError(a)
    except KeyError as e:
        return e.args[0]


PROTOCOLS = typing.SupportsIndex, typing.SupportsBytes, typing.SupportsComplex
WRONG = (
    lambda a: a(), lambda a: a[0], len, lambda a: [*a], lambda a: 1 in a, lambda a: a < "a", lambda a: a + None,
    lambda a: "a" + a, lambda a: a @ 2, lambda a: a.name, lambda a: [1, 2][a * 10], lambda a: divmod(a, 0),
    lambda a: divmod(a / 2, 0), lambda a: a.__array__,
)  # fmt: skip


def _words_of(wrong, *args):
    try:
        return wrong(*args)
    except Exception as e:
        return type(e).__name__, str(e).split("\n")[0]


def _part(x, a):
    return x[a]


def _in_a_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.extend(work()))
    thread.start()
    thread.join()
    return found


@functools.lru_cache
def _doubled(n):
    return n * 2


class Celsius(float):
    """A number of a class of its own."""


class Count(int):
    """Another one."""


@pytest.mark.parametrize("name", READS)
def test_what_python_reads_is_as_without_compiling(name):
    body, variants = READS[name]
    check(body, range(1, 9), variants)
    check(body, (1, 3, 1, 4, 3, 2**40 % 7, 1))


def match_statement(m, x, a):
    match a:
        case 2:
            return x
        case int() if a > 5:
            return x * a
        case float(v):
            return x - v
        case _:
            return x + a


def caught(m, x, a):
    try:
        m.last = 1 / a
    except ZeroDivisionError:
        m.last = 7
    return x * m.last


def refused(m, x, a):
    if a == 5:
        raise ValueError(f"no {a}")
    m.t += a
    return x / (a - 3)


def finite(m, x, a):
    return x * (1 / a), 2.0**a


@pytest.mark.parametrize("body", [match_statement, caught, refused, finite], ids=lambda f: f.__name__)
def test_branches_and_exceptions_follow_the_number(body):
    check(body, (1, 2, 3, 4, 5, 6, 0, 7, 8, 3, 5))
    check(body, (0.5, 2.0, 0.0, 3.0, -0.0, 1e308, 5000.0, 1.5))


def test_an_error_for_one_number_leaves_the_others_live():
    check(lambda m, x, a: (x * (1 / a), a + 1), (1, 2, 0, 4, 5, 6, 7), 2)


def test_a_function_that_reads_a_number_ends_at_its_limit():
    f = dg.function(lambda x, n: x * float(f"{n}"), limit=3)
    for n in range(3):
        f(dg.ones((1,)), n)
    with pytest.raises(dg.errors.RetraceError, match="2 became 3"):
        f(dg.ones((1,)), 3)


# ---------------------------------------------------------------- arguments in containers, shapes, ways back


def test_numbers_in_containers_of_arguments():
    def body(x, config, row, *, scale, more=(1, 2)):
        row[0] += config["lr"]
        return x * config["lr"] + row[0] * scale - more[1], config["names"], row

    seen = {}
    for mode in ("eager", "graph"):
        f, seen[mode] = dg.function(body, mode=mode), []
        for k in range(6):
            config, row = {"lr": 0.1 * k, "names": ["a"], "flag": True}, [k, Record(k)]
            out = f(dg.ones((3,)), config, row, scale=k + 1, more=(0, k * 2))
            seen[mode] += [facts(out[0]), facts(out[2][0]), out[2] is row, row[1].n]
    assert seen["eager"] == seen["graph"]
    assert len(f.variants) == 2
    text = f.explain(guards=True)
    assert "config['lr'] is any float" in text
    assert "scale is any int" in text
    assert "more[1] is any int" in text


def test_a_container_that_is_argument_and_state():
    seen = {}
    for mode in ("eager", "graph"):
        m = State()

        def body(x, d, row, m=m):
            d["n"] += 1
            m.table["lr"] *= 0.5
            row[0] += d["n"]
            m.row.append(row[0])
            return x * d["n"] * m.table["lr"] - row[0], d is m.table, row is m.row

        f, seen[mode] = dg.function(body, mode=mode), []
        for k in range(8):
            d, row = (m.table, m.row) if k % 4 < 3 else ({"n": k, "lr": 0.1}, [k])
            seen[mode] += [facts(f(dg.ones((2,)), d, row)), facts([d, row]), m.seen()]
    assert seen["eager"] == seen["graph"]


def test_a_new_shape_is_traced_once_when_a_number_is_known_to_change():
    f = dg.function(lambda x, lr: x * lr)
    for n in range(1, 6):
        for k in range(4):
            assert facts(f(dg.ones((n,)), 0.3 * k)) == facts(dg.ones((n,)) * (0.3 * k))
    assert len(f.variants) == 6


def test_a_trace_that_meets_no_number_that_changes_has_no_live_numbers():
    m = State()
    f = dg.function(lambda x: x * m.t if x.shape == (1,) else x * 2)
    for k in range(3):
        m.t = k
        assert f(dg.ones((1,))).item() == k
    for _ in range(2):
        assert f(dg.ones((2,))).tolist() == [2, 2]
    assert [v.live is None for v in f.variants] == [True, False, True]


def test_looking_inside_a_function_with_live_numbers(tmp_path):
    m = State()

    @dg.function
    def f(x, a):
        m.t += 1
        return x * a * m.t if a > 0 else x

    for a in (0.5, 1.5, 2.5):
        f(dg.ones((8,)), a)
    before = m.t
    text = f.explain(guards=True)
    assert "a is any float" in text
    assert "m.t is any int" in text
    assert "a > 0" in text
    assert "$(a * " not in text
    assert "multiply" in f.show(html=tmp_path / "page.html")
    assert f.profile(dg.ones((8,)), 3.5, seconds=0.01) is not None
    dg.compare(f, dg.ones((8,)), 4.5)
    assert m.t == before
    assert f(dg.ones((8,)), 5.5)[0].item() == 5.5 * (before + 1)
    assert f.warmup(dg.ones((8,)), 6.5) is False
    assert f.warmup(dg.ones((8,)), -6.5) is True
    assert len(f.variants) == 3


def test_functions_compiled_in_the_background_guard_numbers_by_value():
    f = dg.function(lambda x, a: x * a, compile="background")
    for a in (0.5, 1.5, 2.5, 0.5):
        assert f(dg.ones((1,)), a).item() == a
        f.wait()
    assert len(f.variants) == 3


def test_gradients_through_a_call_take_the_numbers_of_that_call():
    def body(x, a):
        return (x * x * a).sum(), (x * (a + 1)).sum(), x.exp() * a

    grads = {}
    for mode in ("eager", "graph"):
        f, grads[mode] = dg.function(body, mode=mode), []
        for part in ((0, 1, 2), (0,), (1,), (2,)):
            x = dg.tensor([1.0, 2.0]).requires_grad_()
            calls = [f(x, a) for a in (0.5, 1.5, 2.5, 3.5)]
            for out in calls:
                x.grad = None
                sum(out[k].sum() for k in part).backward(retain_graph=True)
                grads[mode].append(facts(x.grad))
                g = dg.autograd.grad(
                    sum(out[k].sum() for k in part), x, create_graph=True, retain_graph=True
                )[0]
                grads[mode].append(facts(dg.autograd.grad((g * g + x).sum(), x)[0]))
    assert grads["eager"] == grads["graph"]
    assert len(f.variants) == 2


def test_a_gradient_of_a_gradient_finds_state_as_it_was():
    seen = {}
    for mode in ("eager", "graph"):
        m = State()

        def body(x, m=m):
            m.t += 1
            m.lr *= 0.5
            return (x**3 * m.t * m.lr).sum()

        f, seen[mode], x = dg.function(body, mode=mode), [], dg.tensor([1.0, 2.0]).requires_grad_()
        for y in [f(x) for _ in range(5)]:
            (g,) = dg.autograd.grad(y, x, create_graph=True)
            seen[mode] += [facts(g), facts(dg.autograd.grad(g.sum(), x)[0]), m.t, m.lr]
    assert seen["eager"] == seen["graph"]


def test_a_rule_that_branches_on_a_number():
    def body(x, n):
        def rule(g):
            return g * n if n > 2 else g - n

        return dg.custom_gradient(lambda t: (t * n, rule))(x).sum(), (x * n).sum()

    seen = {}
    for mode in ("eager", "graph"):
        f, seen[mode] = dg.function(body, mode=mode), []
        for n in (1, 2, 3, 4, 2, 7, 1):
            x = dg.tensor([1.0, 2.0]).requires_grad_()
            out = f(x, n)
            out[n % 2].backward()
            seen[mode].append(facts(x.grad))
    assert seen["eager"] == seen["graph"]


# ---------------------------------------------------------------- what does not know live numbers


def test_what_is_kept_where_no_trace_sees_it_is_a_plain_number():
    kept = queue.SimpleQueue()

    @functools.lru_cache
    def cached(n):
        return n * 2

    @dg.function
    def f(x, n):
        kept.put(n)
        return x * cached(n) + cached(n * 3)

    for n in range(5):
        assert f(dg.ones((1,)), n).item() == n * 2 + n * 6
    assert [cached(n) for n in range(5)] == [0, 2, 4, 6, 8]
    while not kept.empty():
        assert type(kept.get()) is int


def test_another_thread_sees_plain_numbers_while_a_function_is_traced():
    m, found = State(), []

    def look():
        found.append((type(m.lr + 1), m.lr > 0, float(m.lr)))

    @dg.function
    def f(x):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return x * m.lr

    for k in range(1, 5):
        m.lr = 0.5 * k
        assert f(dg.ones((1,))).item() == 0.5 * k
    assert all(kind is float and above for kind, above, _ in found)
    assert [value for *_, value in found][:2] == [0.5, 1.0]
    assert type(m.lr) is float


def test_a_number_that_another_thread_met_during_one_trace_is_live_in_the_next():
    m, look = State(), [True]

    @dg.function
    def f(x):
        if look:
            thread = threading.Thread(target=lambda: m.lr * 2)
            thread.start()
            thread.join()
        return x * m.lr

    for k in range(1, 9):
        m.lr = 0.5 * k
        if k == 3:
            look.clear()
        assert f(dg.ones((1,))).item() == 0.5 * k
    assert len(f.variants) == 3


def test_a_function_that_runs_in_python_gets_plain_numbers():
    seen = []

    @dg.function(mode="eager")
    def host(x, n):
        seen.append(type(n))
        return x * n

    f = dg.function(lambda x, n: host(x, n) + n)
    assert [f(dg.ones((1,)), n).item() for n in range(6)] == [2 * n for n in range(6)]
    assert set(seen) == {int}


def test_optimiser_and_schedule_inside():
    seen = {}
    for mode in ("eager", "graph"):
        w = dg.tensor([1.0, -2.0]).requires_grad_()
        opt = dg.optim.Adam([w], lr=0.1)
        plan = dg.optim.lr_scheduler.ExponentialLR(opt, gamma=0.9)

        def step(x, w=w, opt=opt, plan=plan):
            opt.zero_grad()
            loss = ((w * x) ** 2).sum()
            loss.backward()
            opt.step()
            plan.step()
            return loss

        step = dg.function(step, mode=mode)
        seen[mode] = (
            [facts(step(dg.ones((2,)))) for _ in range(8)],
            facts(w.detach()),
            opt.param_groups[0]["lr"],
        )
    assert seen["eager"] == seen["graph"]


def test_random_seeds_from_a_number():
    seen = {}
    for mode in ("eager", "graph"):

        @dg.function(mode=mode)
        def f(x, seed):
            dg.manual_seed(seed)
            return x + dg.rand((2,)), dg.Generator(seed + 1).get_state()

        seen[mode] = [facts(f(dg.ones((2,)), k)) for k in range(5)]
    assert seen["eager"] == seen["graph"]


def test_checked_calls(monkeypatch):
    monkeypatch.setenv("DUOGRAD_CHECK", "1")
    m = State()

    @dg.function
    def f(x, a):
        m.t += 1
        return x * a * m.t

    assert [f(dg.ones((1,)), 0.5 * k).item() for k in range(5)] == [0.0, 1.0, 3.0, 6.0, 10.0]
    assert len(f.variants) == 2


def test_an_exported_function_keeps_the_number_it_was_exported_with():
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    f = dg.function(lambda x, a: x * a + 1)
    for a in (2.0, 3.0, 4.0):
        f(dg.ones((2,)), a)
    model = dg.onnx.export(lambda x: f(x, 5.0), (dg.ones((2,)),))
    model = onnx.load_from_string(model) if isinstance(model, bytes) else getattr(model, "proto", model)
    (got,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: np.ones(2, np.float32)})
    assert got.tolist() == [6.0, 6.0]
