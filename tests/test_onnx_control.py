"""Control flow in models: `cond`, `while_loop` and `scan` go out as If, Loop and Scan, nested too."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import duograd as dg  # noqa: E402
from duograd.interop.onnx.evaluator import evaluator  # noqa: E402

WEIGHT = dg.tensor(np.random.default_rng(1).normal(size=(3, 3)).astype("float32") * 0.3, requires_grad=True)


def step(h, row):
    h = dg.tanh(h @ WEIGHT + row)
    return h, h * 2


CASES = {
    "If": lambda x: dg.cond(x.sum() > 0, lambda x: x @ WEIGHT, lambda x: -x * 2, x),
    "If of inputs": lambda x: dg.cond(x.sum() > 0, lambda: x, lambda: x + 0),
    "Loop": lambda x: dg.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] @ WEIGHT + x), (0, x)),
    "Loop by value": lambda x: dg.while_loop(lambda v: (v * v).sum() < 50, lambda v: v * 1.5 + 0.1, x),
    "Scan": lambda x: dg.scan(step, dg.zeros((3,)), x),
    "Scan back": lambda x: dg.scan(lambda h, r: (h + r, h * r), dg.zeros((3,)), x, reverse=True),
    "Scan with If": lambda x: dg.scan(
        lambda h, r: (dg.cond(r.sum() > 0, lambda: h + r, lambda: h - r), dg.softmax(r, axis=0)),
        dg.zeros((3,)),
        x,
    ),
}


def rows(n, sign=1):
    return (np.random.default_rng(n).normal(size=(n, 3)) * sign).astype("float32")


def flat(result):
    return [y for x in result for y in flat(x)] if isinstance(result, tuple) else [result.detach().numpy()]


@pytest.mark.parametrize("name", CASES)
def test_control_flow_goes_out(name, close):
    fn = CASES[name]
    proto = dg.onnx.export(fn, dg.tensor(rows(4)), dynamic={"x": {0: "n"}})
    assert name.split()[0] in {n.op_type for n in proto.graph.node}
    run, loaded = evaluator(proto), dg.onnx.load(proto)
    for x in (rows(4), rows(4, -1), rows(2), rows(7)):
        want = flat(fn(dg.tensor(x)))
        for got, y in zip(run.run(None, {"x": x}), want, strict=True):
            close(got, y, scale=5)
        for got, y in zip(flat(loaded(dg.tensor(x))), want, strict=True):
            close(got, y, scale=5)


def test_what_a_function_inside_reads_keeps_its_name():
    proto = dg.onnx.export(CASES["Scan"], dg.tensor(rows(4)))
    assert [t.name for t in proto.graph.initializer] == ["WEIGHT"]


def test_fault_inside_a_loop_is_found(monkeypatch):
    from duograd.core.op import REGISTRY

    monkeypatch.setattr(REGISTRY["tanh"], "onnx", "Sigmoid")
    with pytest.raises(dg.errors.OnnxError, match="stands for scan") as caught:
        dg.onnx.export(CASES["Scan"], dg.tensor(rows(4)))
    assert "test_onnx_control.py:" in str(caught.value)


def products(x):
    return dg.jvp(lambda t: dg.scan(lambda c, r: (c * r, None), t[0], t)[0], (x,), (x * 0 + 1,))[1]


@pytest.mark.parametrize("f", [products, lambda x: (lambda y: y[y > 0] * 2)(products(x))])
def test_what_overflows_in_a_loop_of_16_bits_is_told_from_a_wrong_result(f, monkeypatch):
    """onnxruntime rounds between turns alone: NaN may be an infinity there, and other elements are picked."""
    from duograd.core.op import REGISTRY

    x = dg.tensor(np.random.default_rng(0).uniform(-9, 9, (7, 130))).to(dg.float16)
    with pytest.warns(UserWarning, match="could not be compared"):
        dg.onnx.export(f, x, dynamic={"x": {0: "n", 1: "m"}})
    monkeypatch.setattr(REGISTRY["multiply"], "onnx", lambda o, x, y: o.Mul(o.Mul(x, y), o.const(1.25, x)))
    with pytest.raises(dg.errors.OnnxError, match="stands for scan"):
        dg.onnx.export(f, x, dynamic={"x": {0: "n", 1: "m"}})


# ---------------------------------------------------------------- what comes in

FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info


def model_of(nodes, inputs, outputs):
    tensor = lambda name, a: onnx.numpy_helper.from_array(np.asarray(a), name)
    initializers = [tensor("W", WEIGHT.detach().numpy()), tensor("zero", np.float32(0)), tensor("five", np.int64(5)),
                    tensor("limit", np.float32(4))]  # fmt: skip
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)


def graph_of(nodes, inputs, outputs):
    return onnx.helper.make_graph(nodes, "inner", inputs, outputs)


X, Y, ROWS = info("x", FLOAT, ["n", 3]), info("y", FLOAT, ["n", 3]), info("rows", FLOAT, [None])
STEP = [node("MatMul", ["h", "W"], ["m"]), node("Add", ["m", "x"], ["a"]), node("Tanh", ["a"], ["h_new"])]
GOING = [node("ReduceSum", ["h_new"], ["s"], keepdims=0), node("Cast", ["i"], ["turn"], to=FLOAT),
         node("Add", ["s", "turn"], ["q"]), node("Less", ["q", "limit"], ["go_on"])]  # fmt: skip
MEAN = [node("ReduceMean", ["h_new"], ["row"], keepdims=0)]


def if_model():
    then = graph_of([node("MatMul", ["x", "W"], ["t"])], [], [info("t", FLOAT, ["n", 3])])
    other = graph_of([node("Neg", ["x"], ["e"])], [], [info("e", FLOAT, ["n", 3])])
    nodes = [node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["c"]),
             node("If", ["c"], ["y"], then_branch=then, else_branch=other)]  # fmt: skip
    return model_of(nodes, [X], [Y])


def loop_model(trips, condition, with_rows):
    nodes = [
        *STEP,
        *(GOING if condition else [node("Identity", ["go"], ["go_on"])]),
        *(MEAN if with_rows else []),
    ]
    outs = [info("go_on", BOOL, []), info("h_new", FLOAT, ["n", 3])] + [info("row", FLOAT, [])] * with_rows
    body = graph_of(nodes, [info("i", INT64, []), info("go", BOOL, []), info("h", FLOAT, ["n", 3])], outs)
    names = ["y", "rows"][: 1 + with_rows]
    inputs = [X, info("trips", INT64, [])] if trips == "trips" else [X]
    return model_of([node("Loop", [trips, "", "x"], names, body=body)], inputs, [Y, ROWS][: 1 + with_rows])


def scan_model():
    body = graph_of(
        [node("Add", ["h", "r"], ["h_new"]), node("Mul", ["h_new", "r"], ["o"])],
        [info("h", FLOAT, [3]), info("r", FLOAT, [3])],
        [info("h_new", FLOAT, [3]), info("o", FLOAT, [3])],
    )
    scan = node("Scan", ["start", "moved"], ["last", "y"], body=body, num_scan_inputs=1, scan_input_axes=[1],
                scan_input_directions=[1], scan_output_axes=[1])  # fmt: skip
    nodes = [node("MatMul", ["x", "W"], ["m"]), node("Transpose", ["m"], ["moved"]),
             node("ReduceSum", ["m", "axis"], ["start"], keepdims=0), scan]  # fmt: skip
    made = model_of(nodes, [X], [info("last", FLOAT, [3]), info("y", FLOAT, [3, "n"])])
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "axis"))
    return made


W = WEIGHT.detach().numpy()


def branched(x):
    return [x @ W if x.sum() > 0 else -x]


def looped(x, trips, limit, with_rows):
    h, means = x, []
    for i in range(trips):
        h = np.tanh(h @ W + x)
        means.append(h.mean())
        if not h.sum() + i < limit:
            break
    return [h, np.array(means, "float32")][: 1 + with_rows]


def walked(x):
    h, out = (x @ W).sum(0), []
    for r in (x @ W)[::-1]:
        h = h + r
        out.append(h * r)
    return [h, np.stack(out, axis=1)]


#: what comes in (a Loop: its count, whether it has a condition and rows), and the ops that it goes out as again
IMPORTED = {
    "If": (None, {"If"}),
    "Scan": (None, {"Scan"}),
    "Loop, counted": (("five", False, False), {"Scan"}),
    "Loop, counted, rows": (("five", False, True), {"Scan"}),
    "Loop, count given": (("trips", False, False), {"Loop"}),
    "Loop, count given, rows": (("trips", False, True), {"Scan"}),
    "Loop, condition": (("", True, False), {"Loop"}),
    "Loop, both, rows": (("five", True, True), {"Loop", "Scan"}),
}


def incoming(name):
    """The model, and its outputs by NumPy."""
    settings = IMPORTED[name][0]
    if settings is None:
        return (if_model(), branched) if name == "If" else (scan_model(), walked)
    count, condition, with_rows = settings
    most = {"five": lambda x: 5, "trips": len, "": lambda x: 100}[count]
    limit = 4 if condition else np.inf
    return loop_model(*settings), lambda x: looped(x, most(x), limit, with_rows)


def feeds(loaded, n, sign=1):
    trips = {"trips": dg.tensor(np.array(n, np.int64))} if "trips" in loaded.input_names else {}
    return {"x": dg.tensor(rows(n, sign) * np.float32(0.3)), **trips}


def listed(result):
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("name", IMPORTED)
def test_control_flow_comes_in(name, close):
    """Both modes are right, the graph stays whole, gradients are equal, and the model goes out again."""
    model, wants = incoming(name)
    loaded = dg.onnx.load(model)
    graph = dg.function(loaded)
    for args in (feeds(loaded, 4), feeds(loaded, 4, -1), feeds(loaded, 2)):
        want = wants(args["x"].numpy())
        for a, b, y in zip(listed(loaded(**args)), listed(graph(**args)), want, strict=True):
            close(a.detach().numpy(), y, scale=5)
            assert a.shape == y.shape
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    if "rows" not in name or name == "Loop, counted, rows":  # else the number of rows is read
        assert [len(v.segments()) for v in graph.variants] == [1, 1]

    def step(**args):
        sum(y.sum() for y in listed(loaded(**args))).backward()

    weight, found = dict(loaded.named_parameters())["W"], []
    args = feeds(loaded, 4, -1)
    for run in (step, dg.function(step)):
        weight.grad = None
        run(**args)
        found.append(weight.grad.numpy().copy())
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0]).max() > 0
    proto = dg.onnx.export(loaded, args, dynamic={"x": {0: "n"}})
    assert {n.op_type for n in proto.graph.node} & {"If", "Loop", "Scan"} == IMPORTED[name][1]
    assert [t.name for t in proto.graph.initializer] == ["W"]


def uneven_if():
    """Branches of different shapes."""
    then = graph_of([node("MatMul", ["x", "W"], ["t"])], [], [info("t", FLOAT, ["n", 3])])
    other = graph_of([node("ReduceSum", ["x"], ["e"], keepdims=0)], [], [info("e", FLOAT, [])])
    nodes = [node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["c"]),
             node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)]  # fmt: skip
    return model_of(nodes, [X], [info("y", FLOAT, None)])


def growing_loop():
    """A state that gets longer from turn to turn."""
    body = graph_of([node("Concat", ["h", "x"], ["h_new"], axis=0), node("Identity", ["go"], ["go_on"])],
                    [info("i", INT64, []), info("go", BOOL, []), info("h", FLOAT, [None, 3])],
                    [info("go_on", BOOL, []), info("h_new", FLOAT, [None, 3])])  # fmt: skip
    nodes = [node("Loop", ["trips", "", "x"], ["y"], name="grow", body=body)]
    return model_of(nodes, [X, info("trips", INT64, [])], [info("y", FLOAT, [None, 3])])


GROWN = lambda x: np.concatenate([x] * (len(x) + 1))
UNEVEN = lambda x: x @ W if x.sum() > 0 else x.sum()


@pytest.mark.parametrize(
    ("make", "wants", "words"),
    [(uneven_if, UNEVEN, ("choice", "return")), (growing_loop, GROWN, ("grow", "carry"))],
)
def test_what_must_be_a_walk_runs_and_says_why_it_does_not_go_out(make, wants, words, close):
    loaded = dg.onnx.load(make())
    graph = dg.function(loaded)
    for args in (feeds(loaded, 2), feeds(loaded, 3, -1)):
        for run in (loaded, graph):
            close(run(**args).detach().numpy(), wants(args["x"].numpy()), scale=5)
    with pytest.raises(dg.errors.OnnxError, match="runs in Python") as caught:
        dg.onnx.export(loaded, feeds(loaded, 2))
    assert all(word in str(caught.value) for word in words)


def test_sequences_of_a_counted_loop_go_out_unrolled(close):
    row = lambda name: onnx.helper.make_tensor_sequence_value_info(name, FLOAT, None)
    body = graph_of([node("Mul", ["x", "limit"], ["scaled"]), node("SequenceInsert", ["s", "scaled"], ["s_new"]),
                     node("Identity", ["go"], ["go_on"])],
                    [info("i", INT64, []), info("go", BOOL, []),
                     row("s")],
                    [info("go_on", BOOL, []), row("s_new")])  # fmt: skip
    nodes = [node("SequenceEmpty", [], ["empty"]), node("Loop", ["five", "", "empty"], ["all"], body=body),
             node("ConcatFromSequence", ["all"], ["y"], axis=0)]  # fmt: skip
    model = model_of(nodes, [X], [info("y", FLOAT, [None, 3])])
    loaded = dg.onnx.load(model)
    args = feeds(loaded, 2)
    graph = dg.function(loaded)
    for run in (loaded, graph):
        close(run(**args).numpy(), np.concatenate([args["x"].numpy() * 4] * 5))
    assert [len(v.segments()) for v in graph.variants] == [1]
    proto = dg.onnx.export(loaded, args, dynamic={"x": {0: "n"}})
    assert "Loop" not in {n.op_type for n in proto.graph.node}


def test_sequences_of_known_length_leave_a_graph_whole(close):
    two = onnx.numpy_helper.from_array(np.array(2, np.int64), "two")
    nodes = [node("Constant", [], ["two"], value=two), node("SplitToSequence", ["x"], ["s"], axis=1),
             node("SequenceAt", ["s", "two"], ["last"]), node("Mul", ["last", "limit"], ["scaled"]),
             node("SequenceInsert", ["s", "scaled"], ["longer"]), node("SequenceErase", ["longer", "two"], ["short"]),
             node("SequenceLength", ["short"], ["n"]), node("ConcatFromSequence", ["short"], ["all"], axis=1),
             node("Cast", ["n"], ["count"], to=FLOAT), node("Mul", ["all", "count"], ["y"])]  # fmt: skip
    loaded = dg.onnx.load(model_of(nodes, [X], [info("y", FLOAT, ["n", 3])]))
    graph = dg.function(loaded)
    for n in (2, 4):
        x = rows(n)
        want = np.concatenate([x[:, :2], x[:, 2:] * 4], axis=1) * 3
        for run in (loaded, graph):
            close(run(dg.tensor(x)).detach().numpy(), want)
    assert [len(v.segments()) for v in graph.variants] == [1, 1]
    proto = dg.onnx.export(loaded, dg.tensor(rows(2)), dynamic={"x": {0: "n"}})
    assert not [n.op_type for n in proto.graph.node if "Sequence" in n.op_type]


def test_a_loop_without_end_is_refused():
    body = graph_of([node("Identity", ["go"], ["go_on"]), node("Neg", ["h"], ["h_new"])],
                    [info("i", INT64, []), info("go", BOOL, []), info("h", FLOAT, [])],
                    [info("go_on", BOOL, []), info("h_new", FLOAT, [])])  # fmt: skip
    model = model_of([node("Loop", ["", "", "x"], ["y"], body=body)], [X], [Y])
    with pytest.raises(dg.errors.OnnxError, match="always true"):
        dg.onnx.load(model)(dg.tensor(rows(2)))


@pytest.mark.filterwarnings("ignore:onnxruntime")  # which infers sizes of its own for the rows
@pytest.mark.parametrize("n", [0, 2])
def test_a_loaded_loop_with_a_branch_is_a_graph(n):
    def fn(x):
        body = lambda c, t: (dg.cond(c.sum() > 0, lambda a: a - t, lambda a: a + t, c), c)
        return dg.scan(body, x.sum(axis=0), x)[1]

    x = dg.arange(3 * n).to(dg.float32).reshape(3, n)
    loaded = dg.onnx.load(dg.onnx.export(fn, x))
    want = fn(x).numpy()
    for run in (loaded, dg.function(loaded)):
        np.testing.assert_array_equal(run(x).numpy(), want)
