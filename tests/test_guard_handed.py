"""What a function with a mode is made of, and what the framework is given to call, is state: a change is noticed."""

import functools

import duograd as dg
import pytest


def scaled(x, scale=1.0, shift=0.0):
    return x * scale + shift


def callables():
    """By name: something to call with a tensor, and changes to it that are made one after the other."""

    class Layer:
        scale = 2.0

        def __call__(self, x):
            return x * self.scale

        def method(self, x):
            return x * self.scale

    class Module(dg.nn.Module):
        def forward(self, x):
            return x * 2

    layer, settings, module = Layer(), {"scale": 2.0}, Module()
    part = functools.partial(scaled, scale=2.0)
    by_type = functools.singledispatch(lambda x: x * 2)

    def set_on(x, name, value):
        return lambda: setattr(x, name, value)

    return {
        "a partial": (part, lambda: part.keywords.update(scale=3.0), lambda: part.keywords.update(shift=1.0)),
        "a partial of a dict": (
            functools.partial(lambda d, x: x * d["scale"] + len(d), settings),
            lambda: settings.update(scale=3.0), lambda: settings.update(more=0),
        ),
        "an object": (
            layer, set_on(Layer, "__call__", lambda self, x: x - self.scale), set_on(layer, "scale", 3.0)
        ),
        "a bound method": (
            layer.method, set_on(Layer, "scale", 3.0), set_on(layer, "scale", 4.0), set_on(Layer, "scale", 5.0)
        ),
        "a module": (
            module, set_on(Module, "forward", lambda self, x: x * 3), set_on(module, "forward", lambda x: x * 4)
        ),
        "a dispatching function": (by_type, lambda: by_type.register(dg.Tensor, lambda x: x * 3)),
    }  # fmt: skip


#: ways in which a graph function comes to call `c`; `fn` makes a function of a mode
WAYS = {
    "it is the function": lambda fn, c: fn(c),
    "a partial of it is the function": lambda fn, c: fn(functools.partial(c)),
    "a transformed one is the function": lambda fn, c: fn(dg.vmap(c)),
    "a function with a mode": lambda fn, c: (lambda inner: fn(lambda x: inner(x)))(fn(c)),
    "`graph` of such a one": lambda fn, c: (lambda inner: fn(lambda x: inner.graph(x)))(fn(c)),
    "mapped": lambda fn, c: fn(lambda x: [*map(c, [x, x + 1])][1]),
    "a transformed one": lambda fn, c: (lambda inner: fn(lambda x: inner(x)))(dg.vmap(c)),
    "transformed inside": lambda fn, c: fn(lambda x: dg.vjp(c, x)[1](x)[0] + dg.vmap(c)(x)),
    "a checkpoint": lambda fn, c: fn(lambda x: dg.checkpoint(c, x)),
    "an own gradient": lambda fn, c: fn(dg.custom_gradient(lambda x: (c(x), lambda g: g))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", callables())
def test_a_change_of_what_is_called_is_noticed(kind, way):
    def run(mode):
        c, *changes = callables()[kind]
        f = WAYS[way](functools.partial(dg.function, mode=mode), c)
        x, got = dg.tensor([1.0, 2.0]), []
        for change in (lambda: None, *changes):
            change()
            got += [f(x).tolist() for _ in range(2)]
        return got

    assert run("graph") == run("eager")
