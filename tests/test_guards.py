"""Guards: every way of reading a Python value from outside is noticed when it changes, and only then."""

import dataclasses
import enum
import functools
import gc
import importlib.util
import math
import sys
import time
import types
import weakref
from typing import NamedTuple

import numpy as np
import pytest

import duograd as dg
from duograd.core.errors import TraceError
from duograd.graph.guards import ReadRecorder, compile_guards, grad_guard, tensor_guard


def record(fn, *args):
    with ReadRecorder() as recorder:
        fn(*args)
    return recorder


def guards_of(fn, *args):
    """Guards of one call; they hold right after it."""
    guards = compile_guards(record(fn, *args).reads)
    assert guards.check(), guards.first_failure()
    assert guards.first_failure() is None
    return guards


def assert_noticed(guards, name):
    """The guards fail, and the message names what changed."""
    assert not guards.check()
    assert name in guards.first_failure()


# ---------------------------------------------------------------- globals

SCALE = 2.0
OTHER = 5
CONFIG = {"scale": 2.0, "name": "a", "inner": {"depth": 3}}
SIZES = [1, 2, 3]


def helper(x):
    return x * SCALE


def test_global_number(monkeypatch):
    guards = guards_of(lambda: SCALE + 1)
    monkeypatch.setitem(globals(), "OTHER", 6)
    assert guards.check()
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert not guards.check()
    assert guards.first_failure().startswith("SCALE was 2.0, now 3.0, read at " + __file__)


def test_global_that_vanished_fails_without_raising(monkeypatch):
    guards = guards_of(lambda: SCALE + 1)
    monkeypatch.delitem(globals(), "SCALE")
    assert not guards.check()
    assert "gone" in guards.first_failure()


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


def test_names_of_the_framework_and_builtins_need_no_guard():
    x = dg.ones((2,))
    reads = record(lambda: (dg.float32, len((1, 2)), math.pi, abs(-1), x is None)).reads
    assert [r.name for r in reads] == ["x"]


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
        scaled = lambda v: v * factor  # noqa: E731
        values = [scaled(k) + factor for k in range(3)]
        return max(values, key=lambda v: -v)

    assert [r.name for r in record(fn, 2).reads] == []


# ---------------------------------------------------------------- attributes


class Layer:
    gain = 1.0
    unused = 1

    def __init__(self, scale=2.0):
        self.scale = scale
        self.training = True
        self.other = 0

    def __call__(self, x):
        return self.forward(x)

    def forward(self, x):
        return x * self.scale if self.training else x


def test_self_attribute():
    layer = Layer()
    guards = guards_of(layer, 1.0)
    layer.other = 1
    assert guards.check()
    layer.training = False
    assert_noticed(guards, "training was True, now False")
    layer.training = True
    assert guards.check()
    layer.scale = 3.0
    assert_noticed(guards, "scale was 2.0, now 3.0")


def test_attribute_that_vanished_fails_without_raising():
    layer = Layer()
    guards = guards_of(layer, 1.0)
    del layer.scale
    assert not guards.check()
    assert "gone" in guards.first_failure()


@pytest.mark.parametrize("value", [2, True, np.float32(2.0), np.float64(2.0)])
def test_equal_numbers_of_another_type_are_a_change(value):
    layer = Layer(1.0 if value is True else 2.0)
    guards = guards_of(layer, 1.0)
    layer.scale = value
    assert not guards.check()


def test_equal_values_in_new_objects_are_no_change():
    layer = Layer(float("2.5"))
    guards = guards_of(layer, 1.0)
    layer.scale = float("25") / 10
    assert guards.check()


def test_nan_and_the_sign_of_zero():
    layer = Layer(math.nan)
    guards = guards_of(layer, 1.0)
    layer.scale = float("nan")
    assert guards.check()
    layer.scale = 0.0
    assert not guards.check()
    guards = guards_of(layer, 1.0)
    layer.scale = -0.0
    assert not guards.check()


def test_class_attribute_and_its_override_on_the_instance():
    layer = Layer()
    guards = guards_of(lambda: layer.gain)
    Layer.unused = 2
    assert guards.check()
    layer.gain = 2.0
    assert_noticed(guards, "layer.gain was 1.0, now 2.0")
    del layer.gain
    assert guards.check()
    Layer.gain = 3.0
    try:
        assert not guards.check()
    finally:
        Layer.gain = 1.0


def test_attribute_of_a_class_object():
    class Options:
        scale = 2.0
        other = 1

    guards = guards_of(lambda: Options.scale)
    Options.other = 2
    assert guards.check()
    Options.scale = 4.0
    assert_noticed(guards, "Options.scale was 2.0, now 4.0")


def test_method_that_is_replaced_on_its_class():
    class Model:
        def forward(self):
            return 1

    model = Model()
    guards = guards_of(lambda: model.forward())
    Model.forward = lambda self: 2
    assert_noticed(guards, "Model.forward")


def test_nested_objects_are_followed_to_the_object_that_changed():
    outer = types.SimpleNamespace(cfg=types.SimpleNamespace(inner=types.SimpleNamespace(scale=2.0, other=1)), other=1)
    guards = guards_of(lambda: outer.cfg.inner.scale)
    outer.other = outer.cfg.inner.other = 2
    assert guards.check()
    outer.cfg.inner.scale = 3.0
    assert_noticed(guards, "outer.cfg.inner.scale was 2.0, now 3.0")
    outer.cfg.inner.scale = 2.0
    outer.cfg = types.SimpleNamespace(inner=types.SimpleNamespace(scale=2.0))
    assert_noticed(guards, "outer.cfg")


def test_dataclass():
    @dataclasses.dataclass
    class Config:
        scale: float = 2.0
        depth: int = 3

    config = Config()
    guards = guards_of(lambda: config.scale)
    config.depth = 4
    assert guards.check()
    config.scale = 1.0
    assert_noticed(guards, "config.scale was 2.0, now 1.0")


def test_dataclass_seen_through_its_own_methods():
    @dataclasses.dataclass
    class Config:
        scale: float = 2.0
        depth: int = 3

    config = Config()
    guards = guards_of(lambda: dataclasses.asdict(config)["depth"])
    config.depth = 4
    assert_noticed(guards, "depth was 3, now 4")


def test_slots():
    class Point:
        __slots__ = ("x", "y")

    p = Point()
    p.x = 1
    guards = guards_of(lambda: (p.x, hasattr(p, "y")))
    p.x = 2
    assert_noticed(guards, "p.x was 1, now 2")
    p.x = 1
    p.y = 1
    assert_noticed(guards, "p.y was absent, now 1")


def test_property():
    class Model:
        def __init__(self):
            self._scale = 2.0

        @property
        def scale(self):
            return self._scale

    model = Model()
    guards = guards_of(lambda: model.scale)
    model._scale = 3.0
    assert_noticed(guards, "_scale was 2.0, now 3.0")


def test_object_returned_by_a_property_or_a_method_is_followed():
    class Model:
        def __init__(self):
            self._cfg = Layer()

        @property
        def cfg(self):
            return self._cfg

        def config(self):
            return self._cfg

    model = Model()
    for guards in (guards_of(lambda: model.cfg.scale), guards_of(lambda: model.config().scale)):
        model._cfg.scale = 3.0
        assert_noticed(guards, "_cfg.scale was 2.0, now 3.0")
        model._cfg.scale = 2.0


def test_getattr_hook():
    class Options:
        def __init__(self):
            self.values = {"scale": 2.0, "other": 1}

        def __getattr__(self, name):
            try:
                return self.__dict__["values"][name]
            except KeyError:
                raise AttributeError(name) from None

    options = Options()
    guards = guards_of(lambda: options.scale)
    options.values["other"] = 2
    assert guards.check()
    options.values["scale"] = 3.0
    assert_noticed(guards, "'scale'] was 2.0, now 3.0")


def test_getattr_with_a_name_from_a_variable():
    layer = Layer()

    def fn(name):
        return getattr(layer, name)

    guards = guards_of(fn, "scale")
    layer.other = 5
    assert guards.check()
    layer.scale = 3.0
    assert_noticed(guards, "layer.scale was 2.0, now 3.0")


def test_getattr_chains_go_on():
    model = types.SimpleNamespace(layer=Layer())
    guards = guards_of(lambda: getattr(model, "layer").scale)  # noqa: B009
    model.layer.scale = 3.0
    assert_noticed(guards, "scale was 2.0, now 3.0")


def test_absent_attribute_that_appears():
    layer = Layer()
    guards = guards_of(lambda: getattr(layer, "mask", None))
    layer.other = 9
    assert guards.check()
    layer.mask = 1
    assert_noticed(guards, "layer.mask was absent, now 1")


def test_vars_and_dict():
    layer = Layer()
    for guards in (guards_of(lambda: vars(layer)["scale"]), guards_of(lambda: layer.__dict__["scale"])):
        layer.other += 1
        assert guards.check()
        layer.scale = 3.0
        assert_noticed(guards, "['scale'] was 2.0, now 3.0")
        layer.scale = 2.0


def test_enum_member():
    class Mode(enum.Enum):
        A = 1
        B = 2

    layer = Layer()
    layer.mode = Mode.A
    guards = guards_of(lambda: layer.mode is Mode.A)
    layer.mode = Mode.B
    assert not guards.check()
    layer.mode = Mode.A
    assert guards.check()


def test_dtype_attribute():
    layer = Layer()
    layer.dtype = dg.float32
    guards = guards_of(lambda: layer.dtype)
    layer.dtype = dg.float64
    assert_noticed(guards, "layer.dtype")


def test_function_kept_in_an_attribute():
    layer = Layer()
    layer.activation = dg.relu
    guards = guards_of(lambda: layer.activation is None)
    layer.activation = dg.tanh
    assert_noticed(guards, "layer.activation")


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
    guards = guards_of(lambda: ([layer.scale for layer in model.layers], {k: v + 1 for k, v in model.gains.items()}))
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
    for fn in (lambda: sizes == [2, [3, 4]], lambda: str(sizes), lambda: list(sizes), lambda: f"{sizes}", lambda: bool(sizes)):
        guards = guards_of(fn)
        sizes[0] = 7
        assert_noticed(guards, "sizes")
        sizes[0] = 2


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


def test_small_arrays_are_compared_by_their_elements():
    table = np.arange(4.0)
    guards = guards_of(lambda: float(table[1]) + table.sum())
    table[3] = 3.0
    assert guards.check()
    table[3] = 7.0
    assert_noticed(guards, "table")


def test_large_array_that_may_change_is_an_error():
    table = np.zeros(10_000)
    with pytest.raises(TraceError, match="reads the NumPy array table of 80,000 bytes"):
        record(lambda: table.sum())
    table.flags.writeable = False
    record(lambda: table.sum())


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


# ---------------------------------------------------------------- tensors


def test_tensors_on_the_way_are_guarded_by_identity():
    layer = Layer()
    layer.weight = dg.ones((2,))
    guards = guards_of(lambda: layer.weight)
    layer.weight = dg.ones((2,))
    assert_noticed(guards, "layer.weight was tensor float32[2], now tensor float32[2]")


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
    assert [r.name for r in recorder.reads] == ["layer"]
    assert [(e.name, e.value) for e in recorder.effects] == [("layer.last", 5)]


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

    names = {r.name for r in record(fn).reads}
    assert names == {"State", "State.__init__"} - {"State.__init__"}


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
    names = [r.name for r in record(lambda: dg.softmax(x @ x + 1.0, axis=-1)).reads]
    assert names == ["x"]


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
    debugger = pdb.Pdb(stdin=io.StringIO("p layer.scale\nc\n"), stdout=io.StringIO(), nosigint=True, readrc=False)
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
        helper(1 / 0)
    assert sys.gettrace() is before


def test_clock_is_noted():
    guards = guards_of(lambda: time.time() + time.perf_counter())
    assert any("time" in text and "not watched" in text for text in guards.explain())
    assert guards.check()


def test_random_numbers_of_python_and_numpy_are_noted():
    import random

    guards = guards_of(lambda: random.random() + np.random.default_rng(0).random())
    assert sum("not watched" in text for text in guards.explain()) >= 1


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
