"""Guards of tensors, what a traced function changes outside, and how the recorder sits in the interpreter."""

import contextvars
import datetime
import functools
import gc
import operator
import os
import random
import sys
import time
import types
import uuid
import weakref

import duograd as dg
import numpy as np
import pytest
from duograd.graph.guards import ReadRecorder, compile_guards
from duograd.graph.tensor_guards import grad_guard, tensor_guard
from guarded import Layer, assert_noticed, guards_of, record, values_read

SCALE = 2.0
OTHER = 5


def divided(x):
    return SCALE / x


# ---------------------------------------------------------------- tensors


def test_tensors_on_the_way_are_guarded_by_identity():
    layer = Layer()
    layer.weight = dg.ones((2,))
    guards = guards_of(lambda: layer.weight)
    layer.weight = dg.ones((2,))
    assert_noticed(guards, "layer.weight was tensor float32[2], now another one; passed as an argument, or")


def test_list_of_tensors_never_compares_values():
    weights = [dg.ones((2,)), dg.ones((2,))]
    guards = guards_of(lambda: list(weights))
    weights[1] = dg.ones((2,))
    assert_noticed(guards, "weights")


def test_tensor_guard_allows_new_values_and_notices_new_memory():
    x, y = dg.ones((2, 3)), dg.zeros((2, 3))
    guards = compile_guards([], [tensor_guard(x)])
    assert guards.check()
    x += 1
    assert guards.check()
    x.requires_grad_()
    assert not guards.check()
    x.requires_grad_(False)
    x._storage, kept = y._storage, x._storage
    assert not guards.check()
    x._storage = kept
    assert guards.check()
    assert "float32[2, 3]" in guards.explain()[0]


def test_grad_guard():
    x = dg.ones((2,)).requires_grad_()
    absent = compile_guards([], [grad_guard(x, True)])
    assert absent.check()
    x.grad = dg.ones((2,))
    assert not absent.check()
    present = compile_guards([], [grad_guard(x, False)])
    assert present.check()
    x.grad = dg.zeros((2,))
    assert present.check()
    x.grad = None
    assert not present.check()


# ---------------------------------------------------------------- writes


def test_attribute_that_the_function_changes_is_recorded_as_first_read():
    layer = Layer()
    layer.count = 0

    def fn():
        layer.count += 1
        return layer.count

    recorder = record(fn)
    guards = compile_guards(recorder.reads)
    assert_noticed(guards, "layer.count was 0, now 1")
    layer.count = 0
    assert guards.check()
    (effect,) = recorder.effects
    effect.apply(effect.value)
    assert layer.count == 1


def test_attribute_that_is_only_written_is_an_effect_and_no_read():
    layer = Layer()

    def fn():
        layer.last = 5
        return layer.last

    recorder = record(fn)
    assert values_read(recorder.reads) == ["layer"]
    assert [(e.name, e.value) for e in recorder.effects] == [("layer.last", 5)]


def test_attribute_that_is_written_with_what_it_holds_is_still_an_effect():
    layer = Layer()
    layer.last = 5

    def fn():
        layer.last = 5

    (effect,) = record(fn).effects
    layer.last = 7
    effect.apply(effect.value)
    assert layer.last == 5


def test_effects_are_undone():
    layer, log, table = Layer(), [1], {"a": 1}

    def fn():
        layer.scale = 9.0
        layer.fresh = 1
        log.append(2)
        table["b"] = 2
        table["a"] = 3

    for effect in record(fn).effects:
        effect.undo()
    assert vars(layer) == vars(Layer())
    assert (log, table) == ([1], {"a": 1})


def test_effects_are_known_after_an_error():
    layer = Layer()

    def fn():
        layer.scale = 9.0
        raise KeyError("stop")

    recorder = ReadRecorder()
    with pytest.raises(KeyError), recorder:
        fn()
    recorder.effects[0].undo()
    assert layer.scale == 2.0


def test_value_that_is_changed_and_put_back_needs_no_new_variant():
    layer = Layer()

    def fn():
        before, layer.training = layer.training, False
        try:
            return layer(1.0)
        finally:
            layer.training = before

    guards = guards_of(fn)
    layer.training = False
    assert not guards.check()


def test_effects_on_containers_and_globals(monkeypatch):
    monkeypatch.setitem(globals(), "OTHER", 5)
    log, seen, table = [1], set(), {"a": 1}

    def fn():
        global OTHER
        OTHER = 8
        log.append(2)
        seen.add("x")
        table["b"] = 2
        table.pop("a")

    recorder = record(fn)
    kinds = {e.name: e for e in recorder.effects}
    assert kinds["OTHER"].value == 8
    assert kinds["log"].kind == "extend"
    assert kinds["log"].value == [2]
    log[:], table["a"], OTHER_before = [1], 1, OTHER
    for effect in recorder.effects:
        effect.apply(effect.value)
    assert (log, seen, table, OTHER_before) == ([1, 2], {"x"}, {"b": 2}, 8)


def test_appending_is_no_read():
    log = []
    guards = guards_of(lambda: log.append(1))
    log.append(2)
    assert guards.check()


def test_objects_made_during_the_call_are_not_guarded():
    class State:
        def __init__(self):
            self.scale = 1.0
            self.items = []

    def fn():
        state = State()
        state.items.append(state.scale)
        state.scale += 1
        other = types.SimpleNamespace(depth=3, state=state)
        config = {"a": [1, 2]}
        for v in config["a"]:
            state.items.append(v)
        return other.depth + other.state.scale + len(state.items)

    assert values_read(record(fn).reads) == ["State", "State.__init__"]


@pytest.mark.usefixtures("own_garbage")
def test_values_made_during_the_call_are_released():
    class Big:
        pass

    alive = []

    def fn():
        big = Big()
        big.payload = np.zeros(8)
        alive.append(weakref.ref(big))
        return big.payload.shape

    recorder = record(fn)
    recorder.effects.clear()
    guards = compile_guards(recorder.reads)
    gc.collect()
    assert alive[0]() is None
    assert guards.check()


# ---------------------------------------------------------------- tracing


def test_reads_in_the_framework_are_not_the_users():
    x = dg.ones((2, 2))
    assert values_read(record(lambda: dg.softmax(x @ x + 1.0, axis=-1)).reads) == ["x"]


def test_recorder_restores_an_installed_tracer_and_calls_it_along():
    events = []

    def tracer(frame, event, arg):
        if frame.f_code.co_name == "traced_here":
            events.append(event)
        return tracer

    def traced_here():
        return SCALE

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        recorder = record(traced_here)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert {"call", "line", "return"} <= set(events)
    assert [r.name for r in recorder.reads] == ["SCALE"]


def test_breakpoint_works_and_such_a_trace_is_used_once(monkeypatch):
    import io
    import pdb

    layer = Layer()
    debugger = pdb.Pdb(
        stdin=io.StringIO("p layer.scale\nc\n"), stdout=io.StringIO(), nosigint=True, readrc=False
    )
    monkeypatch.setattr(sys, "breakpointhook", lambda: debugger.set_trace(sys._getframe(1)))

    def fn():
        breakpoint()
        return layer.scale

    before = sys.gettrace()
    with ReadRecorder() as recorder:
        assert fn() == 2.0
    sys.settrace(before)
    assert "2.0" in debugger.stdout.getvalue()
    guards = compile_guards(recorder.reads)
    assert not guards.check()
    assert "debugger" in guards.first_failure()


def test_exceptions_pass_through_and_leave_no_tracer():
    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError), ReadRecorder():
        divided(0)
    assert sys.gettrace() is before


CONTEXT = contextvars.ContextVar("CONTEXT", default=2)
IMPURE = {
    "random.random": lambda x: x * random.random(),
    "random.uniform": lambda x: x * random.uniform(0, 1),
    "a Random": lambda x: x * OWN_RANDOM.randint(1, 9),
    "np.random.rand": lambda x: x * float(np.random.rand()),
    "a NumPy generator": lambda x: x * float(OWN_NUMPY.normal()),
    "time.time": lambda x: x * time.time(),
    "context variable": lambda x: x * CONTEXT.get(),
    "perf_counter": lambda x: x * time.perf_counter(),
    "datetime.now": lambda x: x * datetime.datetime.now().microsecond,
    "uuid": lambda x: x * (uuid.uuid4().int % 7),
    "os.urandom": lambda x: x * os.urandom(1)[0],
}
OWN_RANDOM = random.Random(0)
OWN_NUMPY = np.random.default_rng(0)
STATE = OWN_NUMPY.bit_generator.state


@pytest.mark.parametrize("which", IMPURE)
def test_a_clock_or_a_foreign_random_number_is_read_at_every_call(which):
    def run(fn):
        random.seed(1), np.random.seed(1), OWN_RANDOM.seed(1)
        OWN_NUMPY.bit_generator.state = STATE
        CONTEXT.set(2)
        return (
            [fn(dg.ones(2)).tolist() for _ in range(3)],
            random.random(),
            np.random.rand(),
            OWN_RANDOM.random(),
        )

    traced = dg.function(IMPURE[which])
    got, want = run(traced), run(IMPURE[which])
    if "andom" in which and which != "os.urandom":
        assert got == want
    told = str(traced.explain())
    assert "would stand still in the graph" in told
    assert "test_guard_effects.py" in told
    CONTEXT.set(3)
    if which == "context variable":
        assert traced(dg.ones(2)).tolist() == [3, 3]


class Holds:
    def __init__(self):
        self.clocks, self.rows, self.range = {"a": time}, [OWN_RANDOM], (0, 1)
        self.others = [OWN_NUMPY]


HOLDS = Holds()
#: calls whose callee only C code knows before
GIVEN_BY_C = {
    "next": lambda: next(iter(HOLDS.rows)).random(),
    "max": lambda: max(HOLDS.rows, key=id).random(),
    "one of NumPy's": lambda: next(iter(HOLDS.others)).random(),
    "the largest of NumPy's": lambda: max(HOLDS.others, key=id).normal(),
    "sorted": lambda: sorted(HOLDS.rows, key=id)[0].random(),
    "values": lambda: [*HOLDS.clocks.values()][-1].perf_counter_ns() % 1009,
    "pop": lambda: [OWN_RANDOM].pop().random(),
    "copy": lambda: HOLDS.rows.copy()[0].random(),
    "setdefault": lambda: {"a": OWN_RANDOM}.setdefault("a", 1).random(),
    "reduce": lambda: functools.reduce(lambda a, b: b, HOLDS.rows).random(),
    "a function in Python": lambda: max(HOLDS.rows, key=id).uniform(0, 1),
    "a module": lambda: __import__("random").random(),
    "a module's function": lambda: __import__("random").__dict__["random"](),
    "a row of arguments": lambda: random.uniform(*HOLDS.range),
    "arguments in a star": lambda: next(iter(HOLDS.rows)).uniform(*(0, 1)),
    "a generator": lambda: next(x for x in HOLDS.rows).random(),
    "an item": lambda: operator.itemgetter(0)(HOLDS.rows).random(),
    "an exception": lambda: caught_by_us().random(),
}


def caught_by_us():
    try:
        raise ValueError(OWN_RANDOM)
    except ValueError as e:
        return e.args[0]


@pytest.mark.parametrize("which", GIVEN_BY_C)
def test_what_c_code_gives_and_is_called_does_not_stand_still(which):
    read = GIVEN_BY_C[which]
    traced = dg.function(lambda x: x * read())
    assert len({traced(dg.ones(())).item() for _ in range(8)}) > 4
    assert "would stand still in the graph" in traced.explain()


def test_arguments_in_a_row_are_looked_at_as_those_one_by_one():
    layer, log, rows = Layer(), [], iter(range(1, 9))
    place, given, row = (layer, "scale"), (rows,), (1,)

    @dg.function
    def read(x):
        return x * getattr(*place)

    for layer.scale in (2, 3, 4):
        assert read(dg.ones(())).item() == layer.scale

    @dg.function
    def grow(x):
        log.append(*row)
        return x * len(log)

    assert [grow(dg.ones(())).item() for _ in range(3)] == [1, 2, 3]
    take = dg.function(lambda x: x * next(*given))
    assert [take(dg.ones(())).item() for _ in range(3)] == [1, 2, 3]


def test_a_file_that_c_code_gives_is_read_at_every_call(tmp_path):
    path = tmp_path / "rows"
    path.write_text("123456")
    with open(path) as file:
        traced = dg.function(lambda x: x * int(next(iter([file])).read(1)))
        assert [traced(dg.ones(())).item() for _ in range(4)] == [1, 2, 3, 4]


def test_methods_of_results_that_look_at_nothing_stay_in_the_graph():
    @dg.function
    def f(x):
        words = "b a".split()
        y = (x * 2).sum() + len(sorted(words)[0].upper()) + [1, 2].pop() + {"k": 3}.get("k")
        return max([y, y + 1], key=id).exp() if False else y.exp()

    f(dg.ones(3))
    assert len(f.variants) == 1
    assert sys.getprofile() is None


def test_a_profiler_of_the_users_goes_on():
    heard = []

    def profiler(frame, event, called):
        heard.append(event)

    traced = dg.function(lambda x: (x * 2).sum() * len("a b".split()))
    sys.setprofile(profiler)
    try:
        traced(dg.ones(3))
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
    assert "c_call" in heard


def test_a_trace_that_is_left_leaves_state_as_it_was():
    layer = Layer()
    weight = dg.ones((2,)).requires_grad_()

    @dg.function
    def step(x):
        layer.other += 1
        (weight * x).sum().backward()
        return x * random.random()

    for k in range(1, 4):
        step(dg.ones((2,)))
        assert layer.other == k
        assert weight.grad.tolist() == [k, k]


def test_explain_names_the_line():
    layer = Layer()
    text = "\n".join(guards_of(lambda: layer.training).explain())
    line = test_explain_names_the_line.__code__.co_firstlineno + 2
    assert f"layer.training == True  ({__file__}:{line})" in text


def test_no_reads_give_a_check_that_holds():
    assert compile_guards([]).check() is True


# ---------------------------------------------------------------- whole functions


def test_function_is_traced_again_when_what_it_read_changed():
    layer = Layer()

    @dg.function
    def fn(x):
        return layer(x)

    x = dg.ones((3,))
    assert fn(x).tolist() == [2.0] * 3
    layer.scale = 3.0
    assert fn(x).tolist() == [3.0] * 3
    layer.training = False
    assert fn(x).tolist() == [1.0] * 3
    layer.training, layer.scale = True, 2.0
    assert fn(x).tolist() == [2.0] * 3
    assert len(fn.variants) == 3
    assert "layer.scale was 2.0, now 3.0" in fn.explain()


@pytest.mark.parametrize("order", ["train_eval", "eval_train", "walked_after"])
def test_modes_of_a_module_that_are_set_inside_are_traced_once(order):
    m = dg.nn.Sequential(dg.nn.Linear(4, 8), dg.nn.BatchNorm1d(8), dg.nn.Dropout(0.5))

    @dg.function
    def f(x):
        if order == "walked_after":
            y = m(x)
            return y, len(dict(m.named_modules()))
        first = m.train() if order == "train_eval" else m.eval()
        y = first(x)
        return y, (m.eval() if order == "train_eval" else m.train())(x)

    x = dg.ones((6, 4))
    for _ in range(4):
        f(x)
    assert len(f.variants) == 1
    assert int(m[1].num_batches_tracked) == 4


def test_what_inner_functions_change_outside_is_changed_at_every_call():
    count, log = 0, []

    def fn(x):
        def inner(k):
            nonlocal count
            count += k
            log.append(count)

        def counted():
            for k in (1, 2):
                inner(k)
                yield x * count

        return sum(counted(), x)

    graph, expected = dg.function(fn), []
    for _ in range(3):
        expected.append(fn(dg.tensor([1.0])).item())
    after = count, list(log)
    count, log[:] = 0, []
    assert [graph(dg.tensor([1.0])).item() for _ in range(3)] == expected
    assert (count, log) == after


@pytest.mark.parametrize("way", ["item", "attribute", "delattr", "global"])
def test_what_is_deleted_has_to_be_there(way):
    settings, holder = {"a": 1, "b": 2}, types.SimpleNamespace(a=1)
    globals()["DELETED"] = 1

    def fn(x):
        global DELETED
        if way == "item":
            del settings["a"]
        elif way == "attribute":
            del holder.a
        elif way == "delattr":
            delattr(holder, "a")
        else:
            del DELETED
        return x + 1

    graph = dg.function(fn)
    assert graph(dg.tensor([1.0])).item() == 2
    with pytest.raises((KeyError, AttributeError, NameError)):
        graph(dg.tensor([1.0]))
    settings["a"] = holder.a = globals()["DELETED"] = 3
    assert graph(dg.tensor([1.0])).item() == 2
    there = {"item": "a" in settings, "global": "DELETED" in globals()}
    assert not there.get(way, hasattr(holder, "a"))


def _set_an_attribute(o):
    (o or None).n += 1


def _set_an_attribute_of_an_element(o):
    max([o], key=id).n += 1


def _set_an_attribute_by_name(o):
    setattr((o, 1)[0], "n", getattr(o or None, "n") + 1)  # noqa: B009, B010


def _set_an_item_of_a_namespace(o):
    (vars(o or None) or {})["n"] += 1


def _set_an_item(o):
    (o.rows or [])[0][0] += 1


def _delete_an_attribute(o):
    del (o if o else None).more
    o.n += 1
    o.more = o.n


@pytest.mark.parametrize(
    "change",
    [
        _set_an_attribute,
        _set_an_attribute_of_an_element,
        _set_an_attribute_by_name,
        _set_an_item_of_a_namespace,
        _set_an_item,
        _delete_an_attribute,
    ],
)
def test_changes_of_what_an_expression_gives(change):
    def run(mode):
        o = types.SimpleNamespace(n=1, more=0, rows=[[1, 2]])

        def fn(x):
            change(o)
            return x + o.n + o.rows[0][0] + o.more

        f = dg.function(fn, mode=mode)
        return [(f(dg.ones(1)).item(), repr(o)) for _ in range(4)]

    assert run("graph") == run("eager")


KEPT = []


class Implicit:
    """Methods that Python calls by itself, with default arguments that they change."""

    @property
    def two(self, kept=KEPT):
        kept.append(1)
        return 2.0

    def __getattr__(self, name, *, kept=KEPT):
        kept.append(name)
        return 3.0

    def __enter__(self, kept=KEPT):
        kept.append(2)

    def __exit__(self, kind, value, trace, kept=KEPT):
        kept.append(3)

    def __len__(self, kept=KEPT):
        kept.append(4)
        return 5


def test_what_methods_that_python_calls_by_itself_change_through_default_arguments_counts():
    x, owner, found = dg.ones(2), Implicit(), []

    def step():
        class Within:
            @property
            def three(self, kept=[]):  # noqa: B006
                kept.append(3)
                return len(kept) * 3

        with owner:
            return x * owner.two * owner.other * len(owner) * Within().three * Implicit().two

    for mode in ("eager", "graph"):
        KEPT.clear()
        run = dg.function(step, mode=mode)
        for _ in range(3):
            found.append((run().tolist(), list(KEPT)))
    assert found[:3] == found[3:]
