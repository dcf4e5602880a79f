"""Guards of containers and of functions: a change of what was looked at is noticed, another is not."""

import collections
import contextlib
import copy
import dataclasses
import functools
import types
from typing import NamedTuple

import duograd as dg
import numpy as np
import pytest
from guarded import Layer, assert_noticed, guards_of, record

SCALE = 2.0
OTHER = 5
CONFIG = {"scale": 2.0, "name": "a", "inner": {"depth": 3}}


def helper(x):
    return x * SCALE


# ---------------------------------------------------------------- containers


def test_dict_item(monkeypatch):
    guards = guards_of(lambda: CONFIG["scale"])
    monkeypatch.setitem(CONFIG, "name", "b")
    assert guards.check()
    monkeypatch.setitem(CONFIG, "scale", 3.0)
    assert_noticed(guards, "CONFIG['scale'] was 2.0, now 3.0")


def test_nested_dict_item(monkeypatch):
    guards = guards_of(lambda: CONFIG["inner"]["depth"])
    monkeypatch.setitem(CONFIG["inner"], "depth", 4)
    assert_noticed(guards, "CONFIG['inner']['depth'] was 3, now 4")


def test_dict_get_of_a_present_and_of_an_absent_key():
    config = {"scale": 2.0}
    guards = guards_of(lambda: (config.get("scale"), config.get("bias", 0)))
    config["other"] = 1
    assert guards.check()
    config["bias"] = 1
    assert not guards.check()
    del config["bias"]
    config["scale"] = 4.0
    assert_noticed(guards, "config['scale'] was 2.0, now 4.0")


def test_key_in_dict():
    config = {"scale": 2.0}
    guards = guards_of(lambda: "bias" in config)
    config["scale"] = 1.0
    assert guards.check()
    config["bias"] = None
    assert_noticed(guards, "'bias' in config was False, now True")


def test_list_item():
    sizes = [1, 2, 3]
    guards = guards_of(lambda: sizes[1] + sizes[-1])
    sizes[0] = 9
    assert guards.check()
    sizes[1] = 5
    assert_noticed(guards, "sizes[1] was 2, now 5")


def test_list_length():
    sizes = [1, 2, 3]
    guards = guards_of(lambda: len(sizes))
    sizes[0] = 9
    assert guards.check()
    sizes.append(4)
    assert_noticed(guards, "len(sizes) was 3, now 4")


def test_loop_over_a_list_of_numbers():
    sizes = [1, 2, 3]
    guards = guards_of(lambda: [s * 2 for s in sizes])
    sizes[2] = 4
    assert_noticed(guards, "sizes was [1, 2, 3], now [1, 2, 4]")
    sizes[2] = 3
    assert guards.check()
    sizes.append(1)
    assert not guards.check()


def test_loop_over_a_list_of_configs():
    layers = [Layer(1.0), Layer(2.0)]

    def fn():
        total = 0.0
        for k, layer in enumerate(layers):
            total += layer.scale * k
        return total

    guards = guards_of(fn)
    layers[1].other = 3
    assert guards.check()
    layers[1].scale = 5.0
    assert_noticed(guards, "layers[1].scale was 2.0, now 5.0")
    layers[1].scale = 2.0
    layers[0] = Layer(1.0)
    assert not guards.check()


def test_loop_over_dict_items():
    config = {"a": Layer(1.0), "b": Layer(2.0)}

    def fn():
        return sum(v.scale for k, v in config.items() if k != "c")

    guards = guards_of(fn)
    config["b"].scale = 3.0
    assert_noticed(guards, "config['b'].scale was 2.0, now 3.0")
    config["b"].scale = 2.0
    assert guards.check()
    config["c"] = Layer()
    assert_noticed(guards, "config")


def test_comprehensions_over_attributes():
    model = types.SimpleNamespace(layers=[Layer(1.0), Layer(2.0)], gains={"a": 1.0})
    guards = guards_of(
        lambda: ([layer.scale for layer in model.layers], {k: v + 1 for k, v in model.gains.items()})
    )
    model.layers[0].scale = 3.0
    assert_noticed(guards, "model.layers[0].scale was 1.0, now 3.0")
    model.layers[0].scale = 1.0
    model.gains["a"] = 2.0
    assert_noticed(guards, "model.gains")


def test_unpacking_and_star():
    sizes, pads = [2, 3], [4, 5]

    def fn():
        a, b = sizes
        return max(a, b, *pads)

    guards = guards_of(fn)
    sizes[0] = 7
    assert_noticed(guards, "sizes")
    sizes[0] = 2
    pads.append(1)
    assert_noticed(guards, "pads")


def test_container_compared_or_given_to_a_builtin():
    sizes = [2, [3, 4]]
    for fn in (
        lambda: sizes == [2, [3, 4]],
        lambda: str(sizes),
        lambda: list(sizes),
        lambda: f"{sizes}",
    ):
        guards = guards_of(fn)
        sizes[0] = 7
        assert_noticed(guards, "sizes")
        sizes[0] = 2


def test_whether_a_container_has_elements_is_all_that_counts():
    sizes = [2]
    for fn in (lambda: bool(sizes), lambda: not sizes, lambda: 1 if sizes else 2, lambda: sizes and 3):
        guards = guards_of(fn)
        sizes.append(7)
        assert guards.check()
        sizes.clear()
        assert_noticed(guards, "no longer: sizes has elements")
        sizes.append(2)


def test_nested_list_given_to_an_op():
    table = [[1.0, 2.0], [3.0, 4.0]]
    guards = guards_of(lambda: dg.tensor(table))
    table[1][0] = 5.0
    assert_noticed(guards, "table[1]")


def test_equal_container_in_a_new_object_is_no_change():
    layer = Layer()
    layer.sizes = [1, 2]
    guards = guards_of(lambda: layer.sizes[0])
    layer.sizes = [1, 2]
    assert guards.check()
    layer.sizes = [1, 3]
    assert not guards.check()


def test_order_of_dict_keys_is_part_of_a_loop():
    config = {"a": 1, "b": 2}
    guards = guards_of(lambda: list(config))
    del config["a"]
    config["a"] = 1
    assert not guards.check()


def test_set_and_membership():
    names = {"a", "b"}
    guards = guards_of(lambda: "a" in names)
    names.add("c")
    assert_noticed(guards, "names")


def test_tuple_slice_and_named_tuple():
    class Window(NamedTuple):
        size: int
        step: int

    layer = Layer()
    layer.window, layer.part = Window(3, 1), slice(0, 2)
    guards = guards_of(lambda: (layer.window.size, layer.part))
    layer.window, layer.part = Window(3, 1), slice(0, 2)
    assert guards.check()
    layer.part = slice(0, 3)
    assert_noticed(guards, "layer.part")
    layer.part = slice(0, 2)
    layer.window = Window(3, 2)
    assert_noticed(guards, "layer.window")


def test_dict_with_its_own_getitem():
    class Options(dict):
        def __getitem__(self, key):
            return super().__getitem__(key.lower()) * 2

        def __missing__(self, key):
            return 7

    options = Options(scale=2.0, other=1)
    guards = guards_of(lambda: options["SCALE"] + options["absent"])
    options["other"] = 2
    assert guards.check()
    options["scale"] = 3.0
    assert_noticed(guards, "['scale'] was 2.0, now 3.0")


def test_containers_of_the_standard_library():
    queue, counts, user = collections.deque([1, 2]), collections.Counter("aab"), collections.UserList([1, 2])
    ordered, missing = collections.OrderedDict(a=1), collections.defaultdict(int, a=1)
    raw = bytearray(b"ab")

    def fn():
        return list(queue), counts["a"], user[0], list(ordered), missing["a"], bytes(raw)

    for change, back in (
        (lambda: queue.append(3), queue.pop),
        (lambda: counts.update("a"), lambda: counts.subtract("a")),
        (lambda: user.__setitem__(0, 5), lambda: user.__setitem__(0, 1)),
        (lambda: ordered.update(b=1), lambda: ordered.pop("b")),
        (lambda: missing.update(a=2), lambda: missing.update(a=1)),
        (lambda: raw.append(3), raw.pop),
    ):
        guards = guards_of(fn)
        change()
        assert not guards.check()
        back()
        assert guards.check()


def test_globals_as_a_dict(monkeypatch):
    guards = guards_of(lambda: globals()["SCALE"])
    monkeypatch.setitem(globals(), "OTHER", 6)
    assert guards.check()
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert_noticed(guards, "SCALE")


def test_small_arrays_are_compared_by_their_elements():
    table = np.arange(4.0)
    guards = guards_of(lambda: float(table[1]) + table.sum())
    table[3] = 3.0
    assert guards.check()
    table[3] = 7.0
    assert_noticed(guards, "table")


def test_a_large_array_that_may_change_leaves_the_function_to_python():
    table = np.zeros(10_000)
    shown = table.view()
    shown.flags.writeable = False
    summed = [dg.function(lambda x: x + table.sum()), dg.function(lambda x: x + shown.sum())]
    for k in range(3):
        table[:2] = k
        assert [f(dg.zeros(())).item() for f in summed] == [2 * k, 2 * k]
    for f, name in zip(summed, ("table", "shown")):
        assert f"reads the NumPy array {name} of 80,000 bytes" in str(f.explain())
    table.flags.writeable = False
    record(lambda: table.sum() + shown.sum())


# ---------------------------------------------------------------- functions


def test_default_arguments():
    settings = {"scale": 2.0}

    def fn(x, scale=2.0, *, options=settings):
        return x * scale * options["scale"]

    guards = guards_of(lambda: fn(1.0))
    fn.__defaults__ = (3.0,)
    assert_noticed(guards, "defaults")
    fn.__defaults__ = (2.0,)
    assert guards.check()
    settings["scale"] = 5.0
    assert_noticed(guards, "options['scale'] was 2.0, now 5.0")


def test_partial():
    layer = Layer()

    def fn(layer, x):
        return layer.scale * x

    layer.call = functools.partial(fn, layer)
    guards = guards_of(lambda: layer.call(2.0))
    layer.scale = 4.0
    assert_noticed(guards, "scale was 2.0, now 4.0")
    layer.scale = 2.0
    layer.call = functools.partial(fn, Layer())
    assert_noticed(guards, "layer.call")


def test_partial_keywords():
    layer = Layer()
    layer.call = functools.partial(lambda x, scale: x * scale, scale=2.0)
    guards = guards_of(lambda: layer.call(2.0))
    layer.call.keywords["scale"] = 3.0
    assert not guards.check()


def test_lambda_kept_in_an_attribute_and_what_it_reads(monkeypatch):
    layer = Layer()
    layer.call = lambda x: x * SCALE
    guards = guards_of(lambda: layer.call(2.0))
    monkeypatch.setitem(globals(), "SCALE", 7.0)
    assert_noticed(guards, "SCALE")
    monkeypatch.undo()
    layer.call = lambda x: x
    assert_noticed(guards, "layer.call")


def test_functions_given_to_map_sorted_and_reduce(monkeypatch):
    for fn in (
        lambda: list(map(helper, (1, 2))),
        lambda: sorted((1, 2), key=lambda v: v * SCALE),
        lambda: functools.reduce(lambda a, b: a + b * SCALE, (1, 2)),
    ):
        guards = guards_of(fn)
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "SCALE", 7.0)
            assert_noticed(guards, "SCALE")


def test_generators():
    layers = [Layer(1.0), Layer(2.0)]

    def scales():
        for layer in layers:
            yield layer.scale

    guards = guards_of(lambda: sum(scales()))
    layers[0].scale = 4.0
    assert_noticed(guards, "layers[0].scale was 1.0, now 4.0")


def test_context_manager_and_exception_paths():
    layer = Layer()

    class Scope:
        def __enter__(self):
            return layer

        def __exit__(self, *_):
            return True

    def fn():
        with Scope() as scope:
            if scope.scale > 1:
                raise ValueError
        try:
            return layer.missing
        except AttributeError:
            return layer.other

    guards = guards_of(fn)
    layer.other = 3
    assert_noticed(guards, "other was 0, now 3")
    layer.other = 0
    layer.missing = 1
    assert_noticed(guards, "missing was absent, now 1")


def test_environment_variable(monkeypatch):
    import os

    monkeypatch.setenv("GUARDS_SCALE", "2")
    guards = guards_of(lambda: os.environ["GUARDS_SCALE"])
    monkeypatch.setenv("GUARDS_OTHER", "1")
    assert guards.check()
    monkeypatch.setenv("GUARDS_SCALE", "3")
    assert not guards.check()


def test_what_changed_in_a_large_container_is_named():
    rows = {"objects": [object() for _ in range(3)], "table": {k: object() for k in "ab"}}
    guards = guards_of(lambda: [*map(id, rows["objects"])])
    rows["objects"][1] = 5
    assert_noticed(guards, "[1] was a object, now 5")
    guards = guards_of(lambda: [*map(id, rows["table"].values())])
    rows["table"]["c"] = None
    assert_noticed(guards, "has 'c' now")
    guards = guards_of(lambda: [*map(id, rows["table"].values())])
    del rows["table"]["a"]
    assert_noticed(guards, "has no 'a' any more")


def test_a_growing_list_is_traced_once():
    log = []

    @dg.function
    def f(x):
        log.append(x * 2)
        return log[-1] + 1

    for _ in range(5):
        f(dg.ones((2,)))
    assert len(log) == 5
    assert len(f.variants) == 1


def test_state_in_a_dict_is_traced_once():
    state = {"h": dg.zeros((2,)), "n": 1}

    @dg.function
    def f(x):
        state["h"] = state["h"] + x
        return state["h"] * state["n"]

    for _ in range(5):
        out = f(dg.ones((2,)))
    assert out.tolist() == [5, 5]
    assert len(f.variants) == 1


# ---------------------------------------------------------------- what a module keeps beside its members


class Logged(dg.nn.Module):
    def __init__(self, log):
        super().__init__()
        self.log, self.layer = log, dg.nn.Linear(2, 2)

    def forward(self, x):
        if isinstance(self.log, dict):
            self.log["n"] += 1
        else:
            self.log.append(1)
        return self.layer(x)


LOGS = {
    "list": list, "dict": lambda: {"n": 0}, "OrderedDict": lambda: collections.OrderedDict(n=0),
    "Counter": collections.Counter, "defaultdict": lambda: collections.defaultdict(int),
    "deque": collections.deque, "deque of 3": lambda: collections.deque(maxlen=3),
}  # fmt: skip
WALKS = {
    "train": lambda m: m.train(),
    "modules": lambda m: list(m.modules()),
    "zero_grad": lambda m: m.zero_grad(),
    "state_dict": lambda m: m.state_dict(),
    "clip": lambda m: dg.nn.utils.clip_grad_norm_(m.parameters(), 1.0),
    "items": lambda m: [v for _, v in m.__dict__.items() if isinstance(v, dg.Tensor)],
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("log", LOGS)
def test_a_walk_through_a_module_does_not_look_into_what_grows_there(log, walk):
    """Every call was traced again: the tuples of `__dict__.items()` were taken for what stands in them."""
    m = Logged(LOGS[log]())

    @dg.function
    def step(x):
        WALKS[walk](m)
        return m(x)

    for _ in range(8):
        step(dg.ones(2))
    assert (
        m.log == {"n": 8} if isinstance(m.log, dict) else [*m.log] == [1] * (3 if log == "deque of 3" else 8)
    )
    assert len(step.variants) <= 3, step.explain(guards=True)


def test_what_stands_in_pairs_is_still_read():
    rows = {"a": [1], "b": [2]}

    @dg.function
    def f(x):
        total = 0
        for _, row in list(rows.items()):
            for n in row:
                total += n
        return x + total

    assert f(dg.zeros(())).item() == 3
    rows["b"].append(4)
    assert f(dg.zeros(())).item() == 7
    rows["b"] = [1]
    assert f(dg.zeros(())).item() == 2
    rows["c"] = [5]
    assert f(dg.zeros(())).item() == 7


class Holder:
    def __init__(self):
        self.layer, self.sizes = Layer(), [1]
        self.layers, self.table = [self.layer], {"a": self.layer}

    def change(self, value):
        self.layer.scale, self.sizes[0] = value, value


HOLDER = Holder()
#: what operators and C code make of containers, and the framework is given
MADE = {
    "a sum of lists": lambda: (HOLDER.sizes + HOLDER.layers)[-1].scale,
    "a list and a new one": lambda: (HOLDER.layers + [None])[0].scale,  # noqa: RUF005
    "a product": lambda: (HOLDER.layers * 2)[1].scale,
    "a union of dicts": lambda: (HOLDER.table | {})["a"].scale,
    "a union of sets": lambda: ({HOLDER.layer} | {HOLDER.layer}).pop().scale,
    "a section of sets": lambda: ({HOLDER.layer} & {HOLDER.layer}).pop().scale,
    "a tensor of what max gives": lambda: dg.tensor(max([HOLDER.sizes], key=len))[0].item(),
    "a tensor of what next gives": lambda: dg.asarray(next(iter([HOLDER.sizes])))[0].item(),
    "a tensor of what sorted gives": lambda: dg.tensor(sorted([HOLDER.sizes], key=len)[0])[0].item(),
}


@pytest.mark.parametrize("which", MADE)
def test_what_is_made_of_containers_is_looked_at(which):
    read = MADE[which]
    fn = dg.function(lambda x: x * read())
    for value in (2, 3, 4, 2, 5):
        HOLDER.change(value)
        assert fn(dg.ones(())).item() == value


def test_arithmetic_of_tensors_is_traced_once():
    w, log = dg.ones(3), []

    @dg.function
    def fn(x):
        log.append(1)
        return ((x * w + 1) @ (x + w)).sum() * (x - w)[0]

    for _ in range(4):
        fn(dg.ones(3))
    assert len(fn.variants) == 1


def _adds_two(d, x):
    d.append(1)
    d.append(x.sum())


def _adds_by_a_name(d, x):
    add = d.append
    add(1), add(1)


def _looks_up(d, x):
    return d.append


def _adds_and_looks(d, x):
    d.append(2)
    return sum(d)


def _adds_and_takes(d, x):
    d.append(2)
    return d.popleft()


def _adds_unseen(d, x):
    return len([*map(d.append, [1, 1])])


QUEUES = {
    "any": collections.deque, "3": lambda: collections.deque(maxlen=3), "1": lambda: collections.deque(maxlen=1),
    "full": lambda: collections.deque([1, 1, 1], maxlen=3), "none": lambda: collections.deque(maxlen=0),
}  # fmt: skip


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(
    "body", [_adds_two, _adds_by_a_name, _looks_up, _adds_and_looks, _adds_and_takes, _adds_unseen]
)
def test_a_deque_grows_as_without_compiling(body, queue):
    """Also where it is full and lets go of its first, and where somebody else changes it."""
    stories = []
    for compiled in (False, True):
        m = types.SimpleNamespace(d=QUEUES[queue]())

        def f(x, m=m):
            body(m.d, x)
            return x * 2

        f, story = dg.function(f) if compiled else f, []
        for k in range(12):
            if k in (6, 9):
                m.d.clear() if k == 6 else m.d.extend([1, 2, 1])
            try:
                f(dg.ones(2) * k)
            except IndexError:
                story.append("empty")
            story.append([v.item() if isinstance(v, dg.Tensor) else v for v in m.d])
        stories.append(story)
    assert stories[0] == stories[1]
    if body is _adds_two and queue != "1":
        assert len(f.variants) <= 3, f.explain()


def test_a_history_by_setdefault_is_traced_twice():
    """What `setdefault` gave was not known, so an append to it was a change of what it may have been."""
    stories = []
    for compiled in (False, True):
        m = types.SimpleNamespace(d={})

        def f(x, m=m):
            for k, v in {"loss": x.sum(), "lr": 0.5}.items():
                m.d.setdefault(k, []).append(v)
            return x * 2

        f, story = dg.function(f) if compiled else f, []
        for k in range(8):
            f(dg.ones(2) * k)
            story.append({key: [float(v) for v in row] for key, row in m.d.items()})
        if compiled:
            assert len(f.variants) == 2, f.explain()
        m.d.clear()
        f(dg.ones(2))
        m.d["loss"] = [7.0]
        f(dg.ones(2))
        stories.append((story, {key: [float(v) for v in row] for key, row in m.d.items()}))
    assert stories[0] == stories[1]


# ---------------------------------------------------------------- what objects that a call makes are given


class Keeper:
    def __init__(self, rows, k=1):
        self.rows, self.k = rows, k

    def add(self, value):
        self.rows.append(value)


@dataclasses.dataclass
class Kept:
    rows: list


@contextlib.contextmanager
def section(rows):
    rows.append("+")
    yield
    rows.append("-")


def _in_section(m):
    with section(m.log):
        pass


def _starred(m):
    args = m.log, 2
    Keeper(*args).add(1)


@dg.no_grad()
def _noted(rows):
    rows.append(1)


@dg.autocast("cpu", dtype=dg.bfloat16)
def _last(rows, k=-1):
    return rows[k]


GROWS = {
    "a decorated function": lambda m: _noted(m.log),
    "a decorated function, starred": lambda m: _noted(*[m.log]),
    "an object": lambda m: Keeper(m.log).add(1),
    "a name": lambda m: [k.add(1) for k in [Keeper(m.log, k=2)]],
    "a context": _in_section,
    "a row of arguments": _starred,
}


@pytest.mark.parametrize("how", GROWS)
def test_an_object_that_is_given_a_log_does_not_look_into_it(how):
    stories = []
    for compiled in (False, True):
        m = types.SimpleNamespace(log=[])

        def f(x, m=m):
            GROWS[how](m)
            return x * 2

        f, story = dg.function(f) if compiled else f, []
        for _ in range(6):
            f(dg.ones(2))
            story.append([*m.log])
        stories.append(story)
    assert stories[0] == stories[1]
    assert len(f.variants) <= 2, f.explain()


READS = {
    "a decorated function": lambda m: _last(m.rows)[0],
    "a decorated function, a name": lambda m: [row[0] for row in [_last(m.rows, 0), _last(m.rows)]][-1],
    "an item": lambda m: Keeper(m.rows).rows[0][0],
    "a sum": lambda m: sum(Keeper(m.rows).rows[-1]),
    "vars": lambda m: sum(vars(Keeper(m.rows))["rows"][-1]),
    "a copy": lambda m: sum(copy.copy(Keeper(m.rows)).rows[-1]),
    "getattr": lambda m: getattr(Keeper(m.rows), "ro" + "ws")[-1][0],
    "C code": lambda m: max([Keeper(m.rows)], key=lambda k: 1).rows[-1][0],
    "a function": lambda m: (lambda k: k.rows[-1][0])(Keeper(m.rows)),
    "a length": lambda m: len(Keeper(m.rows).rows),
    "a record": lambda m: 2 if Kept(m.rows) == Kept([[1], [2]]) else 3,
    "its text": lambda m: len(str(Kept(m.rows))),
    "a tensor": lambda m: dg.tensor(Keeper(m.rows).rows[-1])[0].item(),
}


@pytest.mark.parametrize("how", READS)
def test_what_an_object_was_given_is_read_where_it_is_asked_for(how):
    stories = []
    for compiled in (False, True):
        m = types.SimpleNamespace(rows=[[1], [2]])

        def f(x, m=m):
            return x * READS[how](m)

        f, story = dg.function(f) if compiled else f, []
        for k in range(9):
            if k in (3, 4):
                m.rows.append([k])
            if k in (6, 7):
                m.rows[0 if k == 6 else -1][0] = k
            story.append(f(dg.ones(())).item())
        stories.append(story)
    assert stories[0] == stories[1]
