"""Whose code is followed: of installed packages, and of modules that no file holds, as the traced function too."""

import functools
import importlib.util
import sys
import types

import duograd as dg
import pytest

TEXT = """
import contextlib, dataclasses, functools
import duograd as dg

log, settings = [], {"k": 2.0}

def scale(x, rows=[]):
    log.append(1)
    rows.append(1)
    return x * settings["k"], len(log), len(rows)

def loss(x):
    return (x * settings["k"]).sum()

class Scaled:
    def __init__(self):
        self.k, self.calls = 1.0, 0

    def __call__(self, x):
        self.calls += 1
        return x * self.k * settings["k"], self.calls

    def method(self, x):
        return self(x)

class Layer(dg.nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * settings["k"]

scaled, layer = Scaled(), Layer()

@contextlib.contextmanager
def noting():
    log.append("in")
    yield settings["k"]
    log.append("out")

@noting()
def decorated(x):
    return x * settings["k"]

def wrapped(fn):
    @functools.wraps(fn)
    def call(x):
        log.append("call")
        return fn(x), settings["k"]
    return call

@dg.custom_gradient
def ruled(x):
    k = settings["k"]
    return x * k, lambda g: g * k * 10
"""
FUNCTIONS = {
    "function": lambda m: m.scale,
    "partial": lambda m: functools.partial(m.scale, rows=[1]),
    "callable": lambda m: m.scaled,
    "method": lambda m: m.scaled.method,
    "layer": lambda m: m.layer,
    "decorated": lambda m: m.decorated,
    "wrapper": lambda m: m.wrapped(lambda x: x * 3),
    "gradient": lambda m: dg.grad(m.loss),
    "gradient inside": lambda m: lambda x: dg.grad(m.loss)(x),
    "vmap inside": lambda m: lambda x: dg.vmap(m.loss)(x),
    "checkpoint inside": lambda m: lambda x: dg.checkpoint(m.loss, x),
    "cond inside": lambda m: lambda x: dg.cond(x.sum() > 0, m.loss, m.loss, x),
    "rule inside": lambda m: lambda x: dg.grad(lambda x: m.ruled(x).sum())(x),
    "called": lambda m: lambda x: (m.scale(x), m.scaled(x)),
}


def _installed(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed_scale.py").write_text(TEXT)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    return lambda: importlib.reload(importlib.import_module("installed_scale"))


def _made(tmp_path, monkeypatch):
    def make():
        module = types.ModuleType("made_scale")
        monkeypatch.setitem(sys.modules, "made_scale", module)
        exec(compile(TEXT, "<made>", "exec"), vars(module))
        return module

    return make


def _plain(value):
    if isinstance(value, dg.Tensor):
        return value.tolist()
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("source", [_installed, _made])
def test_code_of_others_is_followed(source, name, tmp_path, monkeypatch):
    load, seen = source(tmp_path, monkeypatch), []
    for mode in ("eager", "graph"):
        module = load()
        fn, x, rows = dg.function(FUNCTIONS[name](module), mode=mode), dg.ones(2), []
        for turn in range(6):
            if turn == 3:
                module.settings["k"], module.scaled.k = 5.0, 3.0
            if turn == 4:
                module.settings, module.log = {"k": 7.0}, []
            state = [*module.log], module.scaled.calls, module.layer.calls
            rows.append((_plain(fn(x)), *state))
        seen.append(rows)
    sys.modules.pop("installed_scale", None)
    assert seen[0] == seen[1]


KINDS = """
scale = 1.0

class Kind:
    k = 1.0

    def method(self, x):
        return x * self.k

    @property
    def double(self):
        return self.k * 2

    @staticmethod
    def more(x):
        return x + 1

    @classmethod
    def times(cls, x):
        return x * cls.k

    def __call__(self, x):
        return self.method(x) + 1

def function(x, y=2.0, *, z=3.0):
    return x * y * z

kind = Kind()
"""
READS = {
    "number": lambda m: lambda x: x * m.scale,
    "absent": lambda m: lambda x: x * (m.other if hasattr(m, "other") else 1),
    "attribute of a class": lambda m: lambda x: x * m.kind.k,
    "method": lambda m: lambda x: m.kind.method(x),
    "property": lambda m: lambda x: x * m.kind.double,
    "static method": lambda m: lambda x: m.Kind.more(x),
    "class method": lambda m: lambda x: m.Kind.times(x),
    "call": lambda m: lambda x: m.kind(x),
    "defaults": lambda m: lambda x: m.function(x),
    "new object": lambda m: lambda x: m.Kind().method(x),
    "attribute of a new object": lambda m: lambda x: x * m.Kind().k,
    "writes": lambda m: lambda x: (setattr(m, "scale", m.scale + 1), x * m.scale)[1],
}
CHANGES = (
    lambda m: setattr(m, "scale", 5.0),
    lambda m: setattr(m, "other", 6.0),
    lambda m: setattr(m.Kind, "k", 7.0),
    lambda m: setattr(m.Kind, "method", lambda self, x: x * 8.0),
    lambda m: setattr(m.Kind, "double", property(lambda self: 9.0)),
    lambda m: setattr(m.Kind, "more", staticmethod(lambda x: x * 10.0)),
    lambda m: setattr(m.Kind, "times", classmethod(lambda cls, x: x * 11.0)),
    lambda m: setattr(m.Kind, "__call__", lambda self, x: x * 12.0),
    lambda m: setattr(m.function, "__defaults__", (13.0,)),
    lambda m: setattr(m.function, "__kwdefaults__", {"z": 14.0}),
    lambda m: setattr(m, "function", lambda x: x * 15.0),
)


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize(("folder", "called"), [("site-packages", "installed_kinds"), ("own", "own_kinds")])
def test_what_a_module_holds_may_change(folder, called, name, tmp_path):
    path, seen = tmp_path / folder / f"{called}.py", []
    path.parent.mkdir()
    path.write_text(KINDS)
    for mode in ("eager", "graph"):
        spec = importlib.util.spec_from_file_location(called, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[called] = module
        try:
            spec.loader.exec_module(module)
            fn = dg.function(READS[name](module), mode=mode)
            rows = [fn(dg.ones(1)).item()]
            for change in CHANGES:
                change(module)
                rows.append(fn(dg.ones(1)).item())
            seen.append(rows)
        finally:
            del sys.modules[called]
    assert seen[0] == seen[1]
