"""Activations and dropouts against PyTorch: functions, layers, slopes at the kinks."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn import functional as F

torch = pytest.importorskip("torch", reason="PyTorch is not installed: activations are not compared with it")

#: name -> settings to try; the function has the same name and arguments in both
FUNCTIONS = {
    "relu": [{}], "relu6": [{}], "hardtanh": [{}, {"min_val": -0.5, "max_val": 2.0}], "hardswish": [{}],
    "hardsigmoid": [{}], "selu": [{}], "celu": [{}, {"alpha": 0.7}], "elu": [{}, {"alpha": 0.5}], "mish": [{}],
    "softsign": [{}], "softplus": [{}, {"beta": 2.0, "threshold": 5.0}], "logsigmoid": [{}], "silu": [{}],
    "glu": [{}, {"dim": 0}], "threshold": [{"threshold": 0.5, "value": -1.0}], "hardshrink": [{}, {"lambd": 1.0}],
    "softshrink": [{}, {"lambd": 1.0}], "tanhshrink": [{}], "softmin": [{"dim": -1}, {"dim": 0}],
    "leaky_relu": [{}, {"negative_slope": 0.3}], "gelu": [{}, {"approximate": "tanh"}], "sigmoid": [{}], "tanh": [{}],
    "softmax": [{"dim": 0}], "log_softmax": [{"dim": 1}], "rrelu": [{}, {"lower": 0.2, "upper": 0.4}],
}  # fmt: skip
CASES = [(name, k) for name, rows in FUNCTIONS.items() for k in range(len(rows))]


def points(dtype):
    """Random numbers, and those where slopes change."""
    kinks = [0.0, 1.0, -1.0, 3.0, -3.0, 6.0, 0.5, -0.5, 2.0, 25.0, -25.0, 100.0, -100.0, 1e-5]
    return np.concatenate([kinks, np.random.randn(18) * 3]).reshape(4, 8).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}")
def test_function_and_slope_agree_with_torch(case, dtype, close):
    name, k = case
    settings, values = FUNCTIONS[name][k], points(dtype)
    x, y = dg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    a, b = getattr(F, name)(x, **settings), getattr(torch.nn.functional, name)(y, **settings)
    close(a.detach(), b.detach().numpy(), 5)
    weight = np.random.randn(*a.shape).astype(dtype)
    (a * dg.tensor(weight)).sum().backward()
    (b * torch.tensor(weight)).sum().backward()
    # In these PyTorch keeps a constant in float32.
    rough = 1e4 if dtype == "float64" and name in ("hardsigmoid", "celu") else 10
    close(x.grad, y.grad.numpy(), rough)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("each", [False, True])
def test_prelu_agrees_with_torch(shape, each, close):
    channels = shape[1] if each and len(shape) > 1 else 1
    values, weight = np.random.randn(*shape).astype("float32"), np.random.randn(channels).astype("float32")
    x, w = (dg.tensor(v, requires_grad=True) for v in (values, weight))
    y, v = (torch.tensor(t, requires_grad=True) for t in (values, weight))
    a, b = F.prelu(x, w), torch.nn.functional.prelu(y, v)
    close(a.detach(), b.detach().numpy())
    a.sum().backward(), b.sum().backward()
    close(x.grad, y.grad.numpy())
    close(w.grad, v.grad.numpy())


LAYERS = {
    "ReLU6": (), "Hardswish": (), "Hardsigmoid": (), "SELU": (), "Mish": (), "Softsign": (), "LogSigmoid": (),
    "Tanhshrink": (), "Hardtanh": (-2.0, 0.5), "CELU": (0.3,), "Threshold": (0.1, 20.0), "Hardshrink": (0.3,),
    "Softshrink": (0.3,), "RReLU": (0.1, 0.5), "GLU": (0,), "Softmin": (1,), "PReLU": (8,), "Dropout1d": (),
    "Dropout2d": (), "Dropout3d": (), "AlphaDropout": (), "FeatureAlphaDropout": (),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layer_agrees_with_torch(name, close):
    ours, theirs = getattr(nn, name)(*LAYERS[name]).eval(), getattr(torch.nn, name)(*LAYERS[name]).eval()
    x = points("float32").reshape((1, 1, 1, 4, 8)[-int(name[7]) - 2 :] if name[:7] == "Dropout" else (4, 8))
    close(ours(dg.tensor(x)).detach(), theirs(torch.tensor(x)).detach().numpy(), 5)
    assert repr(ours)


# ---------------------------------------------------------------- random ones


@pytest.mark.parametrize(("name", "shape"), [("dropout1d", (50, 40, 3)), ("dropout2d", (50, 40, 2, 2)),
                                             ("dropout3d", (50, 40, 2, 1, 2))])  # fmt: skip
def test_channels_are_dropped_as_a_whole(name, shape):
    y = getattr(F, name)(dg.ones(shape), 0.3).numpy().reshape(50, 40, -1)
    assert (y == y[:, :, :1]).all()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.7)}
    assert abs((y[:, :, 0] == 0).mean() - 0.3) < 5 * np.sqrt(0.21 / 2000)
    with pytest.raises(dg.errors.ShapeError, match=name):
        getattr(F, name)(dg.ones((3,)))
    assert (getattr(F, name)(dg.ones(shape), 1.0).numpy() == 0).all()


@pytest.mark.parametrize("name", ["alpha_dropout", "feature_alpha_dropout"])
def test_alpha_dropout_keeps_mean_and_variance(name):
    y = getattr(F, name)(dg.randn(300, 200), 0.2, training=True).numpy()
    assert abs(y.mean()) < 0.02
    assert abs(y.var() - 1) < 0.03


def test_rrelu_slopes_lie_between_the_bounds():
    y = F.rrelu(-dg.ones((10000,)), 0.2, 0.6, training=True).numpy()
    assert -0.6 <= y.min() < -0.599
    assert -0.201 < y.max() <= -0.2
    layer = nn.RReLU()
    assert np.unique(layer(-dg.ones((50,))).numpy()).size > 40
    assert np.unique(layer.eval()(-dg.ones((50,))).numpy()).size == 1


def test_gumbel_softmax_draws_by_weight():
    logits = dg.tensor(np.log(np.tile(np.array([0.1, 0.2, 0.7], np.float32), (20000, 1))), requires_grad=True)
    hard = F.gumbel_softmax(logits, hard=True)
    np.testing.assert_allclose(hard.detach().numpy().mean(0), [0.1, 0.2, 0.7], atol=0.02)
    (hard * dg.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert np.abs(logits.grad.numpy()).sum() > 0
    soft = F.gumbel_softmax(logits.detach(), tau=5.0).numpy()
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    with pytest.raises(dg.errors.ArgumentError, match="is not above 0"):
        F.gumbel_softmax(logits, tau=0.0)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_has_limits_at_the_infinities(approximate):
    x = dg.tensor([-np.inf, np.inf, -1e30, 1e30]).requires_grad_()
    y = dg.gelu(x, approximate=approximate)
    y.sum().backward()
    np.testing.assert_array_equal(y.detach().numpy(), np.array([0, np.inf, 0, 1e30], np.float32))
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 0, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["silu", "mish"])
def test_limits_at_the_infinities(name, dtype):
    x = dg.tensor([-np.inf, np.inf]).to(getattr(dg, dtype)).detach().requires_grad_()
    y = getattr(dg, name)(x)
    y.sum().backward()
    assert y.tolist() == [0.0, np.inf]
    assert x.grad.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", ["softmax", "softmin", "log_softmax"])
def test_slices_of_nothing_stay_empty(name, mode):
    """An error named [max] before."""
    f = dg.function(lambda x: getattr(dg, name)(x, axis=1).mul(2), mode=mode)
    for shape in ((2, 0), (2, 3), (2, 0, 3), (0, 0)):
        x = dg.zeros(shape, requires_grad=True)
        y = f(x)
        y.sum().backward()
        assert y.shape == x.grad.shape == shape
        assert y.dtype is dg.float32
