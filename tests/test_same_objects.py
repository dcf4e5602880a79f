"""Objects that a function meets on two ways, values that it writes to or caches, errors that it catches: both modes."""

import dataclasses
import functools
import os
import weakref

import duograd as dg
import numpy as np
import pytest


class State:
    def __init__(self):
        self.rows, self.config, self.record = [], {"scale": 2}, Record()


@dataclasses.dataclass
class Record:
    n: int = 1


def T(*values):
    return dg.tensor(list(values or (1.0, 2.0)))


def see(x):
    if isinstance(x, dg.Tensor):
        return x.detach().numpy().tolist(), x.requires_grad
    if isinstance(x, dict):
        return {k: see(v) for k, v in x.items()}
    return [see(y) for y in x] if isinstance(x, (list, tuple)) else x


def calls(f, arguments, n=4):
    """What calls give, and what they leave in their arguments; errors by their words."""
    found = []
    for k in range(n):
        given = arguments(k)
        try:
            found.append(see(f(*given)))
        except dg.errors.DuogradError as e:
            found.append(str(e).split("\n")[0])
        found.append([see(x) for x in given if not isinstance(x, (State, Record))])
    return found


def a_list_twice(jit):
    def fn(x, a, b):
        a.append(1)
        return x * len(b), a is b

    return calls(jit(fn), lambda k: (T(), *([[]] * 2 if k % 2 else ([], []))))


def a_list_twice_in_a_list(jit):
    def fn(x, a):
        a[0].append(1)
        return x * len(a[1])

    return calls(jit(fn), lambda k: (T(), [[]] * 2 if k % 2 else [[], []]))


def a_record_twice(jit):
    def fn(x, a, b):
        a.n += 1
        return x * b.n

    return calls(jit(fn), lambda k: (T(), *([Record()] * 2 if k % 2 else (Record(), Record()))))


def a_list_that_holds_itself(jit):
    def fn(x, a):
        a[0].append(x)
        return x * len(a)

    def arguments(k):
        a = []
        a.append(a)
        return T(), a

    f = jit(fn)
    return [see(f(*arguments(k))) for k in range(3)]


def a_list_of_state(jit):
    m = State()

    def fn(x, a):
        m.rows.append(1)
        return x * len(a)

    return calls(jit(fn), lambda k: (T(), [] if k == 2 else m.rows), 6)


def a_list_of_state_changed_as_argument(jit):
    m = State()

    def fn(x, a):
        a.append(1)
        return x * len(m.rows)

    return calls(jit(fn), lambda k: (T(), [] if k < 2 else m.rows), 6)


def a_list_compared_with_state(jit):
    m = State()
    f = jit(lambda x, a: x * (2 if a is m.rows else 3))
    return calls(f, lambda k: (T(), m.rows if k in (1, 3) else []), 5)


def a_dict_of_state(jit):
    m = State()

    def fn(x, d):
        d["scale"] += 1
        return x * m.config["scale"]

    return calls(jit(fn), lambda k: (T(), m.config))


def a_record_of_state(jit):
    m = State()

    def fn(x, r):
        m.record.n += 1
        return x * r.n

    return [*calls(jit(fn), lambda k: (T(), m.record)), m.record.n]


def an_argument_compared_with_state(jit):
    w = T().requires_grad_()
    f = jit(lambda x: x * (2 if x is w else 3))
    return [see(f(x)) for x in (w, T(), w, T().requires_grad_(), w)]


def a_tensor_compared_after_others(jit):
    w, f = T(), None
    f = jit(lambda x: x * (2 if x is not w else 3))
    return [see(f(x)) for x in (T(), T(), T(), T(), w, T(), w)]


def an_argument_in_a_list_of_state(jit):
    w = T(1.0)
    kept = [T(5.0), w]
    f = jit(lambda x: x * (2 if x in kept else 3))
    return [see(f(x)) for x in (T(7.0), w, T(7.0), w)]


def memory_written_through_numpy(jit):
    b = T()

    def fn(x):
        b.numpy()[0] = 5.0
        np.asarray(x)[1] += 1
        y = x * 2
        np.asarray(y)[0] = 7
        return x + b + y

    return [*calls(jit(fn), lambda k: (T(float(k), 1.0),)), see(b)]


def an_array_that_is_a_tensor_too(jit):
    a = np.zeros(2, np.float32)
    t = dg.from_numpy(a)

    def fn(x):
        a[0] += 1
        return x + t

    return [*calls(jit(fn), lambda k: (T(),)), a.tolist()]


def a_tensor_that_is_an_array_too(jit):
    a = np.zeros(2, np.float32)
    t = dg.from_numpy(a)

    def fn(x):
        t.add_(1)
        return x + float(a[0])

    return [*calls(jit(fn), lambda k: (T(),)), a.tolist()]


def an_array_of_state_as_an_argument(jit):
    a = np.zeros(2, np.float32)

    def fn(x, b):
        a[0] += 1
        return x + b

    f = jit(fn)
    given = [np.zeros(2, np.float32)] * 2 + [a, a, np.ones(2, np.float32), a]
    return [[see(f(T(), b)), a.tolist()] for b in given]


def a_class_assigned(jit):
    class Other(State):
        pass

    m = State()

    def fn(x):
        m.__class__ = Other
        return x

    jit(fn)(T())
    return type(m).__name__


def a_weak_reference(jit):
    m, found = State(), []

    def fn(x):
        y = x * 2
        m.last = weakref.ref(y)
        return y

    f = jit(fn)
    for _ in range(3):
        y = f(T())
        found.append(m.last() is y)
    return found


def a_rate_changed_before_the_step(jit):
    w, b = dg.nn.Parameter(T()), dg.nn.Parameter(T())
    made = dg.optim.Adam([{"params": [w]}, {"params": [b], "lr": 0.5, "betas": (0.5, 0.9)}], lr=0.1)

    def fn(x):
        for k, group in enumerate(made.param_groups):
            group["lr"] *= 0.9
            group["betas"] = (group["betas"][0] * 0.9, 0.9 - k * 0.1)
        made.zero_grad()
        ((w * x + b) ** 2).sum().backward()
        made.step()
        return x * made.param_groups[0]["lr"]

    return [*calls(jit(fn), lambda k: (T(),)), see(w), see(b)]


def a_rate_changed_before_a_value_is_read(jit):
    w = dg.nn.Parameter(T())
    made = dg.optim.SGD([w], lr=0.1)

    def fn(x):
        made.zero_grad()
        ((w * x) ** 2).sum().backward()
        made.step()
        made.param_groups[0]["lr"] *= 0.5
        return x * 2 if w.sum() > 2 else x

    return [*calls(jit(fn), lambda k: (T(),)), see(w)]


def a_generator_made_inside(jit):
    m = State()

    def fn(x):
        g = dg.Generator(5)
        m.last = dg.Generator(7) if x[0] > 2 else None
        return x + dg.rand((2,), generator=g) + dg.rand((2,), generator=g) + dg.rand((2,), generator=m.last)

    found = calls(jit(fn), lambda k: (T(float(k), 1.0),), 5)
    return [*found, see(dg.rand((2,), generator=m.last))]


def memory_read_through_numpy(jit):
    f = jit(lambda x: x * float(np.asarray(x).max()))
    found = calls(f, lambda k: (T(),))
    assert not getattr(f, "_python", None)
    return found


def results_that_a_cache_keeps(jit):
    @functools.lru_cache
    def mask(n):
        return dg.tril(dg.ones((n, n)))

    f = jit(lambda x: (mask(x.shape[0]) @ x).sum())
    found = calls(f, lambda k: (dg.ones((k % 3 + 1, 2)),), 6)
    assert not getattr(f, "_python", None)
    return [*found, see(mask(2)), mask.cache_info().currsize]


def a_cache_whose_keys_are_hashed_by_python(jit):
    class Size:
        def __init__(self, n):
            self.n = n

        def __hash__(self):
            return hash(abs(self.n))

        def __eq__(self, other):
            return self.n == other.n

    @functools.lru_cache
    def mask(size):
        return dg.ones((size.n,)) * size.n

    size = Size(2)
    f = jit(lambda x: mask(size) * x)
    return [*calls(f, lambda k: (T(),)), see(mask(size) + 1), mask.cache_info().currsize]


def a_cached_method(jit):
    class Masks:
        @functools.lru_cache  # noqa: B019
        def mask(self, n):
            return dg.eye(n)[0]

    masks = Masks()
    f = jit(lambda x: masks.mask(2) * x)
    return [*calls(f, lambda k: (T(),)), see(masks.mask(2))]


def results_that_a_cache_loses(jit):
    """The cache is filled before the first call, cleared, and filled again by somebody else."""
    state, found = {"scale": 2.0}, []

    class Masks:
        @functools.lru_cache(maxsize=4)  # noqa: B019
        def mask(self, n):
            return dg.ones((n,)) * state["scale"]

    masks, ways = Masks(), []
    for make in (
        functools.cache,
        functools.lru_cache,
        functools.lru_cache(maxsize=2),
        functools.lru_cache(typed=True),
    ):
        tensor = make(lambda n, k=1.0: dg.ones((n,)) * state["scale"] * k)
        number = make(lambda n, k=1.0: n * state["scale"] * k)
        ways += [
            (tensor, lambda t, x: x * t(2)), (number, lambda t, x: x * t(2)), (number, lambda t, x: x * t(2, k=3)),
            (tensor, lambda t, x: x * t(n=2, k=2.0)), (tensor, lambda t, x: x * t(2) + t(n=2)),
        ]  # fmt: skip
    ways.append((Masks.mask, lambda t, x: x * masks.mask(2)))
    for cached, way in ways:
        state["scale"] = 2.0
        f = jit(lambda x, cached=cached, way=way: way(cached, x))
        way(cached, T())
        for k in range(9):
            found.append(see(f(T())))
            state["scale"] += 1
            if k in (2, 4, 7):
                cached.cache_clear()
            if k in (4, 7):
                way(cached, T())
            if k == 7:
                state["scale"] += 1
                way(cached, T())  # a hit
    return found


def results_that_a_full_cache_drops(jit):
    state, found = {"scale": 2.0}, []

    @functools.lru_cache(maxsize=1)
    def number(n):
        return n * state["scale"]

    f = jit(lambda x: x * number(2))
    for _ in range(3):
        found.append(see(f(T())))
        state["scale"] += 1
        found += [see(f(T())), number(3), number(2)]  # a full cache uses what it has for the new result
        state["scale"] += 1
        found.append(see(f(T())))
        number(3)
    return found


def a_cache_cleared_inside(jit):
    state = {"scale": 2.0}

    @functools.cache
    def number(n):
        return n * state["scale"]

    def fn(x, clear):
        if clear:
            number.cache_clear()
        return x * number(2)

    f, found = jit(fn), []
    for clear in (False, True, True, False, True):
        found.append(see(f(T(), clear)))
        state["scale"] += 1
    return found


def a_cache_without_room(jit):
    state = {"scale": 2.0}

    @functools.lru_cache(maxsize=0)
    def scaled(x, n):
        return x * n * state["scale"]

    def fn(x):
        return scaled(x, 2) + scaled(T(), 3)

    f, found = jit(fn), []
    for _ in range(3):
        found.append(see(f(T())))
        state["scale"] += 1
    return found


def a_cache_of_random_numbers(jit):
    @functools.cache
    def noise(n):
        return dg.rand((n,))

    f = jit(lambda x: x + dg.rand((2,)) + noise(2))
    return [*calls(f, lambda k: (T(),)), see(dg.rand((1,)))]


def a_cache_made_inside(jit):
    def fn(x):
        @functools.cache
        def scaled(k):
            return x * k

        return scaled(2) + scaled(2) + scaled(3)

    return calls(jit(fn), lambda k: (T(float(k), 1.0),))


def a_class_with_a_tensor(jit):
    m = State()

    def fn(x):
        class Kept:
            value = x * 2

        m.kept = Kept
        return x

    found = calls(jit(fn), lambda k: (T(float(k), 1.0),))
    return [*found, see(m.kept.value)]


def a_file_written(jit, folder):
    w, path = T(), os.path.join(folder, "written.safetensors")

    def fn(x):
        w.add_(x)
        dg.save({"w": w}, path)
        return x * 1

    f, found = jit(fn), []
    for k in range(3):
        f(T(float(k), 1.0))
        found.append(see(dg.load(path)))
    return found


def a_file_read(jit, folder):
    path, found = os.path.join(folder, "read.safetensors"), []
    f = jit(lambda x: x + dg.load(path)["w"])
    for k in range(3):
        dg.save({"w": T(float(k), 1.0)}, path)
        found.append(see(f(T())))
    return found


INDICES = [[0], [1], [5], [0], [7], [1]]


def an_index_error_caught(jit):
    def fn(x, k):
        try:
            y = x[k]
        except dg.errors.IndexingError as e:
            y = x.sum() * len(str(e))
        return y * 2

    return calls(jit(fn), lambda k: (T(), dg.tensor(INDICES[k])), 6)


def an_index_error_caught_by_the_caller(jit):
    def inner(x, k):
        with dg.no_grad():
            return x[k]

    def fn(x, k):
        try:
            return inner(x, k)
        except Exception:
            return x.sum()

    return calls(jit(fn), lambda k: (T(), dg.tensor(INDICES[k])), 6)


def an_index_error_swallowed(jit):
    class Quiet:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return True

    def fn(x, k):
        with Quiet():
            x = x[k] * 3
        return x

    return calls(jit(fn), lambda k: (T(), dg.tensor(INDICES[k])), 6)


def an_index_error_that_passes(jit):
    def fn(x, k):
        try:
            y = x[k]
        finally:
            x = x + 1
        return y * 2

    return calls(jit(fn), lambda k: (T(), dg.tensor(INDICES[k])), 6)


CASES = [
    a_list_twice, a_list_twice_in_a_list, a_record_twice, a_list_that_holds_itself, a_list_of_state,
    a_list_of_state_changed_as_argument, a_list_compared_with_state, a_dict_of_state, a_record_of_state,
    an_argument_compared_with_state,
    an_array_that_is_a_tensor_too, a_tensor_that_is_an_array_too, an_array_of_state_as_an_argument, a_class_assigned,
    a_weak_reference, a_rate_changed_before_the_step, a_rate_changed_before_a_value_is_read, a_generator_made_inside,
    a_tensor_compared_after_others, an_argument_in_a_list_of_state, memory_written_through_numpy,
    memory_read_through_numpy, results_that_a_cache_keeps, results_that_a_cache_loses,
    results_that_a_full_cache_drops, a_cache_cleared_inside, a_cache_without_room, a_cached_method,
    a_cache_whose_keys_are_hashed_by_python,
    a_cache_of_random_numbers,
    a_cache_made_inside, a_class_with_a_tensor, a_file_written, a_file_read, an_index_error_caught,
    an_index_error_caught_by_the_caller, an_index_error_swallowed, an_index_error_that_passes,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_both_modes_give_the_same(case, tmp_path):
    more, found = (str(tmp_path),) if "folder" in case.__code__.co_varnames else (), []
    for mode in ("eager", "graph"):
        dg.manual_seed(0)
        found.append(case(lambda fn, mode=mode: dg.function(fn, mode=mode), *more))
    assert found[0] == found[1]


def test_an_index_under_no_grad_alone_does_not_end_a_segment():
    @dg.function
    def fn(x, k):
        with dg.no_grad():
            return x[k] * 2

    fn(T(), dg.tensor([1]))
    assert len(fn.variants[0].segments()) == 1


def test_a_config_that_is_an_argument_and_state_stays_in_the_graph_while_nobody_changes_it():
    m = State()
    f = dg.function(lambda x, d: x * d["scale"] * m.config["scale"])
    for _ in range(3):
        assert f(T(), m.config).tolist() == [4.0, 8.0]
    assert len(f.variants) == 1
    assert f(T(), {"scale": 3}).tolist() == [6.0, 12.0]
    assert f(T(), {"scale": 2}).tolist() == [4.0, 8.0]


def test_a_cache_that_keeps_what_it_has_costs_no_trace():
    @functools.lru_cache(maxsize=3)
    def number(n):
        return n * 2.0

    f = dg.function(lambda x: x * number(2))
    for k in range(6):
        assert f(T()).tolist() == [4.0, 8.0]
        number(3 + k % 2)
    assert len(f.variants) == 1
    number.cache_clear()
    assert f(T()).tolist() == [4.0, 8.0]
    assert len(f.variants) == 2
    assert "the cache of number keeps its result" in f.explain()
