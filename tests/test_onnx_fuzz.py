"""A slice of `duograd.bench.onnx_fuzz`: damaged files run or are refused, and leave nothing behind."""

import os
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import duograd as dg  # noqa: E402
from duograd.bench.onnx_fuzz import mutant, outcome  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402


@pytest.fixture(scope="module")
def originals():
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4)).astype("float32")
    layers = dg.nn.Sequential(dg.nn.Linear(4, 3), dg.nn.ReLU(), dg.nn.Linear(3, 2)).eval()
    loop = lambda x: dg.while_loop(lambda v: (v * v).sum() < 50, lambda v: v * 1.5 + 0.1, x)
    shapes = lambda x: x.reshape(x.shape[0], 2, 2).permute(1, 0, 2)[:, ::-1]
    axes = {"x": {0: "n"}}
    return [
        (str(k), dg.onnx.export(fn, dg.tensor(x), dynamic=axes, verify=False), [x])
        for k, fn in enumerate((layers, loop, shapes))
    ]


def test_damaged_models_run_or_are_refused(originals, tmp_path):
    found = []
    for number in range(240):
        _, data, inputs = mutant(originals, 3, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(outcome(data, inputs, str(tmp_path), number % 4 == 0))
    assert not [f for f in found if f.startswith("fault")]
    assert 20 < found.count("runs") < 220
    assert os.listdir(tmp_path) == ["mutant.onnx"]


def test_node_that_ends_the_process_in_type_inference_is_refused():
    """onnx's inference of LabelEncoder reads inputs that are not there."""
    node = helper.make_node(
        "LabelEncoder", [""], ["y"], domain="ai.onnx.ml", keys_strings=["a"], values_int64s=[1]
    )
    output = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    model = helper.make_model(
        helper.make_graph([node], "g", [], [output]), opset_imports=[helper.make_opsetid("ai.onnx.ml", 4)]
    )
    with pytest.raises(dg.errors.OnnxError, match="misses an input"):
        dg.onnx.load(model)
