"""Networks on eight bits go out as QuantizeLinear and DequantizeLinear, run fused in onnxruntime, and come back."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import duograd as dg  # noqa: E402
import onnxruntime  # noqa: E402
from duograd.bench import onnx_quantised as Q  # noqa: E402
from duograd.bench.onnx_models import cases  # noqa: E402
from duograd.bench.onnx_round_trip import round_trip  # noqa: E402

NAMES = [name for name in cases() if "quantised" in name]


def image():
    return dg.tensor(np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype("float32"))


@pytest.mark.parametrize("opset", [13, 23])
@pytest.mark.parametrize("name", NAMES)
def test_quantised_networks_go_round(name, opset):
    round_trip(cases()[name], opset)


def test_weights_stay_integers_with_a_scale_for_each_filter():
    proto = dg.onnx.export(Q.QuantisedCnn().eval(), image(), opset=13)
    weights = {t.name: t for t in proto.graph.initializer}
    assert weights["a.weight"].data_type == onnx.TensorProto.INT8
    into = {n.input[0]: n for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    assert into["a.weight"].input[1] == "a.scale"
    assert into["a.weight"].attribute[0].i == 0
    assert sum(n.op_type == "QuantizeLinear" for n in proto.graph.node) == 3


def test_fused_integer_kernels_of_onnxruntime_agree_to_a_step():
    model = Q.QuantisedCnn().eval()
    proto = dg.onnx.export(model, image())
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {proto.graph.input[0].name: image().numpy()})
    want = model(image()).detach().numpy()
    assert (
        np.abs(got - want).max() < 0.03 * 0.02 * 127 * 2
    )  # one unit of an activation, times the largest weight


def test_rounding_that_comes_in_passes_gradients_straight_through():
    net = Q.TrainedQuantised()
    proto = dg.onnx.export(net.eval(), image())
    kinds = [n.op_type for n in proto.graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 4
    loaded = dg.onnx.load(proto)
    for m in (net, loaded):
        (m(image()) ** 2).sum().backward()
    theirs = dict(loaded.named_parameters())
    for name, p in net.named_parameters():
        np.testing.assert_allclose(theirs[name].grad.numpy(), p.grad.numpy(), rtol=1e-4, atol=1e-5)
        assert np.abs(p.grad.numpy()).max() > 0
