"""Compiling before the first call: `fn.warmup`, calls as text, `duograd warmup`, the recording of calls."""

from __future__ import annotations

import os
import subprocess
import sys

import duograd as dg
import numpy as np
import pytest
from duograd.core.backend import get_backend
from duograd.graph import spec
from duograd.graph.spec import parse_call, write_call
from duograd.interop.cli import main

MODULE = """
import duograd as dg

layer = dg.nn.Linear(4, 3)

@dg.function
def predict(x, scale=1.0):
    return dg.softmax(layer(x)) * scale

def plain(x):
    return x + 1

class Service:
    @dg.function
    def run(self, x):
        return dg.exp(x)

service = Service()
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A user's module in the current folder."""
    (tmp_path / "warm_app.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "warm_app"
    sys.modules.pop("warm_app", None)


def _step():
    w = dg.ones((4,)).requires_grad_(True)
    calls: list[int] = []

    @dg.function
    def step(x):
        w.grad = None
        (w * x).sum().backward()
        with dg.no_grad():
            w.sub_(w.grad)
        calls.append(1)

    return step, w, calls


def test_warmup_traces_and_has_no_effects():
    step, w, calls = _step()
    assert step.warmup(dg.TensorSpec((4,)))
    assert len(step.variants) == 1
    assert w.grad is None
    assert w.detach().numpy().tolist() == [1, 1, 1, 1]
    assert calls == []
    assert not step.warmup(dg.ones((4,)))
    before = get_backend("cpu").kernel_stats()
    step(dg.ones((4,)))
    after = get_backend("cpu").kernel_stats()
    assert before["compiled"] == after["compiled"]
    assert len(step.variants) == 1
    assert w.detach().numpy().tolist() == [0, 0, 0, 0]


def test_specs_say_what_tensors_are():
    fn = dg.function(lambda x, y: x * y["k"][0])
    fn.warmup(dg.TensorSpec((2, 3), "float64", requires_grad=True), {"k": [dg.TensorSpec((3,), dg.float64)]})
    x = dg.ones((2, 3), dtype=dg.float64).requires_grad_()
    fn(x, {"k": [dg.ones((3,), dtype=dg.float64)]})
    assert len(fn.variants) == 1
    with pytest.raises(dg.errors.ArgumentError, match="negative"):
        dg.TensorSpec((-1,))
    with pytest.raises(dg.errors.DtypeError):
        dg.TensorSpec((1,), "float33")


def test_an_error_while_tracing_comes_out():
    with pytest.raises(dg.errors.ShapeError):
        dg.function(lambda x, y: x + y).warmup(dg.TensorSpec((2,)), dg.TensorSpec((3,)))


def test_calls_are_text_and_back():
    args = dg.ones((2, 3)), 5, [dg.ones((), dtype=dg.int64)], (1.5,), {"a": None}
    text = write_call("m:f", args, {"train": True})
    assert text == "m:f(float32[2, 3], 5, [int64[]], (1.5,), {'a': None}, train=True)"
    target, back, kwargs = parse_call(text)
    assert target == "m:f"
    assert kwargs == {"train": True}
    assert repr(back) == "(float32[2, 3], 5, [int64[]], (1.5,), {'a': None})"
    assert parse_call("m:f") == ("m:f", (), {})
    assert parse_call("m:f(float32[7].grad)")[1][0].requires_grad


@pytest.mark.parametrize(
    "text", ["", "m:f(", "m:f(x)", "m:f(1)(2)", "m:f(float32[a])", "m:f(__import__('os'))"]
)
def test_what_is_no_call_is_an_error(text):
    with pytest.raises(dg.errors.ArgumentError, match="is not a call"):
        parse_call(text)


def test_the_command_warms_functions_methods_and_plain_functions(app, capsys):
    calls = [
        f"{app}:predict(float32[8, 4], scale=2.0)",
        f"{app}:plain(float32[3])",
        f"{app}:service.run(float32[2])",
    ]
    assert main(["warmup", *calls]) == 0
    out = capsys.readouterr().out
    assert "predict" in out
    assert "compiled" in out
    predict = sys.modules[app].predict
    assert len(predict.variants) == 1
    predict(dg.ones((8, 4)), scale=2.0)
    assert len(predict.variants) == 1
    assert len(sys.modules[app].Service.run.variants) == 1


def test_the_command_goes_on_after_a_failure_and_says_so(app, capsys, tmp_path):
    (tmp_path / "calls").write_text(
        f"# remark\nno_grad {app}:predict(float32[8, 4])\n{app}:predict(float32[8, 5])\n{app}:nothing()\nnowhere:f()\n"
    )
    assert main(["warmup", "--file", str(tmp_path / "calls")]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("fix:") >= 2
    assert "has no nothing" in captured.err
    assert "cannot import 'nowhere'" in captured.err
    predict = sys.modules[app].predict
    assert len(predict.variants) == 1
    with dg.no_grad():
        predict(dg.ones((8, 4)))
    assert len(predict.variants) == 1


def test_a_file_that_is_not_there_is_an_error(capsys):
    assert main(["warmup", "--file", "/nowhere/calls"]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_traced_calls_are_recorded_for_the_command(app, tmp_path, monkeypatch, capsys):
    file = tmp_path / "recorded"
    monkeypatch.setattr(spec, "_record_file", str(file))
    monkeypatch.setattr(spec, "_recorded", set())
    sys.path.insert(0, str(tmp_path))
    try:
        module = __import__(app)
    finally:
        sys.path.remove(str(tmp_path))
    module.predict(dg.ones((2, 4)))
    module.predict(dg.ones((2, 4)))
    with dg.no_grad():
        module.predict(np.ones((2, 4), np.float32), scale=3.0)
    module.service.run(dg.ones((2,)))
    dg.function(lambda x: x + 1)(dg.ones((2,)))
    lines = file.read_text().splitlines()
    assert lines[0] == f"{app}:predict(float32[2, 4])"
    assert lines[1] == f"no_grad {app}:predict(float32[2, 4], scale=3.0)"
    assert all(line.startswith("# ") for line in lines[2:])
    assert len(lines) == 4
    sys.modules.pop(app)
    assert main(["warmup", "--file", str(file)]) == 0
    assert len(sys.modules[app].predict.variants) == 2


def test_calls_of_a_script_are_recorded_under_the_name_that_it_is_imported_by(tmp_path):
    (tmp_path / "serve.py").write_text(
        "import duograd as dg\n"
        "model = dg.nn.Linear(3, 2)\n"
        "predict = dg.function(lambda x: model(x))\n"
        "@dg.function\n"
        "def score(x):\n"
        "    return model(x).sum()\n"
        "if __name__ == '__main__':\n"
        "    score(dg.ones(4, 3)), predict(dg.ones(4, 3))\n"
    )
    env = {**os.environ, "DUOGRAD_RECORD_CALLS": str(tmp_path / "calls")}
    python = [sys.executable]
    for command in (["serve.py"], ["-m", "serve"], ["-m", "duograd", "warmup", "--file", "calls"]):
        subprocess.run([*python, *command], cwd=tmp_path, env=env, check=True, capture_output=True)
    lines = (tmp_path / "calls").read_text().splitlines()
    assert lines[:2] == ["serve:score(float32[4, 3])", "serve:predict(float32[4, 3])"]
    assert set(lines) == set(lines[:2])
