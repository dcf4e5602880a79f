"""What cannot be read, run or written: one clear OnnxError, with the file, the node or the user's line."""

import os

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import duograd as dg  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

nn = dg.nn
OnnxError = dg.errors.OnnxError


def floats(*shape):
    return dg.tensor(np.random.default_rng(1).uniform(-1, 1, shape).astype("float32"))


def model_of(nodes, inputs=("x",), outputs=("y",), initializers=(), opset=20, functions=()):
    """A model of float inputs [N, 4] and untyped outputs."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [onnx.numpy_helper.from_array(a, n) for n, a in initializers],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], functions=functions)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "m.onnx"
    dg.onnx.export(nn.Linear(4, 2).eval(), floats(3, 4), path, dynamic={"x": {0: "batch"}})
    return path


# ---------------------------------------------------------------- reading


def test_missing_file_is_named(tmp_path):
    with pytest.raises(OnnxError, match=r"none\.onnx"):
        dg.onnx.load(tmp_path / "none.onnx")


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "noise"])
def test_corrupt_file_is_refused_with_its_name(file, damage):
    data = file.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, len(data), dtype=np.uint8).tobytes()
    half = data[: len(data) // 2]
    file.write_bytes({"text": b"not a model at all", "empty": b"", "cut": half, "noise": noise}[damage])
    with pytest.raises(OnnxError, match=r"m\.onnx") as caught:
        dg.onnx.load(file)
    assert "fix:" in str(caught.value)
    report = dg.onnx.check(file)
    assert not report.ok


def test_every_cut_is_an_onnx_error(file):
    """Wherever a copy broke off, reading gives the model or an OnnxError, never another exception."""
    data = file.read_bytes()
    for size in range(0, len(data), 7):
        try:
            dg.onnx.load(data[:size])
        except OnnxError:
            continue


def test_flipped_bytes_are_an_onnx_error_or_a_model(file):
    """Random damage inside the file: what still parses runs or fails as an OnnxError, nothing else."""
    data, rng = file.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[rng.integers(len(data))] = rng.integers(256)
        try:
            dg.onnx.load(bytes(damaged))(floats(2, 4))
        except OnnxError:
            continue


def test_wrong_source_is_refused():
    with pytest.raises(OnnxError, match="int"):
        dg.onnx.load(3)


def test_every_unsupported_node_is_named():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("Twiddle", ["a"], ["b"], name="second", domain="my.own"),
        helper.make_node("Frobnicate", ["b"], ["y"], name="third", domain="my.own"),
    ]
    model = model_of(nodes)
    with pytest.raises(OnnxError) as caught:
        dg.onnx.load(model)
    text = str(caught.value)
    assert "2 unsupported nodes" in text
    assert "node second (Twiddle)" in text
    assert "my.own.Frobnicate" in text
    report = dg.onnx.check(model)
    assert [p.where for p in report.problems] == ["node second", "node third"]
    assert "2 problems in 3 nodes" in str(report)


def test_unknown_attribute_is_a_problem():
    report = dg.onnx.check(model_of([helper.make_node("Relu", ["x"], ["y"], name="r", speed=3)]))
    assert "speed" in report.problems[0].reason


def test_reading_what_nothing_makes_is_refused():
    with pytest.raises(OnnxError, match="'nowhere'"):
        dg.onnx.load(model_of([helper.make_node("Add", ["x", "nowhere"], ["y"], name="sum")]))


def test_reading_what_nothing_makes_is_refused_in_inner_graphs_too():
    branch = lambda name: helper.make_graph(
        [helper.make_node("Add", ["x", name], ["t"])], "b", [], [helper.make_tensor_value_info("t", 1, None)]
    )
    for bad, good in (("then_branch", "else_branch"), ("else_branch", "then_branch")):
        node = helper.make_node(
            "If", ["c"], ["y"], name="choice", **{bad: branch("nowhere"), good: branch("x")}
        )
        model = model_of([helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
                          helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL), node])  # fmt: skip
        with pytest.raises(OnnxError, match=r"choice \(If\)/0 \(Add\) reads 'nowhere'"):
            dg.onnx.load(model)
        assert not dg.onnx.check(model).ok


RELU = [helper.make_node("Relu", ["x"], ["y"])]
SCALER = [helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[1.0], scale=[2.0])]


@pytest.mark.parametrize(
    ("nodes", "opsets", "words"),
    [
        (RELU, [("", 20), ("", 13)], "of opset 20 and of opset 13 of ai.onnx"),
        (RELU, [("", 20), ("ai.onnx", 13)], "of opset 20 and of opset 13 of ai.onnx"),
        (RELU, [("", 999)], "opset 999 of ai.onnx; onnx .* knows [0-9]+ opsets"),
        (SCALER, [("", 20), ("ai.onnx.ml", 99)], "opset 99 of ai.onnx.ml"),
        (SCALER, [("", 20)], "does not say of which opset of ai.onnx.ml it is"),
        (RELU, [("ai.onnx.ml", 3)], "does not say of which opset of ai.onnx it is"),
    ],
)
def test_opsets_that_say_nothing_certain_are_refused(nodes, opsets, words):
    model = model_of(nodes)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*o) for o in opsets)
    with pytest.raises(OnnxError, match=words):
        dg.onnx.load(model)
    assert not dg.onnx.check(model).ok


def test_opsets_of_several_domains_are_each_read_by_their_own():
    nodes = [*RELU, helper.make_node("Scaler", ["y"], ["z"], domain="ai.onnx.ml", offset=[1.0], scale=[2.0])]
    model = model_of(nodes, outputs=("z",))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    model.opset_import.append(helper.make_opsetid("ai.onnx", 20))
    x = floats(2, 4)
    np.testing.assert_allclose(dg.onnx.load(model)(x).numpy(), (np.maximum(x.numpy(), 0) - 1) * 2, rtol=1e-6)


@pytest.mark.parametrize("places", [[0, 7], [-1, 2], [2, 2]])
def test_places_of_a_sparse_tensor_are_checked(places):
    model = model_of([helper.make_node("Mul", ["x", "w"], ["y"])])
    values = onnx.numpy_helper.from_array(np.array([2, 5], np.float32), "w")
    where = onnx.numpy_helper.from_array(np.array(places), "w_places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [4]))
    with pytest.raises(OnnxError, match="a place is"):
        dg.onnx.load(model)


def test_registering_is_checked():
    for args in ((3, "Scale"), ("my.domain", None)):
        with pytest.raises(OnnxError, match="is no name"):
            dg.onnx.register(*args)
    with pytest.raises(OnnxError, match="is no function"):
        dg.onnx.register("my.domain", "Scale")(3)


def test_failing_node_is_named():
    weight = np.zeros((3, 2), "float32")
    model = dg.onnx.load(
        model_of(
            [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")], initializers=[("w", weight)]
        )
    )
    with pytest.raises(OnnxError, match="node product \\(MatMul\\)") as caught:
        model(floats(2, 4))
    assert "3 rows" in str(caught.value)


# ---------------------------------------------------------------- calling


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m(floats(3, 5)), "float32[3, 5]"),
        (lambda m: m(floats(4)), "float[batch, 4]"),
        (lambda m: m(floats(3, 4).to("float64")), "float64"),
        (lambda m: m(np.zeros((2, 4), "int64")), "int64[2, 4]"),
        (lambda m: m(), "misses x"),
        (lambda m: m(floats(3, 4), floats(3, 4)), "2 arguments"),
        (lambda m: m(y=floats(3, 4)), "y="),
        (lambda m: m(floats(3, 4), x=floats(3, 4)), "twice"),
        (lambda m: m("text"), "str"),
    ],
)
def test_wrong_input_is_described(file, call, words):
    with pytest.raises(OnnxError) as caught:
        call(dg.onnx.load(file))
    text = str(caught.value)
    assert words in text
    assert "test_onnx_errors.py:" in text


def test_unequal_sizes_of_one_symbol_are_refused():
    model = dg.onnx.load(model_of([helper.make_node("Add", ["x", "z"], ["y"])], inputs=("x", "z")))
    with pytest.raises(OnnxError, match="the size n is 2 in x and 3 in z"):
        model(floats(2, 4), floats(3, 4))


# ---------------------------------------------------------------- writing


def test_branch_on_a_value_names_the_line():
    def branch(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(OnnxError, match="depends on the inputs") as caught:
        dg.onnx.export(branch, floats(3))
    assert "test_onnx_errors.py:" in str(caught.value)
    assert not dg.onnx.check(branch, floats(3)).ok


def test_branch_on_a_dynamic_size_names_the_line():
    def branch(x):
        return dg.relu(x) if x.shape[0] > 2 else dg.tanh(x)

    with pytest.raises(OnnxError, match="tanh against relu") as caught:
        dg.onnx.export(branch, floats(2, 3), dynamic={"x": {0: "n"}})
    assert "test_onnx_errors.py:" in str(caught.value)
    assert dg.onnx.check(branch, floats(2, 3)).ok


def test_size_that_no_formula_gives_is_refused():
    def first(x):
        return x[: min(x.shape[0], 5)]

    with pytest.raises(OnnxError, match="slice") as caught:
        dg.onnx.export(first, floats(2, 3), dynamic={"x": {0: "n"}})
    assert "test_onnx_errors.py:" in str(caught.value)


def test_array_of_a_dynamic_size_made_in_numpy_is_refused():
    def noise(x):
        return x + dg.tensor(np.random.default_rng(0).normal(size=x.shape[0]).astype("float32"))

    with pytest.raises(OnnxError, match="outside duograd"):
        dg.onnx.export(noise, floats(4), dynamic={"x": {0: "n"}})


def test_change_in_place_is_refused():
    counter = dg.zeros((2,))

    def count(x):
        counter.add_(1.0)
        return x + counter

    with pytest.raises(OnnxError, match="in place"):
        dg.onnx.export(count, floats(2))


def test_function_that_fails_at_other_sizes_says_so():
    def fixed(x):
        return x.reshape(2, 6)

    with pytest.raises(OnnxError, match="another size of n"):
        dg.onnx.export(fixed, floats(3, 4), dynamic={"x": {0: "n"}})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dynamic": {"z": {0: "n"}}}, "inputs are x"),
        ({"dynamic": {"x": {5: "n"}}}, "axis 5"),
        ({"dynamic": {"x": {0: "n", 1: "n"}}}, "'n' is 2 and 3"),
        ({"opset": 9}, "opset=9"),
        ({"opset": 999}, "opset=999"),
        ({"input_names": ["a", "b"]}, "2 names for 1 tensors"),
        ({"output_names": []}, None),
        ({"output_names": ["a", "b"]}, "2 names for 1 outputs"),
    ],
)
def test_wrong_option_is_described(options, words):
    if words is None:
        assert dg.onnx.export(dg.relu, floats(2, 3), **options).graph.output[0].name == "output"
        return
    with pytest.raises(OnnxError) as caught:
        dg.onnx.export(dg.relu, floats(2, 3), **options)
    assert words in str(caught.value)


def test_result_without_tensors_is_refused():
    with pytest.raises(OnnxError, match="no tensor"):
        dg.onnx.export(lambda x: None, floats(2))
    with pytest.raises(OnnxError, match="int"):
        dg.onnx.export(lambda x: 3, floats(2))


def test_training_mode_warns_at_the_line_of_the_call():
    with pytest.warns(UserWarning, match="training mode") as found:
        dg.onnx.export(nn.Linear(4, 2), floats(1, 4))
    assert [w.filename for w in found] == [__file__]


def test_mismatch_names_the_first_node_that_differs(monkeypatch):
    """A wrong rule is caught by the export itself, at its op and line."""
    from duograd.core.op import REGISTRY

    monkeypatch.setattr(REGISTRY["tanh"], "onnx", "Sigmoid")

    def model(x):
        y = dg.relu(x) + 1
        z = dg.tanh(y)
        return dg.exp(z)

    with pytest.raises(OnnxError, match="tanh_0/Sigmoid") as caught:
        dg.onnx.export(model, floats(3, 4))
    assert "stands for tanh" in str(caught.value)
    assert "test_onnx_errors.py:" in str(caught.value)


def test_failed_export_leaves_the_old_file(file):
    before = file.read_bytes()
    with pytest.raises(OnnxError):
        dg.onnx.export(lambda x: dg.nextafter(x, x + 1), floats(3), file, opset=20)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["m.onnx"]


def test_killed_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        dg.onnx.export(dg.relu, floats(3), file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["m.onnx"]


def test_model_above_two_gigabytes_needs_a_file(monkeypatch):
    from duograd.interop.onnx import files

    monkeypatch.setattr(files, "MAX_BYTES", 2**20 + 100)
    monkeypatch.setattr(files, "EXTERNAL_FROM", 100)
    with pytest.raises(OnnxError, match="pass a path"):
        dg.onnx.export(nn.Linear(64, 64).eval(), floats(1, 64))
    with pytest.raises(OnnxError, match="less than 2 GiB"):
        dg.onnx.export(nn.Linear(64, 64).eval(), floats(1, 64), external_data=False)


def test_large_weights_go_to_a_file_beside_the_model(tmp_path, close):
    model, x, path = (
        nn.Sequential(nn.Linear(64, 40), nn.Linear(40, 3)).eval(),
        floats(2, 64),
        tmp_path / "m.onnx",
    )
    want = model(x).detach().numpy()
    for _ in range(2):  # the second time over the first
        proto = dg.onnx.export(model, x, path, external_data=True)
        assert not any(t.raw_data for t in proto.graph.initializer if t.dims[0] == 64)
        assert len(list(tmp_path.iterdir())) == 2
        loaded = dg.onnx.load(path)
        close(loaded(x).detach().numpy(), want, scale=5)
        assert [n for n, _ in loaded.named_parameters()] == [n for n, _ in model.named_parameters()]
        onnx.checker.check_model(str(path), full_check=True)
    before = path.read_bytes()
    with dg.no_grad():
        model[0].weight.add_(1.0)
    dg.onnx.export(model, x, path, external_data=True)
    assert path.read_bytes() != before  # another check sum
    assert len(list(tmp_path.iterdir())) == 2
    close(dg.onnx.load(path)(x).detach().numpy(), model(x).detach().numpy(), scale=5)
    dg.onnx.export(model, x, path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_killed_write_of_large_weights_leaves_the_old_model(tmp_path, monkeypatch, close):
    model, x, path = nn.Linear(64, 40).eval(), floats(2, 64), tmp_path / "m.onnx"
    dg.onnx.export(model, x, path, external_data=True)
    want, before = model(x).detach().numpy(), sorted(p.name for p in tmp_path.iterdir())
    with dg.no_grad():
        model.weight.add_(1.0)
    replace, left = os.replace, [0]

    def die(*args):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(*args)

    monkeypatch.setattr(os, "replace", die)
    for renamed in (0, 1):
        left[0] = renamed
        with pytest.raises(KeyboardInterrupt):
            dg.onnx.export(model, x, path, external_data=True)
        assert sorted(p.name for p in tmp_path.iterdir()) == before
        close(dg.onnx.load(path)(x).detach().numpy(), want, scale=5)


def test_dynamic_axes_may_be_listed_and_are_checked():
    double = lambda x: x * 2
    for dynamic in ({"x": {0: "n"}}, {"x": ["n", None]}):
        shape = dg.onnx.export(double, floats(2, 3), dynamic=dynamic).graph.output[0].type.tensor_type.shape
        assert [d.dim_param or d.dim_value for d in shape.dim] == ["n", 3]
    for dynamic in (True, {"x": True}, {"x": {0: 3}}, {"x": {"n": 0}}):
        with pytest.raises(OnnxError, match="dynamic"):
            dg.onnx.export(double, floats(2, 3), dynamic=dynamic)
    with pytest.raises(OnnxError, match="the sizes of outputs follow"):
        dg.onnx.export(double, floats(2, 3), dynamic={"x": {0: "n"}, "output": {0: "n"}})


def test_a_tensor_given_twice_is_two_inputs():
    x = floats(2)
    assert [v.name for v in dg.onnx.export(lambda a, b: a + b, (x, x)).graph.input] == ["a", "b"]


def test_what_cannot_be_exported_is_refused_at_once(tmp_path):
    with pytest.raises(OnnxError, match="no folder"):
        dg.onnx.export(dg.relu, floats(2), tmp_path / "none" / "m.onnx")
    with pytest.raises(OnnxError, match="neither module nor function"):
        dg.onnx.export(dg.nn.ReLU, floats(2))
    with pytest.raises(OnnxError, match="no example arguments"):
        dg.onnx.export(dg.relu, None)
    with pytest.raises(OnnxError, match=r"\(x, scale=1.0\)"):
        dg.onnx.export(lambda x, scale=1.0: x * scale, (floats(2),) * 3)
    with (
        pytest.raises(OnnxError, match="num_batches_tracked"),
        pytest.warns(UserWarning, match="training mode"),
    ):
        dg.onnx.export(dg.nn.BatchNorm1d(2), floats(3, 2))


def test_draws_go_out_and_come_in():
    def noisy(x):
        return x + dg.randn(*x.shape), dg.randint(2, 5, (4,)), dg.randperm(6)

    with pytest.warns(UserWarning, match="random numbers") as found:
        model = dg.onnx.export(noisy, floats(2, 3), dynamic={"x": {0: "n"}})
    assert [w.filename for w in found] == [__file__]
    a, b, c = dg.onnx.load(model)(floats(5, 3))
    assert a.shape == (5, 3)
    assert set(b.numpy()) <= {2, 3, 4}
    assert sorted(c.numpy()) == list(range(6))


def test_check_lists_every_op_that_cannot_go_out():
    def two(x):
        a = dg.nextafter(x, x + 1)
        return a, dg.nextafter(a, x)

    report = dg.onnx.check(two, floats(3), opset=20)
    assert [(p.op, p.opset) for p in report.problems] == [("nextafter", 26), ("nextafter", 26)]
    assert len({p.where for p in report.problems}) == 2
    assert all("test_onnx_errors.py:" in p.where for p in report.problems)
    assert dg.onnx.check(dg.relu, floats(3)).ok
    assert str(dg.onnx.check(dg.relu, floats(3))) == "relu: ok, 1 nodes"


def test_check_takes_training_steps():
    model = nn.Linear(4, 2)
    opt = dg.optim.SGD(model.parameters(), lr=0.1)

    def step(x):
        opt.zero_grad()
        loss = model(x).sum()
        loss.backward()
        opt.step()
        return loss

    assert dg.onnx.check(step, (floats(3, 4),), training=True).ok
    report = dg.onnx.check(step, (floats(3, 4),))
    assert not report.ok
    assert "training=True" in str(report)


def test_import_of_duograd_does_not_load_onnx():
    import subprocess
    import sys

    code = "import sys, duograd; print('onnx' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    )


def test_check_says_how_unknown_ops_are_made_known():
    node = helper.make_node
    nodes = [node("Fancy", ["x"], ["a"], "special", domain="com.acme"), node("Sofmax", ["a"], ["y"])]
    value = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.acme", 2)]
    report = str(dg.onnx.check(helper.make_model(graph, opset_imports=opsets)))
    assert "2 problems in 2 nodes" in report
    assert (
        'node special: Fancy: com.acme.Fancy is not known: say what it does under @dg.onnx.register("com.acme"'
        in report
    )
    assert "ONNX has no op Sofmax" in report
    assert "Softmax" in report
    assert "1 problem\n  the file: " in str(dg.onnx.check(b"no model"))
