"""Whose code is followed: of installed packages, and of modules that no file holds, as the traced function too."""

import functools
import importlib
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
