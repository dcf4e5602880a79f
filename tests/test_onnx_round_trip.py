"""A slice of the round trips of `duograd.bench.onnx_round_trip`: out, in onnxruntime, back, out again, training on."""

import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import duograd as dg  # noqa: E402
from duograd.bench.onnx_models import cases, composed  # noqa: E402
from duograd.bench.onnx_round_trip import OPSETS, Mismatch, require, round_trip  # noqa: E402

CASES = cases()
#: few kernels, and between them every kind of rule: shapes, caches, recurrent layers, sorting, quantisation
SLICE = (
    "mlp_residual resnext squeezenet unet fpn llama_cached_step encoder_decoder lstm_states lstm_lengths "
    "gru_classifier message_passing detector_nms quantised_mlp two_towers contrastive MaxUnpool2d"
).split()


def test_the_table_has_every_layer_and_sixty_networks():
    layers = {c.name.split("_")[0] for c in CASES.values()}
    missing = {
        n
        for n in dir(dg.nn)
        if isinstance(getattr(dg.nn, n), type)
        and issubclass(getattr(dg.nn, n), dg.nn.Module)
        and not issubclass(getattr(dg.nn, n), dg.nn.lazy.Lazy)  # they are what they become
    } - layers
    # Containers and the base stand in other models; two losses read values of other shapes.
    assert missing <= {
        "Module", "Sequential", "ModuleDict", "ParameterDict",
        "CTCLoss", "MultiLabelMarginLoss", "TripletMarginWithDistanceLoss",
    }  # fmt: skip
    assert len(composed()) >= 60


@pytest.mark.parametrize("name", SLICE)
def test_network_goes_out_and_comes_back(name):
    opset = OPSETS[SLICE.index(name) % len(OPSETS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # onnxruntime may be older than the opset
        round_trip(CASES[name], max(opset, CASES[name].since))


def test_comparison_sees_a_difference():
    a = np.ones((2, 2), np.float32)
    for b in (a + 1e-3, a[:1], a.astype(np.float64)):
        with pytest.raises(Mismatch, match="output 0"):
            require("x", [a], [b])


def test_opset_too_low_names_the_lowest_that_works():
    fn, x = lambda x: dg.bitcast(x, dtype="int32"), dg.rand(2, 12)
    with pytest.raises(dg.errors.OnnxError, match="lowest opset") as caught:
        dg.onnx.export(fn, x, opset=17)
    assert "opset=26" in str(caught.value)
    report = dg.onnx.check(fn, x, opset=13)
    assert "opset 26 is the lowest" in str(report)
    assert dg.onnx.check(fn, x, opset=26).ok


def test_intermediate_representation_is_the_lowest_of_the_opset():
    versions = {
        n: dg.onnx.export(dg.relu, dg.rand(2), opset=n, verify=False).ir_version for n in (13, 17, 20)
    }
    assert versions == {13: 7, 17: 8, 20: 9}
