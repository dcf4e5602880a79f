"""Functions with a cache of their results that a traced function calls: what they change, say and find besides."""

import functools
from types import SimpleNamespace

import duograd as dg
import pytest


def both(fn):
    """What five calls of `fn(mode, m)`'s function give and leave behind, in each mode. m: with a log."""
    told = []
    for mode in ("eager", "graph"):
        m = SimpleNamespace(log=[], n=0, t=dg.ones(1), w=dg.ones(2))
        f, row = dg.function(fn(m), mode=mode), []
        for k in range(5):
            row.append((f(dg.ones(2) * (k + 1), (k + 1) / 2).tolist(), str(vars(m))))
        told.append((row, dg.rand((1,)).item()))
        dg.manual_seed(0)
    return told


def changes_a_log_of_the_callers(m):
    @functools.lru_cache
    def cached(k):
        m.log.append("cached")
        return k

    def f(x, k):
        m.log.append("f")
        return x * cached(3)

    return f


def changes_a_tensor_that_is_read_before(m):
    @functools.lru_cache
    def cached(k):
        m.w.mul_(2)
        return k

    def f(x, k):
        y = x * m.w
        return y * cached(3)

    return f


def finds_what_the_caller_has_changed(m):
    @functools.lru_cache
    def cached(k):
        return (m.w * k).sum(), m.w.sum().item()

    def f(x, k):
        a, _ = cached(3)
        m.w.mul_(0.5)
        b, n = cached(4)
        return x * a + b * n

    return f


def changes_a_number_of_the_callers(m):
    @functools.lru_cache
    def cached(k):
        m.n += 1
        return k

    def f(x, k):
        m.n += 10
        return x * cached(m.n % 3) * m.n

    return f


def draws(m):
    @functools.lru_cache
    def cached(k):
        m.log.append(k)
        return dg.rand((2,))

    return lambda x, k: x * cached(3) + cached(4) * dg.rand((2,))


def counts_with_others(m):
    """The counts of one cache that another one fills."""

    @functools.lru_cache
    def inner(k):
        m.log.append(("inner", k))
        return k + 1

    @functools.lru_cache(maxsize=2)
    def outer(k):
        m.log.append(("outer", k))
        return inner(k % 2)

    return lambda x, k: x * outer(int(k)) * inner(1)


def is_asked_for_equal_numbers_of_two_kinds(m):
    """One int is a key of itself: 0 and 0.0 have a result each."""
    m.count = 1

    @functools.lru_cache
    def cached(k):
        m.count += 1
        m.log.append((m.count, type(k).__name__))
        return k * 0.5 + 1

    def f(x, k):
        cached(0.0)
        m.count += 1
        return x * cached(m.count % 2)

    return f


def finds_a_tensor(m):
    @functools.lru_cache
    def cached(k):
        m.log.append(k)
        return m.t * k

    def f(x, k):
        m.t = x + 1
        return x * cached(3)

    return f


def finds_a_tensor_and_catches(m):
    @functools.lru_cache
    def cached(k):
        m.log.append(k)
        try:
            return m.t * k
        except BaseException:
            return 7

    def f(x, k):
        m.t = x + 1
        return x * cached(3)

    return f


def gives_a_tensor_of_the_call(m):
    @functools.lru_cache(maxsize=3)
    def cached(k):
        m.log.append(k)
        return (1, [m.t]) if k <= 0 else cached(k - 1)

    def f(x, k):
        m.t = x
        return x * cached(3)[1][0]

    return f


def is_asked_for_a_changing_number(m):
    @functools.lru_cache
    def cached(k):
        m.log.append(k)
        return k * 2

    def f(x, k):
        try:
            return x * cached(k)
        finally:
            m.log.append("end")

    return f


def is_asked_for_a_changing_number_where_all_is_caught(m):
    cached = functools.lru_cache(lambda k: k * 2)

    def f(x, k):
        y = x
        try:
            y = x * cached((k, 2))[0]
        except BaseException:
            m.log.append("caught")
        return y

    return f


def makes_a_mask_in_place(m):
    @functools.lru_cache
    def mask(n):
        made = dg.zeros(n)
        made[0] = 3
        return made

    return lambda x, k: x * mask(2)


def is_called_by_c_code(m):
    @functools.lru_cache
    def cached(k):
        m.log.append(k)
        return k + 1

    def f(x, k):
        m.n += 1
        y = x * sum(map(cached, (1, m.n % 3))) * max((1, 2), key=cached)
        m.log.append("f")
        return y * cached.__wrapped__(k)

    return f


def is_called_within_vmap(m):
    @functools.lru_cache
    def cached(k):
        m.log.append(k)
        return dg.ones(2) * k

    return lambda x, k: dg.vmap(lambda t: t * cached(3))(dg.stack([x, x]))[0] + cached(3)


def is_called_within_vmap_and_makes_no_more(m):
    cached = functools.lru_cache(lambda k: dg.arange(2) * k)
    return lambda x, k: dg.vmap(lambda t: t * cached(m.n))(dg.stack([x, x]))[0] + cached(0)


def is_called_in_a_loop(m):
    @functools.lru_cache
    def cached(k):
        m.log.append(k)
        return k + 1

    def f(x, k):
        y = dg.scan(lambda c, _: (c * cached(2), None), x, length=2)[0]
        return dg.cond(x[0] > 2, lambda t: t * cached(3), lambda t: t * cached(2), y)

    return f


def calls_itself_with_little_room(m):
    @functools.lru_cache(maxsize=2)
    def cached(k):
        m.log.append(k)
        return k + (cached(k - 1) if k > 0 else 1)

    def f(x, k):
        m.n += 1
        try:
            return x * cached(m.n % 3) * len(dir(m))
        finally:
            m.w += 1

    return f


FUNCTIONS = (
    changes_a_log_of_the_callers, changes_a_tensor_that_is_read_before, finds_what_the_caller_has_changed,
    changes_a_number_of_the_callers, draws,
    counts_with_others, is_asked_for_equal_numbers_of_two_kinds, finds_a_tensor,
    finds_a_tensor_and_catches, gives_a_tensor_of_the_call,
    is_asked_for_a_changing_number, is_asked_for_a_changing_number_where_all_is_caught, makes_a_mask_in_place,
    is_called_by_c_code, is_called_in_a_loop, is_called_within_vmap, is_called_within_vmap_and_makes_no_more,
    calls_itself_with_little_room,
)  # fmt: skip


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda fn: fn.__name__)
def test_what_a_function_with_a_cache_does_is_done_once(fn):
    """It ran once more after the trace had come to nothing, with all that it does beside its result."""
    eager, graph = both(fn)
    assert eager == graph


def test_a_result_made_while_a_loop_is_looked_at_is_an_error():
    cached = functools.lru_cache(lambda k: dg.ones(2) * k)
    f = dg.function(lambda x: dg.scan(lambda c, _: (c * cached(3), None), x, length=2)[0], mode="eager")
    with pytest.raises(
        dg.errors.TraceError, match=r"of a function of scan was used outside of it\n.*\n.*before the loop"
    ):
        f(dg.ones(2))


def test_a_checked_call_does_what_a_function_with_a_cache_does_once(monkeypatch):
    """Eager mode had filled the cache, and was taken back: the graph's call, which stays, found the result."""
    monkeypatch.setenv("DUOGRAD_CHECK", "1")
    eager, graph = both(changes_a_log_of_the_callers)
    assert eager == graph


def test_what_a_function_with_a_cache_says_is_said_once_and_in_its_place(capsys):
    @functools.lru_cache
    def cached(k):
        print("cached", k)
        return k

    def f(x):
        print("f")
        return x * cached(3)

    said = []
    for mode in ("eager", "graph"):
        cached.cache_clear()
        g = dg.function(f, mode=mode)
        for _ in range(3):
            g(dg.ones(2))
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == "f\ncached 3\nf\nf\n"


def test_a_function_with_a_cache_that_changes_nothing_is_no_reason_to_run_python():
    mask = functools.lru_cache(lambda n: dg.ones(n))
    f = dg.function(lambda x: x * mask(x.shape[0]))
    for n in (2, 2, 3, 3, 3):
        assert f(dg.ones(n)).tolist() == [1.0] * n
    assert mask.cache_info().currsize == 2
    assert len(f.variants) == 2
    assert "its Python" not in f.explain()


def test_what_cannot_be_taken_back_is_an_error_where_a_tensor_of_the_call_is_found(tmp_path):
    held, path = SimpleNamespace(t=None), tmp_path / "log"

    @functools.lru_cache
    def cached(k):
        with open(path, "a") as file:
            file.write("x")
        return held.t * k

    def f(x):
        held.t = x + 1
        return x * cached(3)

    with pytest.raises(
        dg.errors.TraceError, match=r"finds a tensor of its call in cached.*\n.*\n.*outside first"
    ):
        dg.function(f)(dg.ones(2))
    assert held.t is None
    assert path.read_text() == "x"


def test_what_a_function_with_a_cache_reads_where_nobody_sees_it_is_read_once(tmp_path):
    path, held = tmp_path / "rate", SimpleNamespace(reads=0)
    path.write_text("3")

    @functools.lru_cache
    def rate():
        held.reads += 1
        return float(path.read_text())

    f = dg.function(lambda x: x * rate())
    assert [f(dg.ones(1)).item() for _ in range(3)] == [3.0] * 3
    assert held.reads == 1


def test_what_cannot_be_taken_back_stands_around_another_such_function(tmp_path):
    path, log = tmp_path / "log", []

    @functools.lru_cache
    def inner(k):
        log.append(k)
        return k + 1

    @functools.lru_cache
    def outer(k):
        with open(path, "a") as file:
            file.write("x")
        return inner(k)

    f = dg.function(lambda x: x * outer(2))
    assert [f(dg.ones(1)).item() for _ in range(3)] == [3.0] * 3
    assert (path.read_text(), log, inner.cache_info().currsize) == ("x", [2], 1)


def test_a_number_that_such_a_function_changes_too_is_put_back_as_a_number():
    """What stood for it in the trace stayed in the dict for good."""
    found = {"n": 1}

    @functools.lru_cache
    def noted(k):
        found["n"] += 1
        return k * 0.5 + 1

    def body(x, k):
        try:
            y = x * noted(k)
        finally:
            found["n"] += 1
        return y * found["n"]

    stories = []
    for f in (body, dg.function(body)):
        noted.cache_clear()
        found["n"] = 1
        row = [(f(dg.ones(1), k).item(), found["n"]) for k in (0, 0, 0, 0, 1, 1, 2, 2, 3)]
        assert type(found["n"]) is int
        stories.append(row)
    assert stories[0] == stories[1]


@pytest.mark.parametrize("calls", [2, 6])
def test_a_cache_with_a_limit_drops_what_it_drops_in_eager_mode(calls):
    """A graph asked it for nothing, so that what the function uses all the time was dropped first."""

    def run(mode):
        gain = [1.0]

        @functools.lru_cache(maxsize=2)
        def factor(k):
            return k * gain[0]

        f = dg.function(lambda x, k: x * factor(k), mode=mode)
        found = [f(dg.ones(1), k).item() for k in (1, 2)]
        found += [f(dg.ones(1), 1).item() for _ in range(calls)]
        gain[0] = 10.0
        factor(3)
        found += [f(dg.ones(1), k).item() for k in (1, 2, 3, 1)]
        return found, factor.cache_info().currsize

    assert run("graph") == run("eager")


def test_a_trace_that_comes_to_nothing_has_dropped_nothing_from_a_full_cache():
    def run(mode):
        gain, log = [1.0], []

        @functools.lru_cache(maxsize=2)
        def factor(k):
            return k * gain[0]

        @functools.lru_cache
        def noted(k):
            log.append(k)
            return k

        f = dg.function(lambda x, k, n: x * factor(1) * factor(2) * factor(k) * noted(n), mode=mode)
        found = [f(dg.ones(1), 2, 1).item() for _ in range(2)]
        gain[0] = 10.0
        found += [f(dg.ones(1), k, k).item() for k in (3, 3, 2, 1, 3)]
        return found, log

    assert run("graph") == run("eager")


def test_a_cached_property_that_is_made_in_a_call_stays_in_the_graph():
    """Up to Python 3.11 it has a lock, for which the function's Python ran at every call."""

    class Masked(dg.nn.Module):
        @functools.cached_property
        def mask(self):
            return dg.tril(dg.ones(3, 3))

        def forward(self, x):
            return x @ self.mask

    m = Masked()
    f = dg.function(lambda x: m(x))
    for k in range(5):
        x = dg.ones(2, 3) * k
        assert f(x).tolist() == (x @ dg.tril(dg.ones(3, 3))).tolist()
    assert m.__dict__["mask"] is m.mask
    assert len(f.variants) == 2
    assert "Python" not in f.explain()
