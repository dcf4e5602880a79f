"""Guards of attributes: every way of reading one of an object from outside is noticed when it changes."""

import dataclasses
import enum
import math
import operator
import threading
import types
import weakref

import duograd as dg
import numpy as np
import pytest
from guarded import Layer, assert_noticed, guards_of, record, values_read


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
    assert "now absent" in guards.first_failure()


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


@pytest.mark.parametrize("make", [Layer, lambda: dg.nn.Linear(2, 2)])
def test_method_that_is_replaced_on_one_object(make):
    layer = make()
    guards = guards_of(layer, dg.ones((1, 2)))
    layer.forward = lambda x: x * 100
    assert_noticed(guards, "'forward'")
    del layer.forward
    assert guards.check()


def test_nested_objects_are_followed_to_the_object_that_changed():
    outer = types.SimpleNamespace(
        cfg=types.SimpleNamespace(inner=types.SimpleNamespace(scale=2.0, other=1)), other=1
    )
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


class ItemsByName(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__


class ItemsOrNone(dict):
    __getattr__ = dict.get


class ItsOwnDict(dict):
    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__ = self


@pytest.mark.parametrize("cls", [ItemsByName, ItemsOrNone, ItsOwnDict])
def test_items_of_a_dict_that_are_its_attributes(cls):
    options = cls(scale=2.0, other=1, inner=cls(depth=3))
    guards = guards_of(lambda: options.scale * options.inner.depth)
    options["other"] = 5
    assert guards.check()
    options["scale"] = 3.0
    assert_noticed(guards, "was 2.0, now 3.0")
    options["scale"] = 2.0
    options["inner"]["depth"] = 4
    assert_noticed(guards, "was 3, now 4")
    options["inner"] = cls(depth=3)
    assert not guards.check()


@pytest.mark.parametrize("cls", [ItemsByName, ItsOwnDict])
def test_attributes_of_a_dict_that_the_function_sets_are_items(cls):
    options = cls(h=dg.zeros(2))

    @dg.function
    def step(x):
        options.h = options.h * 0.5 + x
        options.spare = options.h + 1
        options.last = options.spare
        del options.spare
        return options.last

    for expected in (1.0, 1.5, 1.75):
        assert float(step(dg.ones(2))[0]) == expected + 1
        assert float(options["h"][0]) == expected
        assert list(options) == ["h", "last"]
    assert len(step.variants) == 1


def test_what_comes_to_stand_before_a_getattr_hook():
    class Hooked:
        def __init__(self):
            self.table = {"scale": 2.0}

        def __getattr__(self, name):
            return self.__dict__["table"][name]

    hooked = Hooked()
    guards = guards_of(lambda: hooked.scale)
    hooked.scale = 3.0
    assert_noticed(guards, "'scale'")
    del hooked.scale
    assert guards.check()
    Hooked.scale = 4.0
    assert_noticed(guards, "Hooked.scale")


def test_attribute_that_a_class_does_not_have_yet():
    class Options:
        pass

    guards = guards_of(lambda: getattr(Options, "scale", 1.0) if hasattr(Options, "other") else 0)
    Options.scale = 2.0
    assert guards.check()
    Options.other = 1
    assert_noticed(guards, "Options.other")


@pytest.mark.parametrize("getter", [operator.itemgetter(0), len, operator.attrgetter("real.scale")])
def test_properties_of_c_code(getter):
    class Row(list):
        value = property(getter)
        real = Layer()

    row = Row([1.0, 2.0])
    guards = guards_of(lambda: row.value)
    if isinstance(getter, operator.attrgetter):
        row.real.scale = 3.0
    else:
        row[:] = [5.0]
    assert not guards.check()


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
        assert_noticed(guards, "scale was 2.0, now 3.0")
        layer.scale = 2.0


def test_walk_over_dict_knows_what_the_function_wrote_itself():
    layer = Layer()

    def f():
        layer.training = not layer.training
        layer.fresh = 1
        names = [k for k, v in vars(layer).items() if v is not None]
        has = "fresh" in layer.__dict__, layer.__dict__.get("fresh"), len(vars(layer))
        del layer.fresh
        layer.training = not layer.training
        return names, has, vars(layer).get("fresh")

    guards = guards_of(f)
    assert guards.check()
    layer.extra = 1
    assert_noticed(guards, "layer.__dict__ has 'extra' now")
    del layer.extra
    scale = layer.scale
    del layer.scale
    assert not guards.check()
    layer.scale = scale  # the last of the names now
    assert_noticed(guards, "another order")

    def set_only():
        layer.training = False
        return list(vars(layer).values())

    guards = guards_of(set_only)
    layer.training = "anything"
    assert guards.check()
    layer.other += 1
    assert_noticed(guards, "layer.other was")


def test_dict_of_an_object_that_c_code_changes():
    layer = Layer()

    def f():
        vars(layer).update(scale=layer.scale + 1, late=2)

    with dg.mode("graph"):
        run = dg.function(lambda x: (f(), x + layer.scale + layer.late)[1])
        assert [float(run(dg.ones(()))) for _ in range(3)] == [6.0, 7.0, 8.0]
    assert (layer.scale, layer.late) == (5.0, 2)


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


def test_super_finds_data_and_methods():
    class Base:
        gain = 2.0

        def __init__(self):
            self.bias = 1.0

        def forward(self):
            return self.bias

    class Model(Base):
        gain = 9.0

        def forward(self):
            return super().forward() * super().gain

    model = Model()
    guards = guards_of(lambda: model.forward())
    Model.gain = 8.0
    assert guards.check()
    model.bias = 3.0
    assert_noticed(guards, "bias was 1.0, now 3.0")
    model.bias = 1.0
    Base.gain = 4.0
    assert_noticed(guards, "gain was 2.0, now 4.0")
    Base.gain = 2.0
    Base.forward = lambda self: 0.0
    assert_noticed(guards, "Base.forward")


def test_getattribute_of_the_user():
    class Options:
        def __init__(self):
            self.scale = 2.0
            self.other = 1

        def __getattribute__(self, name):
            return object.__getattribute__(self, name)

    options = Options()
    guards = guards_of(lambda: options.scale)
    options.other = 2
    assert guards.check()
    options.scale = 3.0
    assert_noticed(guards, "scale was 2.0, now 3.0")


def test_object_that_stands_for_another():
    class Proxy:
        def __init__(self, of):
            object.__setattr__(self, "of", of)

        def __getattribute__(self, name):
            return getattr(object.__getattribute__(self, "of"), name)

        def __setattr__(self, name, value):
            setattr(object.__getattribute__(self, "of"), name, value)

    layer = Layer()
    proxy = Proxy(layer)
    guards = guards_of(lambda: proxy.scale if not hasattr(proxy, "missing") else 0)
    proxy.scale = 3.0
    assert_noticed(guards, "proxy.of.scale was 2.0, now 3.0")
    proxy.scale = 2.0
    assert guards.check()
    object.__setattr__(proxy, "of", Layer(2.0))
    assert_noticed(guards, "proxy.of was a Layer, now another one")


def test_thread_local_attribute():
    local = threading.local()
    local.scale = 2.0
    guards = guards_of(lambda: local.scale)
    local.scale = 3.0
    assert_noticed(guards, "local.scale was 2.0, now 3.0")


def test_object_behind_a_weak_reference():
    parent, child = Layer(), Layer()
    child.parent = weakref.ref(parent)
    guards = guards_of(lambda: child.parent().scale)
    parent.scale = 3.0
    assert_noticed(guards, "scale was 2.0, now 3.0")


def test_attribute_of_a_function():
    def fn():
        return fn.scale

    fn.scale = 2.0
    guards = guards_of(fn)
    fn.scale = 3.0
    assert_noticed(guards, "fn.scale was 2.0, now 3.0")


def test_containers_of_objects_given_in_a_list():
    layer = Layer()
    layer.sizes = [1, 2]
    guards = guards_of(lambda layers, *more: [sum(each.sizes) for each in (*layers, *more)], [layer], layer)
    layer.sizes[0] = 5
    assert_noticed(guards, "sizes was [1, 2], now [5, 2]")


def test_what_a_builtin_chose_is_not_mistaken_for_what_its_key_gave():
    layers = [Layer(1.0), Layer(2.0)]

    def fn():
        best = max(layers, key=lambda each: each.scale)
        return best.other

    names = values_read(record(fn).reads)
    assert names == ["layers", "layers", "layers[0].scale", "layers[1].scale", "layers[1].other"]


def test_new_object_used_at_once_is_no_read():
    names = values_read(record(lambda: Layer(3.0).scale).reads)
    assert names == [
        "Layer",
        "Layer.__init__",
        "defaults of Layer.__init__",
    ]  # of the class and what its calls are given


class Pair:
    __match_args__ = ("first", "second")

    def __init__(self, first, second=None):
        self.first, self.second = first, second


def _by_position(x):
    match x:
        case Pair(first, _):
            return first


def _by_name(x):
    match x:
        case object(first=1.0):
            return 1
        case Pair(second=second):
            return second


def _within_another(x):
    match x:
        case Pair(_, Pair(first=first)):
            return first


@pytest.mark.parametrize("read", [_by_position, _by_name, _within_another])
def test_attributes_that_a_class_pattern_reads(read):
    pair = Pair(1.0, Pair(2.0))
    guards = guards_of(lambda: read(pair))
    assert guards.check()
    pair.first, pair.second.first = 3.0, 4.0
    assert not guards.check()
    pair.first, pair.second.first = 1.0, 2.0
    assert guards.check()


def test_what_a_class_pattern_found_is_followed():
    pair = Pair(1.0, Pair([2.0]))

    def fn():
        match pair:
            case Pair(second=Pair(first=row)):
                return row[0]

    guards = guards_of(fn)
    pair.second.first[0] = 3.0
    assert not guards.check()


class Named:
    """Its attributes have names that are not in Python's language."""


@pytest.mark.parametrize("name", ["lambda", "max-size", "a b", "{0}", "ﬁ", "None", "'"])
def test_attributes_of_any_name_are_guarded_and_kept_up(name):
    x, settings = Named(), types.SimpleNamespace()
    module = types.ModuleType("named")
    setattr(x, "h" + name, dg.zeros(()))

    def step(v, given):
        setattr(x, name, getattr(x, name) + 1)  # a live number
        setattr(x, "h" + name, getattr(x, "h" + name) + v)  # state
        part = getattr(Named, name) * getattr(given, name) * getattr(module, name) * vars(settings)[name]
        return getattr(x, "h" + name) * part + getattr(x, name)

    graph = dg.function(step)
    seen = []
    for fn in (step, graph):
        setattr(x, name, 1)
        setattr(x, "h" + name, dg.zeros(()))
        seen.append([])
        for value in (2.0, 3.0, 4.0, 2.0):
            for owner in (Named, settings, module):
                setattr(owner, name, value)
            seen[-1].append(fn(dg.ones(()), settings).item())
    assert seen[0] == seen[1]
    assert graph.variants
    total = dg.function(lambda x, **given: x * sum(given.values()))
    assert [total(dg.ones(()), **{name: v}).item() for v in (1, 2, 3)] == [1, 2, 3]
