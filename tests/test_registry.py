"""Completeness: every op has what promise 3 of the design asks for."""

import duograd as dg
import pytest
from duograd.backends.cpu.device import CpuBackend
from duograd.core.explain import gradient
from duograd.core.op import REGISTRY

OPS = sorted(REGISTRY)


@pytest.mark.parametrize("name", OPS)
def test_op_is_complete(name):
    op = REGISTRY[name]
    assert op.doc, "a docstring"
    assert op.samples or name == "to_device" or name.startswith(("max_pool_x_grad", "picked", "matches")), (
        "samples"
    )
    assert gradient(op) != "missing", "a gradient rule or the reason for none"
    derived = op.kind in ("composite", "pointwise")  # from the ops it calls, from its scalar body
    assert op.onnx or op.no_onnx or op.parts or derived, "an ONNX mapping or the reason for none"
    if op.kind == "primitive":
        has = (
            op.reduction or op.is_view or op.lower_rule or CpuBackend().primitive(name) or name == "to_device"
        )
        assert has, "a CPU kernel"
        assert op.type_rule or op.reduction, "a type rule"


@pytest.mark.parametrize("name", OPS)
def test_explain_tells_the_story(name):
    text = dg.explain(name)
    for part in ("gradient:", "kernel on cpu:", "ONNX:"):
        assert part in text
    assert len(text) < 20_000


def test_explain_of_an_unknown_name_suggests():
    with pytest.raises(dg.errors.ArgumentError, match="did you mean"):
        dg.explain("softmix")


def test_a_name_is_declared_once():
    from duograd.core.op import pointwise

    def add(x):
        return x

    with pytest.raises(ValueError, match="declared twice"):
        pointwise(add)
