"""Cases of onnx's own suite, one or more for every kind of importer, in both modes; and who does the work.

The whole suite is run from outside, on `duograd.interop.onnx.backend` (docs/onnx.md says how and what fails).
"""

import ast
import warnings
from pathlib import Path

import duograd as dg
import numpy as np
import onnx
import pytest
from duograd.bench import onnx_zoo
from duograd.core.errors import OnnxError
from duograd.interop.onnx import backend, table
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

NAMES = """
cast_FLOAT_to_FLOAT8E4M3FN cast_FLOAT16_to_FLOAT8E5M2FNUZ cast_no_saturate_FLOAT_to_FLOAT8E4M3FNUZ
cast_FLOAT8E5M2_to_FLOAT cast_e8m0_FLOAT_to_FLOAT8E8M0 cast_FLOAT_to_FLOAT4E2M1 cast_FLOAT_to_INT4 cast_UINT2_to_UINT8
castlike_FLOAT_to_FLOAT8E5M2 bitcast_float32_to_int32 quantizelinear_e4m3fn quantizelinear_int4
dequantizelinear_float4e2m1 dequantizelinear_uint2 equal_string_broadcast string_concat_broadcasting
string_split_maxsplit regex_full_match_email_domain strnormalizer_export_monday_casesensintive_upper
tfidfvectorizer_tf_uniandbigrams_skip5 ai_onnx_ml_label_encoder_string_int ai_onnx_ml_label_encoder_tensor_mapping
ai_onnx_ml_array_feature_extractor ai_onnx_ml_binarizer ai_onnx_ml_tree_ensemble_set_membership
ai_onnx_ml_tree_ensemble_single_tree adam_multiple adagrad nesterov_momentum dft_axis flexattention_gqa
causal_conv_with_state_silu
dft_rfft stft_with_window melweightmatrix nonmaxsuppression_two_classes nonmaxsuppression_center_point_box_format
roialign_aligned_true roialign_mode_max tensorscatter_circular image_decoder_decode_png_rgb scan_sum
loop13_seq if_opt sequence_insert_at_front optional_get_element_sequence
sequence_map_add_2_sequences compress_1 nonzero_example unique_sorted_with_axis lstm_with_peepholes
""".split()


@pytest.fixture(scope="module")
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {c.name[5:]: c for c in load_model_tests(kind="node")}


def low_bits(x, y):
    """The expectation y of a cast to int4 with our numbers where ONNX leaves open what comes (a float outside of the
    range): onnx computes them by ml_dtypes, whose 0.6 takes the low bits, as we do, and whose 0.7 gives 0.
    """
    whole = np.trunc(x).astype(np.int64)
    inside = (whole >= -8) & (whole <= 7)
    np.testing.assert_array_equal(y.astype(np.int64)[inside], whole[inside])
    assert not inside.all()
    return ((whole + 8) % 16 - 8).astype(np.int8).astype(y.dtype)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", NAMES)
def test_case_of_onnx_gives_what_onnx_expects(name, mode, cases, monkeypatch):
    monkeypatch.setenv("DUOGRAD_MODE", mode)
    case = cases[name]
    prepared = backend.prepare(case.model)
    for inputs, outputs in case.data_sets:
        outputs = [numpy_helper.to_array(y) if isinstance(y, TensorProto) else y for y in outputs]
        if name == "cast_FLOAT_to_INT4":
            outputs = [low_bits(numpy_helper.to_array(inputs[0]), outputs[0])]
        Runner.assert_similar_outputs(outputs, prepared.run(inputs), case.rtol, case.atol)


def test_no_importer_hands_its_work_to_another_runtime():
    folder = Path(table.__file__).parent
    for path in folder.glob("*.py"):
        if path.name in ("verify.py", "evaluator.py"):  # the proof of exported models
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.startswith(("onnx.reference", "onnxruntime")) for n in names), path.name


def test_host_ops_are_documented():
    table._load()
    page = (Path(dg.__file__).parent / "docs" / "onnx.md").read_text()
    for (_, op), row in table.TABLE.items():
        for adapter in row:
            if adapter.library:
                assert f"{op} ({adapter.library})" in page


def test_every_op_of_onnx_has_an_importer_or_a_definition():
    for schema in onnx.defs.get_all_schemas_with_history():
        if (
            schema.domain in ("", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")
            and not schema.deprecated
        ):
            has = table.find(schema.domain, schema.name, schema.since_version).adapter is not None
            body = schema.has_function or schema.has_context_dependent_function
            assert has or body, (schema.domain, schema.name, schema.since_version)


def test_gradient_node_differentiates_a_part_of_the_graph():
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["s"]),
        helper.make_node("Mul", ["s", "w"], ["y"]),
        helper.make_node(
            "Gradient", ["x", "w"], ["dx", "dw"], domain="ai.onnx.preview.training", xs=["x", "w"], y="y"
        ),
    ]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
    graph = helper.make_graph(nodes, "g", [value("x"), value("w")], [value("y"), value("dx"), value("dw")])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.preview.training", 1)]
    model = dg.onnx.load(helper.make_model(graph, opset_imports=opsets))
    x, w = np.float32([2, 3]), np.float32([5, 7])
    for fn in (model, dg.function(model)):
        with dg.no_grad():
            y, dx, dw = (v.numpy() for v in fn(dg.tensor(x), dg.tensor(w)))
        for got, want in ((y, x * x * w), (dx, 2 * x * w), (dw, x * x)):
            np.testing.assert_array_equal(got, want)


# ---------------------------------------------------------------- codes


@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "float8_e5m2fnuz", "float6_e2m3fn", "float4_e2m1fn", "int4", "uint2"]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_narrow_numbers_round_as_ml_dtypes_rounds(name, dtype):
    from duograd.interop.onnx.coded import NARROW

    book = NARROW[name]
    rng = np.random.default_rng(0)
    exact = book._values[np.isfinite(book._values)]
    with np.errstate(over="ignore"):
        x = np.concatenate(
            [exact, (exact[1:] + exact[:-1]) / 2, rng.normal(size=500) * exact.max() / 3]
        ).astype(dtype)
    if book.kind != "float":
        x = np.clip(np.trunc(x), *book.limits).astype(dtype)
    else:
        x = np.clip(x, *book.limits)
    found = book.encode(dg.tensor(x)).numpy()
    np.testing.assert_array_equal(found.astype(np.float32), x.astype(book.np).astype(np.float32))
    np.testing.assert_array_equal(
        book.decode(book.encode(dg.tensor(x)).codes, dg.float32).numpy(), found.astype("f")
    )


def test_texts_that_depend_on_numbers_stay_in_one_graph():
    """A class label that is a text is a code until somebody reads it."""
    node = helper.make_node("LabelEncoder", ["k"], ["y"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2],
                            values_strings=["cat", "dog", "ant"])  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("ArgMax", ["x"], ["k"], axis=1, keepdims=0), node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, ["n"])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    fn = dg.function(dg.onnx.load(helper.make_model(graph, opset_imports=opsets)))
    for k in range(3):
        assert (
            fn(dg.tensor(np.roll(np.eye(3, dtype="float32"), k, 1))).numpy().tolist()
            == np.roll(["cat", "dog", "ant"], -k).tolist()
        )
    assert "1 variant" in fn.explain().splitlines()[0]
    assert "paths" not in fn.explain()


# ---------------------------------------------------------------- ops of others, files beside a model


def test_op_of_another_domain_is_registered():
    @dg.onnx.register("duograd.test", "Scale")
    def scale(x, shift=None, *, factor=1.0):
        return x * factor if shift is None else x * factor + shift

    graph = helper.make_graph(
        [helper.make_node("Scale", ["x"], ["y"], domain="duograd.test", factor=3.0)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("duograd.test", 1)]
    model = dg.onnx.load(helper.make_model(graph, opset_imports=opsets))
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    model(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3])
    with pytest.raises(OnnxError, match="no inputs size"):
        dg.onnx.register("duograd.test", "Other", host=("size",))(lambda x: x)


def product_with(array):
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", array.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [numpy_helper.from_array(array, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.fixture
def beside(tmp_path):
    """A model whose weight lies in a file beside it; gives the model without the weight, and its path."""
    array = np.arange(12, dtype="float32").reshape(3, 4)
    path = tmp_path / "m.onnx"
    onnx.save_model(product_with(array), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return onnx.load(path, load_external_data=False), path


def test_weights_beside_the_model_are_mapped_and_never_changed(beside):
    _, path = beside
    before = (path.parent / "w.bin").read_bytes()
    model = dg.onnx.load(path)
    with dg.no_grad():
        model.w.mul_(2.0) if hasattr(model.w, "mul_") else model.w.copy_(model.w * 2.0)
        y = model(dg.ones((1, 3))).numpy()
    np.testing.assert_array_equal(y, [[24, 30, 36, 42]])
    assert (path.parent / "w.bin").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("location", "../w.bin", "outside"), ("location", "/etc/passwd", "outside"), ("location", "", "outside"),
        ("location", "link", "outside"), ("location", "absent", "cannot be read"), ("offset", "8", "does not fit"),
        ("length", "12", "does not fit"), ("offset", "-1", "does not fit"), ("offset", "x", "no number"),
    ],
)  # fmt: skip
def test_files_that_lie_elsewhere_or_do_not_fit_are_refused(beside, key, value, words):
    proto, path = beside
    (path.parent / "link").symlink_to("/etc/passwd")
    entries = proto.graph.initializer[0].external_data
    found = [e for e in entries if e.key == key]
    (found[0] if found else entries.add(key=key)).value = value
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(OnnxError, match=words):
        dg.onnx.load(path)


def test_weights_beside_bytes_ask_for_the_path(beside):
    with pytest.raises(OnnxError, match="by its path"):
        dg.onnx.load(beside[0].SerializeToString())


def test_sparse_weights():
    model = product_with(np.zeros((3, 4), "float32"))
    del model.graph.initializer[:]
    values = numpy_helper.from_array(np.array([5, 7], "float32"), "w")
    places = numpy_helper.from_array(np.array([[0, 1], [2, 2]]))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, 4]))
    np.testing.assert_array_equal(dg.onnx.load(model)(dg.ones((1, 3))).detach().numpy(), [[0, 5, 7, 0]])


def test_function_that_calls_itself_is_a_problem():
    fn = helper.make_function("my", "Loopy", ["a"], ["b"], [helper.make_node("Loopy", ["a"], ["b"], domain="my")],
                              [helper.make_opsetid("my", 1)])  # fmt: skip
    model = product_with(np.zeros((3, 4), "float32"))
    model.graph.node[0].CopyFrom(helper.make_node("Loopy", ["x"], ["y"], domain="my"))
    model.opset_import.add(domain="my", version=1)
    model.functions.append(fn)
    assert "calls itself" in str(dg.onnx.check(model))


# ---------------------------------------------------------------- the networks of the onnx wheel


@pytest.mark.parametrize("name", ["onnx_squeezenet", "onnx_shufflenet", "onnx_alexnet"])
def test_network_of_the_wheel_agrees_with_onnxruntime_in_both_modes(name):
    """The small ones, with few hidden features; `python -m duograd.bench.onnx_zoo` runs all nine as they are."""
    far, same = onnx_zoo.difference(name, hidden=32)
    assert far < 1e-4
    assert same
