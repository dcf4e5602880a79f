"""Guards: globals, variables of functions and what C code looks up are noticed when they change, and only then."""

import collections
import copy
import functools
import importlib.util
import itertools
import math
import operator
import sys
import types

import duograd as dg
import pytest
from duograd.graph.guards import compile_guards
from duograd.graph.sites import SiteReader
from guarded import assert_noticed, guards_of, record, values_read

# ---------------------------------------------------------------- globals

SCALE = 2.0
OTHER = 5


def helper(x):
    return x * SCALE


def test_global_number(monkeypatch):
    guards = guards_of(lambda: SCALE + 1)
    monkeypatch.setitem(globals(), "OTHER", 6)
    assert guards.check()
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert not guards.check()
    assert guards.first_failure().startswith("SCALE was 2.0, now 3.0, read at " + __file__)


def test_what_could_not_be_watched_is_no_constant(monkeypatch):
    def broken(self, frame, action):
        raise RuntimeError("broken")

    monkeypatch.setattr(SiteReader, "_on_global", broken)
    f = dg.function(lambda x: x * SCALE)
    x = dg.tensor([1.0, 2.0])
    assert f(x).tolist() == [2.0, 4.0]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert f(x).tolist() == [3.0, 6.0]
    assert "reads what could not be watched" in str(f.explain())


def test_a_list_that_holds_itself_is_read_once():
    held = [1]
    held.append(held)
    guards = guards_of(lambda: held == [1, 2])
    assert guards.check()
    held[0] = 2
    assert not guards.check()


def test_global_that_vanished_fails_without_raising(monkeypatch):
    guards = guards_of(lambda: SCALE + 1)
    monkeypatch.delitem(globals(), "SCALE")
    assert not guards.check()
    assert "now absent" in guards.first_failure()


def test_global_read_by_a_called_helper(monkeypatch):
    guards = guards_of(lambda: helper(1.0))
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert_noticed(guards, "SCALE")


def test_helper_that_is_replaced(monkeypatch):
    guards = guards_of(lambda: helper(1.0))
    monkeypatch.setitem(globals(), "helper", lambda x: x)
    assert_noticed(guards, "helper")


def test_global_of_another_module(tmp_path, monkeypatch):
    path = tmp_path / "other_module.py"
    path.write_text("GAIN = 1.5\nUNUSED = 0\ndef amplify(x):\n    return x * GAIN\n")
    spec = importlib.util.spec_from_file_location("other_module_of_guards", path)
    other = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, other)
    spec.loader.exec_module(other)
    guards = guards_of(lambda: other.amplify(2.0))
    through_attribute = guards_of(lambda: other.GAIN + 1)
    other.UNUSED = 1
    assert guards.check()
    assert through_attribute.check()
    other.GAIN = 2.5
    assert_noticed(guards, "GAIN was 1.5, now 2.5")
    assert_noticed(through_attribute, "GAIN was 1.5, now 2.5")


def test_names_of_the_framework_and_builtins_are_a_guard_for_each_module():
    x = dg.ones((2,))
    reads = record(lambda: (dg.float32, len((1, 2)), math.pi, abs(-1), x is None)).reads
    assert values_read(reads) == ["x"]
    # x, the code; built-in names that the module has not; names of four modules: these, its own, math, duograd
    assert len(compile_guards(reads)) == 7


# ---------------------------------------------------------------- closures


def test_closure_cell():
    scale, other = 2.0, 3

    def fn():
        return scale

    def change(value):
        nonlocal scale, other
        scale, other = value

    guards = guards_of(fn)
    change((2.0, 4))
    assert guards.check()
    change((2.5, 4))
    assert_noticed(guards, "scale was 2.0, now 2.5")
    assert other == 4


def test_nonlocal_that_the_function_changes_is_recorded_as_first_read():
    count = 0

    def fn():
        nonlocal count
        count += 1
        return count

    recorder = record(fn)
    guards = compile_guards(recorder.reads)
    assert_noticed(guards, "count was 0, now 1")
    assert [(e.kind, e.value) for e in recorder.effects] == [("cell", 1)]
    count = 0
    assert guards.check()


def test_closure_of_a_decorated_function():
    def scaled(by):
        def wrap(fn):
            @functools.wraps(fn)
            def inner(x):
                return fn(x) * by["value"]

            return inner

        return wrap

    settings = {"value": 2}
    fn = scaled(settings)(helper)
    guards = guards_of(lambda: fn(1.0))
    settings["value"] = 3
    assert_noticed(guards, "['value'] was 2, now 3")


def test_two_closures_of_one_code_are_kept_apart():
    def make(scale):
        def fn():
            return scale

        def change(value):
            nonlocal scale
            scale = value

        return fn, change

    (first, change_first), (second, change_second) = make(1.0), make(2.0)
    guards = guards_of(first)
    change_second(5.0)
    assert second() == 5.0
    assert guards.check()
    change_first(3.0)
    assert not guards.check()


def test_local_functions_and_comprehensions_of_the_call_itself_are_no_reads():
    def fn(n):
        factor = n * 2
        scaled = lambda v: v * factor
        values = [scaled(k) + factor for k in range(3)]
        return max(values, key=lambda v: -v)

    assert values_read(record(fn, 2).reads) == []


def _within(settings, scale):
    """Functions that read variables of this one in functions of their own, and what changes `scale`."""

    def by_function():
        def inner():
            def innermost():
                return settings["k"] * scale

            return innermost()

        return inner()

    def by_lambda():
        return (lambda y: y * settings["k"] * scale)(1)

    def by_comprehension():
        return [settings["k"] * scale for _ in (1, 2)]

    def by_generator():
        return max(settings["k"] * scale for _ in (1, 2))

    def by_map():
        return list(map(lambda v: v * settings["k"] * scale, (1, 2)))  # noqa: C417

    def by_class():
        class Inner:
            def run(self):
                return settings["k"] * scale

        return Inner().run()

    def by_a_function_handed_out():
        def make():
            return lambda: settings["k"] * scale

        return make()()

    def change(value):
        nonlocal scale
        scale = value

    return [
        by_function, by_lambda, by_comprehension, by_generator, by_map, by_class, by_a_function_handed_out,
    ], change  # fmt: skip


@pytest.mark.parametrize("number", range(7))
def test_variables_from_outside_that_inner_functions_read(number):
    settings = {"k": 2}
    functions, change = _within(settings, 3)
    guards = guards_of(functions[number])
    settings["k"] = 5
    assert not guards.check()
    settings["k"] = 2
    assert guards.check()
    change(4)
    assert_noticed(guards, "scale")


@pytest.mark.parametrize(
    "read",
    [
        lambda c: operator.itemgetter("k")(c),
        lambda c: list(map(c.get, ["k"])),
        lambda c: list(map(c.__getitem__, ["k"])),
        lambda c: list(map(functools.partial(c.get, "k"), [None])),
    ],
)
def test_what_c_code_looks_up_in_a_dict(read):
    settings = {"k": 2}
    guards = guards_of(lambda: read(settings))
    settings["k"] = 5
    assert not guards.check()


def _by_a_variable(o):
    row = [o]
    return sorted(row, key=operator.attrgetter("scale"))[0].scale


@pytest.mark.parametrize(
    "read",
    [
        lambda o: operator.attrgetter("inner.scale")(o),
        _by_a_variable,
        lambda o: sorted([o], key=operator.attrgetter("scale"))[0].scale,
        lambda o: max([o], key=operator.attrgetter("inner.scale")).scale,
        lambda o: list(map(operator.attrgetter("scale"), [o])),
        lambda o: copy.copy(o).scale,
        lambda o: copy.deepcopy(o).inner.scale,
    ],
)
def test_what_c_code_looks_up_in_an_object(read):
    outer = types.SimpleNamespace(inner=Plain(), scale=1)
    holder = Plain()
    holder.inner, holder.scale = outer, 3
    outer.scale = 2
    guards = guards_of(lambda: read(holder))
    holder.scale, outer.scale = 5, 7
    assert not guards.check()


class Plain:
    """An object with attributes."""


def _unpacked_by_a_loop(rows):
    total = 0
    for low, _ in rows:
        total += low
    return total


def _unpacked_at_once(rows):
    ((low, _),) = rows
    return low


def _unpacked_twice(rows):
    for name, (low, *_) in zip("a", rows):
        return name, low


def _unpacked_in_a_row_of_rows(rows):
    for k, ((low, *_), name) in enumerate(zip(rows, "a")):
        return k, name, low


def _unpacked_from_a_list_in_a_row(rows):
    for (low, *_), k in zip([rows[0]], [1]):
        return low, k


def _unpacked_from_values_in_a_row(rows):
    for [(low, _)], _z in zip({"q": rows}.values(), "a"):
        return low


def _unpacked_from_a_row_of_a_list(rows):
    for (low, _), _z in zip(*[rows, "a"]):
        return low


def _unpacked_from_a_generator_in_a_row(rows):
    for (low, _), _z in zip((x for x in rows), "a"):
        return low


def _each_of(rows):
    for row in rows:
        yield [row], 1


def _unpacked_from_tuples_of_a_generator(rows):
    for ([(low, *_rest)], _), _z in zip(_each_of(rows), "a"):
        return low


def _unpacked_from_an_iterator(rows):
    pairs = map(rows.__getitem__, itertools.chain([0]))
    for (low, _), _z in zip(pairs, "a"):
        return low


def _unpacked_by_a_pattern(rows):
    match {"k": rows or []}:
        case {"k": [[low, _]]}:
            return low


def _unpacked_from_a_list_written_there(rows):
    for low, _ in [rows[0]]:
        return low


@pytest.mark.parametrize(
    "read",
    [
        _unpacked_by_a_loop,
        _unpacked_at_once,
        _unpacked_twice,
        _unpacked_in_a_row_of_rows,
        _unpacked_from_a_list_in_a_row,
        _unpacked_from_values_in_a_row,
        _unpacked_from_a_row_of_a_list,
        _unpacked_from_a_generator_in_a_row,
        _unpacked_from_tuples_of_a_generator,
        _unpacked_from_an_iterator,
        _unpacked_by_a_pattern,
        _unpacked_from_a_list_written_there,
        lambda rows: [low for low, _ in rows],
        lambda rows: sum(low for low, *_ in rows),
        lambda rows: max((low for low, _ in reversed(rows)), default=0),
    ],
)
def test_elements_that_are_unpacked(read):
    rows = [[1, 2]]
    guards = guards_of(lambda: read(rows))
    rows[0][0] = 5
    assert not guards.check()


@pytest.mark.parametrize(
    "read",
    [
        lambda rows: (rows or [])[0][0],
        lambda rows: [low for low, _ in (rows if rows else [])],
        lambda rows: (rows, 1)[0][0][0],
        lambda rows: {"k": rows}.get("k")[0][0],
        lambda rows: collections.OrderedDict(k=rows).popitem()[1][0][0],
        lambda rows: {**{"k": rows}}["k"][0][0],
        lambda rows: [None, *rows][1][0],
        lambda rows: next(iter({"k": rows}.values()))[0][0],
        lambda rows: min([(row, 1) for row in rows], default=0)[0][0],
        lambda rows: operator.attrgetter("rows")(types.SimpleNamespace(rows=rows))[0][0],
        lambda rows: rows.__getitem__(0).__getitem__(0),
        lambda rows: sum((rows or [[]])[0]),
        lambda rows: f"{max(rows)}",
        lambda rows: dict(rows),
        lambda rows: (lambda *row: row[0][0])(*(rows or [])),
    ],
)
def test_elements_of_what_an_expression_gives(read):
    rows = [[1, 2]]
    guards = guards_of(lambda: read(rows))
    rows[0][0] = 5
    assert not guards.check()


@pytest.mark.parametrize(
    "read",
    [
        lambda o: (o or None).rows[0][0],
        lambda o: (o, 1)[0].rows[0][0],
        lambda o: next(iter([o])).rows[0][0],
        lambda o: operator.attrgetter("rows")(o)[0][0],
        lambda o: [low for ((low, _),) in map(operator.attrgetter("rows"), [o])],
    ],
)
def test_containers_of_an_object_that_an_expression_gives(read):
    o = Plain()
    o.rows = [[1, 2]]
    guards = guards_of(lambda: read(o))
    o.rows[0][0] = 5
    assert not guards.check()


def test_names_that_are_imported_inside():
    module = types.ModuleType("settings_of_a_test")
    module.scale, module.__file__ = 2.0, __file__
    sys.modules[module.__name__] = module
    try:

        def fn():
            from settings_of_a_test import scale

            return scale

        guards = guards_of(fn)
        module.scale = 3.0
        assert_noticed(guards, "scale")
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize("name", ["<stdin>", "<string>", "<doctest a[0]>"])
@pytest.mark.parametrize("module", ["__main__", "typed_in", None])
def test_code_that_has_no_file_is_followed(name, module):
    """A prompt, `python -c`, `exec`, a doctest."""
    space = {"scale": 2.0} if module is None else {"scale": 2.0, "__name__": module}
    exec(compile("def f(x):\n    return x * scale", name, "exec"), space)
    f = dg.function(space["f"])
    for scale in (2.0, 3.0):
        space["scale"] = scale
        assert f(dg.ones(1)).item() == scale


@pytest.mark.parametrize(
    "values",
    [
        (0j, complex(0.0, -0.0), complex(-0.0, 0.0)),
        ({1: 2.0}, {1.0: 2.0}, {True: 2.0}),
        ({0.0: 2.0}, {-0.0: 2.0}, {0: 2.0}),
        ({(1, "a"): 2.0}, {(True, "a"): 2.0}, {(1.0, "a"): 2.0}),
        ({frozenset([1]): 2.0}, {frozenset([True]): 2.0}),
    ],
)
def test_arguments_that_python_calls_equal(values):
    f = dg.function(lambda x, v: (x * 2, repr(v)))
    for v in values * 2:
        assert f(dg.ones(1), v)[1] == repr(v)


def test_keys_of_an_argument_that_are_equal_objects():
    class Key:
        def __init__(self, scale):
            self.scale = scale

        def __eq__(self, other):
            return isinstance(other, Key)

        def __hash__(self):
            return 1

    keys = Key(1.0), Key(2.0)
    f = dg.function(lambda x, d: [x * k.scale for k in d])
    for k in keys * 3:
        assert f(dg.ones(1), {k: None})[0].item() == k.scale
    keys[0].scale = 7.0
    assert f(dg.ones(1), {keys[0]: None})[0].item() == 7.0


def test_words_for_keys_that_change():
    f = dg.function(lambda x, d: x * 2)
    for d in ({1: 2.0}, {True: 2.0}):
        f(dg.ones(1), d)
    assert "an argument changed: 1 became True" in str(f.explain())


def test_a_name_that_is_absent(monkeypatch):
    @dg.function
    def f(x):
        try:
            return (x * ABSENT_SCALE).item()
        except NameError:
            return None

    x = dg.ones(1)
    assert f(x) is None
    for scale in (3.0, 4.0):
        monkeypatch.setitem(globals(), "ABSENT_SCALE", scale)
        assert f(x) == scale
    monkeypatch.delitem(globals(), "ABSENT_SCALE")
    assert f(x) is None


def test_a_variable_that_is_deleted_and_set_in_turn():
    def make():
        scale = 1.0

        def f(x):
            nonlocal scale
            try:
                y = x * scale
                del scale
            except NameError:
                y, scale = x * 0, x.sum() + 1  # noqa: F841
            return y

        return f

    x = dg.ones(2)
    eager, graph = make(), dg.function(make())
    for _ in range(6):
        assert eager(x).tolist() == graph(x).tolist()
