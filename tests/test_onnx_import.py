"""Importers against onnx's own cases, forms of older opsets, and what a loaded module keeps."""

import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import duograd as dg  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402


def suite():
    """Every fifth of onnx's node cases that duograd says it can import (the whole suite is run elsewhere)."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    plain = (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.float32, np.float64)
    random = ("bernoulli", "training_dropout", "random", "_expanded", "fp16", "float16", "16")
    for case in sorted(cases, key=lambda c: c.name)[::5]:
        arrays = [x for inputs, outputs in case.data_sets for x in (*inputs, *outputs)]
        known = all(isinstance(x, (np.ndarray, np.generic)) and x.dtype.type in plain for x in arrays)
        if known and not any(word in case.name for word in random):
            yield case


@pytest.fixture(scope="module")
def cases():
    """Not made when tests are collected: onnx takes seconds to compute what its cases expect."""
    return list(suite())


@pytest.fixture(scope="module")
def supported(cases):
    """The cases that must run; unsupported ops are counted, not failed."""
    return [c for c in cases if dg.onnx.check(c.model).ok]


def test_most_of_the_cases_are_supported(cases, supported):
    assert len(cases) > 180
    left = {c.name for c in cases} - {c.name for c in supported}
    assert len(left) < 0.12 * len(cases), sorted(left)


PARTS = 40


@pytest.mark.parametrize("part", range(PARTS))
def test_importer_gives_what_onnx_expects(part, supported):
    from duograd.interop.onnx import backend

    for case in supported[part::PARTS]:
        prepared = backend.prepare(case.model)
        for inputs, outputs in case.data_sets:
            found = prepared.run([np.asarray(x) for x in inputs])
            for got, want in zip(found, outputs, strict=True):
                want = np.asarray(want)
                assert got.dtype == want.dtype, case.name
                rtol, atol = max(case.rtol, 1e-4), max(case.atol, 1e-6)
                np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, err_msg=case.name)


def model_of(
    nodes, opset, initializers=(), inputs=(("x", TensorProto.FLOAT, (2, 3, 4)),), outputs=("y",), **options
):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in initializers],
    )  # fmt: skip
    opsets = [
        helper.make_opsetid("", opset),
        *[helper.make_opsetid(f.domain, 1) for f in options.get("functions", ())],
    ]
    return helper.make_model(graph, opset_imports=opsets, **options)


def data(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


OLD_FORMS = {
    "softmax-13": (13, [("Softmax", ["x"], {"axis": 1})], ()),
    "reduce_sum-11": (11, [("ReduceSum", ["x"], {"axes": [1], "keepdims": 0})], ()),
    "reduce_sum-13": (13, [("ReduceSum", ["x", "a"], {"keepdims": 0})], (("a", np.array([1])),)),
    "reduce_mean-17": (17, [("ReduceMean", ["x"], {"axes": [-1]})], ()),
    "reduce_mean-18": (18, [("ReduceMean", ["x", "a"], {})], (("a", np.array([-1])),)),
    "squeeze-11": (11, [("Unsqueeze", ["x"], {"axes": [0]}), ("Squeeze", ["v0"], {"axes": [0]})], ()),
    "squeeze-13": (13, [("Unsqueeze", ["x", "a"], {}), ("Squeeze", ["v0", "a"], {})], (("a", np.array([0])),)),
    "clip-6": (6, [("Clip", ["x"], {"min": -0.5, "max": 0.25})], ()),
    "clip-11": (11, [("Clip", ["x", "lo"], {})], (("lo", np.float32(-0.1).reshape(())),)),
    "pad-2": (2, [("Pad", ["x"], {"pads": [0, 1, 0, 0, 0, 2], "value": 1.5})], ()),
    "slice-9": (9, [("Slice", ["x"], {"starts": [1], "ends": [3], "axes": [2]})], ()),
    "split-11": (11, [("Split", ["x"], {"axis": 2, "split": [1, 3]}, 2), ("Neg", ["v0_1"], {})], ()),
    "dropout-10": (10, [("Dropout", ["x"], {"ratio": 0.3})], ()),
    "shape-arithmetic": (
        13,
        [("Shape", ["x"], {}), ("Gather", ["v0", "i"], {}), ("Mul", ["v1", "k"], {}),
         ("Concat", ["v2", "m"], {"axis": 0}), ("Reshape", ["x", "v3"], {})],
        (("i", np.array([0])), ("k", np.array([3])), ("m", np.array([-1]))),
    ),
    "constant-of-shape": (
        13, [("Shape", ["x"], {}), ("ConstantOfShape", ["v0"], {"value": numpy_helper.from_array(np.float32([2.0]))}),
             ("Add", ["x", "v1"], {})], ()),
    "range": (
        13, [("Shape", ["x"], {}), ("Gather", ["v0", "i"], {}), ("Range", ["z", "v1", "o"], {}),
             ("Cast", ["v2"], {"to": 1}), ("Mul", ["x", "v3"], {})],
        (("i", np.array(2)), ("z", np.array(0)), ("o", np.array(1)))),
    "gemm": (
        13, [("Flatten", ["x"], {}), ("Gemm", ["v0", "w", "c"], {"alpha": 0.5, "beta": 2.0, "transA": 0, "transB": 1})],
        (("w", data(5, 12)), ("c", data(2, 1)))),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD_FORMS)
def test_form_of_an_opset_is_read_as_that_opset_means_it(name, close):
    opset, calls, initializers = OLD_FORMS[name]
    nodes = []
    for k, call in enumerate(calls):
        op_type, inputs, attrs = call[:3]
        count = call[3] if len(call) > 3 else 1
        last = k == len(calls) - 1
        outputs = ["y"] if last else [f"v{k}"] if count == 1 else [f"v{k}_{j}" for j in range(count)]
        nodes.append(helper.make_node(op_type, inputs, outputs, **attrs))
    model = model_of(nodes, opset, initializers)
    x = data(2, 3, 4)
    want = ReferenceEvaluator(model).run(None, {"x": x})[0]
    loaded = dg.onnx.load(model)
    close(loaded(x).detach().numpy(), want, scale=5)
    close(dg.function(loaded)(dg.tensor(x)).detach().numpy(), want, scale=5)


def test_softmax_before_opset_13_is_over_all_later_axes(close):
    """onnx.reference gives every opset the newest meaning, so the formula stands here."""
    model = dg.onnx.load(model_of([helper.make_node("Softmax", ["x"], ["y"], axis=1)], 11))
    x = data(2, 3, 4)
    e = np.exp(x.reshape(2, 12))
    close(model(x).numpy(), (e / e.sum(axis=1, keepdims=True)).reshape(2, 3, 4).astype("float32"), scale=5)


def test_weights_are_parameters_and_settings_are_not():
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"]),
        helper.make_node("Clip", ["b", "low", "high"], ["c"]),
        helper.make_node("Mul", ["c", "half"], ["d"]),
        helper.make_node("Reshape", ["d", "shape"], ["y"]),
    ]
    values = [
        ("conv.weight", data(4, 3, 1, 1)), ("bn.weight", data(4)), ("bn.bias", data(4)), ("bn.mean", data(4)),
        ("bn.var", data(4) ** 2 + 1), ("low", np.float32(-1)), ("high", np.float32(1)), ("half", np.float32(0.5)),
        ("shape", np.array([2, -1])),
    ]  # fmt: skip
    model = dg.onnx.load(model_of(nodes, 17, [(n, np.asarray(a)) for n, a in values],
                                  inputs=(("x", TensorProto.FLOAT, (2, 3, 4, 4)),)))  # fmt: skip
    assert [n for n, _ in model.named_parameters()] == ["conv.weight", "bn.weight", "bn.bias"]
    assert [n for n, _ in model.named_buffers()] == ["bn.mean", "bn.var"]
    assert not model.training
    model(data(2, 3, 4, 4)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_state_of_a_loaded_model_can_be_loaded_again():
    model = dg.onnx.export(dg.nn.Linear(3, 2).eval(), dg.tensor(data(1, 3)), dynamic={"x": {0: "n"}})
    first, second = dg.onnx.load(model), dg.onnx.load(model)
    with dg.no_grad():
        for p in first.parameters():
            p.mul_(2.0)
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(second(data(4, 3)).detach().numpy(), first(data(4, 3)).detach().numpy())


def test_functions_of_a_model_are_followed(close):
    double = helper.make_function(
        "mine", "Scaled", ["v"], ["w"],
        [helper.make_node("Constant", [], ["k"]), helper.make_node("Mul", ["v", "k"], ["w"])],
        [helper.make_opsetid("", 17)], ["factor"],
    )  # fmt: skip
    attribute = double.node[0].attribute.add()
    attribute.name, attribute.ref_attr_name, attribute.type = (
        "value_float",
        "factor",
        onnx.AttributeProto.FLOAT,
    )
    model = model_of(
        [helper.make_node("Scaled", ["x"], ["y"], domain="mine", factor=3.0)], 17, functions=[double]
    )
    close(dg.onnx.load(model)(data(2, 3, 4)).numpy(), data(2, 3, 4) * np.float32(3))


def test_loop_of_a_model_runs(close):
    """Loop by a count, with a scanned output."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "x"], ["t"]), helper.make_node("Identity", ["going"], ["on"]),
         helper.make_node("Identity", ["t"], ["row"])],
        "body",
        [info("k", TensorProto.INT64, []), info("going", TensorProto.BOOL, []), info("s", TensorProto.FLOAT, None)],
        [info("on", TensorProto.BOOL, []), info("t", TensorProto.FLOAT, None), info("row", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["last", "y"], body=body)]
    model = dg.onnx.load(model_of(nodes, 17, [("n", np.array(3))]))
    x = data(2, 3, 4)
    close(model(x).numpy(), np.stack([x * 2, x * 3, x * 4]), scale=5)


def test_branch_on_a_value_runs_in_both_modes(close):
    """If by a computed condition: a graph ends there, reads the value, and goes on."""
    info = helper.make_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["x"], [name])], name, [], [info(name, TensorProto.FLOAT, None)]
        )
        for name, op in (("then", "Neg"), ("else", "Exp"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["condition"]),
        helper.make_node("If", ["condition"], ["y"], **branches),
    ]
    model = dg.onnx.load(model_of(nodes, 17, [("zero", np.asarray(np.float32(0)))]))
    compiled = dg.function(model)
    for x in (np.ones((2, 3, 4), "float32"), -np.ones((2, 3, 4), "float32")):
        want = -x if x.sum() > 0 else np.exp(x)
        close(model(x).numpy(), want)
        close(compiled(dg.tensor(x)).numpy(), want)
