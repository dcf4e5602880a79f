"""Gradients and whole training steps as models, and draws that are accepted or refused."""

import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

import duograd as dg  # noqa: E402
from duograd.core.op import REGISTRY  # noqa: E402
from duograd.interop.onnx.agreement import apart  # noqa: E402

RNG = np.random.default_rng(5)
nn, F = dg.nn, dg.nn.functional


def real(*shape, dtype="float32"):
    return dg.tensor(RNG.uniform(-1, 1, shape).astype(dtype))


def with_gradients(function, count):
    """The function's value and the gradients of a weighted sum of it by its first `count` arguments."""

    def total(*args):
        y = function(*args)
        rows = y if isinstance(y, tuple) else (y,)
        return sum((r * dg.cos(dg.arange(r.size).to(r.dtype)).reshape(r.shape)).sum() for r in rows)

    return dg.value_and_grad(total, argnums=tuple(range(count)))


def numbers(result):
    found = []
    for x in result if isinstance(result, (tuple, list)) else (result,):
        found += numbers(x) if isinstance(x, (tuple, list)) else [x.detach().numpy()]
    return found


def in_onnxruntime(model, *arrays):
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], arrays, strict=True)))


def attend(q, k, v, mask=None, **settings):
    return dg.scaled_dot_product_attention(q, k, v, mask, **settings)


def recurrent(cell, gates, reverse=False, **settings):
    layer = {"LSTM": dg.lstm_layer, "GRU": dg.gru_layer, "RNN": dg.rnn_layer}[cell]

    def run(x, w_ih, w_hh, b_ih, b_hh, h0, *rest):
        states = (h0, rest[0]) if cell == "LSTM" else (h0,)
        lengths = rest[-1] if len(rest) > (cell == "LSTM") else None
        return layer(x, w_ih, w_hh, b_ih, b_hh, *states, lengths, reverse=reverse, **settings)

    rows = [
        real(4, 3, 2),
        real(gates * 3, 2),
        real(gates * 3, 3),
        real(gates * 3),
        real(gates * 3),
        real(3, 3),
    ]
    return run, [*rows, *([real(3, 3)] if cell == "LSTM" else [])]


LENGTHS = dg.tensor(np.array([4, 1, 2]))
LSTM, GRU, RNN = recurrent("LSTM", 4), recurrent("GRU", 3), recurrent("RNN", 1)
LAST = recurrent("LSTM", 4, reverse=True), recurrent("GRU", 3, reverse=True)
#: what is differentiated, its arguments, by how many of them, and its dynamic axes
LAYERS = {
    "conv": (lambda x, w: dg.conv(x, w, padding=1), [real(2, 3, 6, 5), real(4, 3, 3, 3)], 2, {0: {0: "n", 2: "h"}}),
    "conv, strides": (
        lambda x, w: dg.conv(x, w, stride=(2, 3), dilation=(1, 2), padding=((1, 0), (2, 1)), groups=2),
        [real(3, 4, 9, 8), real(6, 2, 3, 2)], 2, {0: {0: "n"}},
    ),
    "conv1d, strides, any length": (
        lambda x, w: dg.conv(x, w, stride=2, padding=1), [real(2, 3, 9), real(4, 3, 3)], 2, {0: {2: "t"}},
    ),
    "conv3d, each channel": (
        lambda x, w: dg.conv(x, w, groups=3, stride=2), [real(1, 3, 5, 5, 4), real(3, 1, 3, 2, 2)], 2, {},
    ),
    "conv_transpose": (
        lambda x, w: dg.conv_transpose(x, w, stride=2, padding=1, output_padding=1, groups=2),
        [real(2, 4, 5), real(4, 2, 3)], 2, {0: {0: "n"}},
    ),
    "max_pool": (lambda x: dg.max_pool(x, window=3, stride=2, padding=1), [real(2, 3, 7, 8)], 1, {0: {0: "n"}}),
    "max_pool, dilated": (
        lambda x: dg.max_pool(x, window=(2, 3), stride=1, dilation=2, ceil_mode=True), [real(1, 2, 7, 8)], 1, {},
    ),
    "avg_pool": (lambda x: dg.avg_pool(x, window=3, stride=2, padding=1), [real(2, 3, 7, 8)], 1, {0: {0: "n", 2: "h"}}),
    "avg_pool, without its padding": (
        lambda x: dg.avg_pool(x, window=3, stride=2, padding=((1, 0), (0, 1)), count_include_pad=False),
        [real(2, 3, 7, 8)], 1, {0: {0: "n"}},
    ),
    "avg_pool, half windows": (
        lambda x: dg.avg_pool(x, window=3, stride=2, padding=1, ceil_mode=True), [real(1, 2, 8)], 1, {0: {2: "t"}},
    ),
    "avg_pool, dilated": (
        lambda x: dg.avg_pool(x, window=(3, 2), stride=2, padding=(2, 1), dilation=2, count_include_pad=False),
        [real(1, 2, 7, 8)], 1, {0: {3: "w"}},
    ),
    "avg_pool, divisor": (
        lambda x: dg.avg_pool(x, window=2, stride=3, divisor_override=3), [real(1, 2, 8)], 1, {},
    ),
    "lp_pool": (lambda x: dg.lp_pool(x * x + 1, window=2, p=3), [real(1, 2, 6, 6)], 1, {}),
    "attention": (attend, [real(2, 2, 5, 4), real(2, 2, 6, 4), real(2, 2, 6, 3)], 3, {k: {0: "n"} for k in range(3)}),
    "attention, causal, mask, groups": (
        lambda q, k, v, mask: attend(q, k, v, mask, is_causal=True),
        [real(1, 4, 5, 4), real(1, 2, 5, 4), real(1, 2, 5, 3), real(5, 5)], 4, {},
    ),
    "lstm": (*LSTM, 7, {0: {0: "t"}}),
    "lstm, lengths": (LSTM[0], [*LSTM[1], LENGTHS], 7, {}),
    "lstm, back, lengths": (LAST[0][0], [*LAST[0][1], LENGTHS], 7, {}),
    "gru": (*GRU, 6, {0: {1: "n"}, 5: {0: "n"}}),
    "gru, back, lengths": (LAST[1][0], [*LAST[1][1], LENGTHS], 6, {}),
    "rnn": (*RNN, 6, {}),
    "rnn, relu, lengths": (recurrent("RNN", 1, nonlinearity="relu")[0], [*RNN[1], LENGTHS], 6, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_a_layer_go_out_and_come_back(name, close):
    function, args, count, axes = LAYERS[name]
    names = [f"x{k}" for k in range(len(args))]
    both = with_gradients(function, count)
    model = dg.onnx.export(
        both, tuple(args), input_names=names, dynamic={f"x{k}": a for k, a in axes.items()}
    )
    want = numbers(both(*args))
    loaded = dg.onnx.load(model)
    for run in (loaded, dg.function(loaded)):
        for got, expected in zip(numbers(run(*args)), want, strict=True):
            close(got, expected, scale=20)


@pytest.mark.parametrize(
    "name", ["conv, strides", "max_pool", "avg_pool", "attention, causal, mask, groups", "lstm, lengths"]
)
@pytest.mark.parametrize("opset", [13, 17, 23])
def test_gradients_of_a_layer_go_out_at_other_opsets(name, opset):
    function, args, count, _ = LAYERS[name]
    dg.onnx.export(with_gradients(function, count), tuple(args), opset=opset)


def test_gradients_of_gradients_of_a_convolution_go_out():
    slope = lambda x, w: dg.grad(lambda v: (dg.conv(x, v, stride=2) ** 3).sum())(w)
    dg.onnx.export(dg.grad(lambda x, w: (slope(x, w) ** 2).sum()), (real(2, 3, 7), real(4, 3, 3)))


# ---------------------------------------------------------------- training steps


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def steps_of(make, optimizer):
    """A training step, its model, and its optimiser."""
    dg.manual_seed(3)
    model = make().train()
    opt = optimizer(model.parameters())

    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return step, model, opt


class Tokens(nn.Module):
    def __init__(self):
        self.embed = nn.Embedding(9, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
        self.rnn, self.out = nn.LSTM(8, 6), nn.Linear(6, 3)

    def forward(self, ids):
        y, _ = self.rnn(self.block(self.embed(ids)))
        return self.out(y[:, -1])


STEPS = {
    "cnn, sgd": (convolutions, lambda p: dg.optim.SGD(p, lr=0.1, momentum=0.9), real(4, 1, 8, 8)),
    "cnn, adamw": (convolutions, lambda p: dg.optim.AdamW(p, lr=1e-2), real(4, 1, 8, 8)),
    "tokens, sgd": (
        Tokens,
        lambda p: dg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        dg.tensor(RNG.integers(0, 9, (4, 5))),
    ),
}
LABELS = dg.tensor(np.array([0, 2, 1, 1]))


@pytest.mark.parametrize("name", STEPS)
def test_a_whole_training_step_is_a_model(name, close):
    make, optimizer, x = STEPS[name]
    step, model, opt = steps_of(make, optimizer)
    before = {n: t.detach().numpy().copy() for n, t in (*model.named_parameters(), *model.named_buffers())}
    proto = dg.onnx.export(step, (x, LABELS), training=True, dynamic={"x": {0: "n"}, "y": {0: "n"}})
    for n, t in (*model.named_parameters(), *model.named_buffers()):
        np.testing.assert_array_equal(t.detach().numpy(), before[n])  # the export has changed nothing
        assert t.grad is None
    names = [o.name for o in proto.graph.output]
    made = dict(zip(names, in_onnxruntime(proto, x.numpy(), LABELS.numpy()), strict=True))
    loaded = dict(zip(names, numbers(dg.onnx.load(proto)(x, LABELS)), strict=True))
    loss = step(x, LABELS)
    close(made["output"], loss.detach().numpy(), scale=20)
    wanted = {f"model.{n}.new": t.detach().numpy() for n, t in model.named_parameters()}
    wanted |= {f"model.{n}.grad": t.grad.numpy() for n, t in model.named_parameters()}
    wanted |= {
        f"model.{n}.new": t.detach().numpy() for n, t in model.named_buffers() if f"model.{n}.new" in names
    }
    first = next(n for n, _ in model.named_parameters())
    state = opt.state[dict(model.named_parameters())[first]]
    wanted |= {f"opt.model.{first}.{key}.new": t.detach().numpy() for key, t in state.items()}
    assert state
    assert wanted.keys() <= made.keys()
    for key, want in wanted.items():
        close(made[key], want, scale=50)
        close(loaded[key], want, scale=50)


def test_a_result_that_is_rounding_alone_is_told_from_a_wrong_one(monkeypatch):
    noise = lambda x: (x.sum() - x.flip(0).reshape(3, 7).sum(axis=0).sum()) * 1e6
    x = real(21)
    with pytest.warns(UserWarning, match="could not be compared"):
        dg.onnx.export(noise, (x,))
    monkeypatch.setattr(REGISTRY["negative"], "onnx", lambda o, x: o.Neg(o.Mul(x, o.const(1.001, x))))
    with pytest.raises(dg.errors.OnnxError, match="differs first at node"):
        dg.onnx.export(lambda x: -x, (x,))
    with pytest.raises(dg.errors.OnnxError, match="differs first at node"):
        dg.onnx.export(lambda x: dg.concat([noise(x).reshape(1), -x]), (x,))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: dg.gelu(x) != 0,
        lambda x: dg.where(dg.gelu(x).to(dg.bool), x * 100, -x).sum(),
        lambda x: dg.count_nonzero(dg.gelu(x), axis=0),
        lambda x: dg.cond((dg.gelu(x) == 0).any(), lambda t: t, lambda t: -t, x),
        lambda x: dg.argmax(dg.stack([dg.gelu(x), x * 0 - 1e-12]), axis=0),
    ],
)
def test_what_turns_on_rounding_is_told_from_a_wrong_result(f, monkeypatch):
    """gelu is 0 below -5.6 in onnxruntime, and not in duograd: what asks whether it is was blamed."""
    x = dg.linspace(-6.5, -3.0, 21)
    with pytest.warns(UserWarning, match="could not be compared"):
        dg.onnx.export(f, (x,))
    monkeypatch.setattr(REGISTRY["gelu"], "onnx", lambda o, x, *, approximate: o.Mul(x, o.const(0, x)))
    with pytest.raises(dg.errors.OnnxError, match="differs first at node"):
        dg.onnx.export(f, (x,))


@pytest.mark.parametrize("f", [lambda x, y: (x + y).floor().to(dg.int32), lambda x, y: x + y - y == x])
def test_what_turns_on_rounding_that_a_runtime_leaves_out_is_told_from_a_wrong_result(f):
    """onnxruntime keeps sums of float16 in float32 until they are stored."""
    x, y = (dg.tensor(RNG.normal(size=500)).to(dg.float16) for _ in range(2))
    with pytest.warns(UserWarning, match="could not be compared"):
        dg.onnx.export(f, (x, y))


def in_16_bits(function, kind):
    """Products of the function in 16 bits."""

    def run(*args):
        with dg.amp.autocast(dtype=kind):
            return function(*args)

    return run


@pytest.mark.filterwarnings("ignore:onnxruntime .* does not run this model")
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_what_came_through_16_bits_is_compared_by_their_tolerance(kind, monkeypatch):
    """float32's tolerance blamed duograd for what is bfloat16's rounding: a cell's state is float32 again."""
    cell, norm, x = nn.LSTMCell(3, 2), nn.Linear(3, 4), real(40, 3)
    dg.onnx.export(in_16_bits(lambda x: cell(x)[1], kind), (x,))
    dg.onnx.export(in_16_bits(lambda x: dg.log_softmax(norm(x)), kind), (x,))
    loop = lambda x: dg.scan(lambda c, r: (dg.exp((c * r).to(kind)).to(dg.float32), None), x[0], x)[0]
    dg.onnx.export(loop, (x[:5],))
    monkeypatch.setattr(REGISTRY["negative"], "onnx", lambda o, x: o.Neg(o.Mul(x, o.const(1.001, x))))
    with pytest.raises(dg.errors.OnnxError, match="differs first at node negative_0"):
        dg.onnx.export(in_16_bits(lambda x: -cell(x)[1], kind), (x,))
    with pytest.raises(dg.errors.OnnxError, match="differs first at node negative_0"):
        dg.onnx.export(in_16_bits(lambda x: dg.exp(-dg.log_softmax(norm(x))), kind), (x,))


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_noise_of_16_bits_is_told_from_a_wrong_result(kind, monkeypatch):
    """Rounding of float32 arguments does not reach what 16 bits leave of them, theirs does."""
    x, y = real(40), real(40) * 1000
    noise = lambda x, y: ((x.to(dg.float16) + y.to(dg.float16)) - y.to(dg.float16)).to(kind)
    for f in (noise, lambda x, y: (noise(x, y) * 1e3).to(dg.int32)):
        with pytest.warns(UserWarning, match="could not be compared"):
            dg.onnx.export(f, (x, y))
    monkeypatch.setattr(REGISTRY["subtract"], "onnx", "Add")
    with pytest.raises(dg.errors.OnnxError, match="differs first at node subtract_0"):
        dg.onnx.export(noise, (x, y))


@pytest.mark.parametrize(("name", "wrong"), [("less", "LessOrEqual"), ("greater", "GreaterOrEqual")])
def test_a_wrong_comparison_is_told_from_one_that_turns_on_rounding(name, wrong, monkeypatch):
    f = lambda x: getattr(dg, name)(dg.gelu(x), 0.0)
    x = dg.linspace(-6.5, 5.0, 21)
    monkeypatch.setattr(REGISTRY[name], "onnx", wrong)
    with pytest.raises(dg.errors.OnnxError, match="differs first at node"):
        dg.onnx.export(lambda x: getattr(dg, name)(dg.relu(x), 0.0), (x,))
    with pytest.raises(dg.errors.OnnxError, match="differs first at node"):
        dg.onnx.export(f, (dg.concat([x, dg.zeros((1,))]),))


@pytest.mark.parametrize(
    ("f", "op"),
    [
        (lambda x: dg.max(x, axis=0), "max"),
        (lambda x: dg.argmax(x, axis=0) + 1, "argmax"),
        (lambda x: dg.clip(x, 0.0), "clip"),
    ],
)
def test_nan_from_which_runtimes_make_different_things_is_told_from_a_wrong_result(f, op, monkeypatch):
    x = real(4, 5)
    x[0, :3] = dg.tensor([float("nan"), float("inf"), -float("inf")])
    x[2, 3] = float("nan")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        dg.onnx.export(f, (x,))
    assert all(f"NaN or infinity at {op}" in str(w.message) for w in found)
    monkeypatch.setattr(REGISTRY["negative"], "onnx", lambda o, x: o.Neg(o.Mul(x, o.const(1.001, x))))
    with pytest.raises(dg.errors.OnnxError, match="differs first at node"):
        dg.onnx.export(lambda x: f(-x), (x,))


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64"])
def test_numbers_that_an_integer_does_not_hold_are_told_from_a_wrong_result(dtype, monkeypatch):
    x = dg.tensor([1.5, 2.0, 3.9, float("inf"), -float("inf"), float("nan"), 3e30, -3e30, 300.0])
    f = lambda x: x.to(getattr(dg, dtype))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        dg.onnx.export(f, (x,))
    assert all(f"ONNX leaves numbers outside {dtype} open" in str(w.message) for w in found)
    assert found or dtype == "uint8"
    right = REGISTRY["cast"].onnx
    wrong = lambda o, x, *, dtype: right(o, o.Add(x, o.const(1.0, x)), dtype=dtype)
    monkeypatch.setattr(REGISTRY["cast"], "onnx", wrong)
    with pytest.raises(dg.errors.OnnxError, match="differs first at node"):
        dg.onnx.export(f, (x,))


def test_what_overflows_in_another_order_is_told_from_a_wrong_result(monkeypatch):
    """A product of many is 0 here, and NaN there: an infinity times 0."""
    x = dg.full((3, 67), 4.04)
    x[:, -1] = 0.0
    with pytest.warns(UserWarning, match="could not be compared"):
        dg.onnx.export(lambda x: dg.prod(x, axis=-1), (x,))
    wrong = lambda o, x, *, axis, keepdims, dtype: o.reduce("ReduceSum", x, axis, keepdims)
    monkeypatch.setattr(REGISTRY["prod"], "onnx", wrong)
    with pytest.raises(dg.errors.OnnxError, match="differs first at node"):
        dg.onnx.export(lambda x: dg.prod(x, axis=-1), (x[:, :5],))


def test_nan_in_the_place_of_infinity_is_no_rounding():
    assert np.isinf(apart(np.array([np.inf, 1.0]), np.array([np.nan, 1.0]))).tolist() == [True, False]
    assert not apart(np.array([np.inf, np.nan, 1.0]), np.array([np.inf, np.nan, 1.0 + 1e-12])).any()


def test_a_module_is_whole_after_the_export_of_a_function_that_calls_it():
    model = convolutions().train()
    dg.onnx.export(lambda x: model(x), (real(2, 1, 8, 8),), training=True)
    model(real(2, 1, 8, 8))  # BatchNorm's counter is a tensor, no trace's


def test_a_step_that_adds_to_old_gradients_is_refused():
    model = nn.Linear(3, 2)

    def step(x):
        loss = model(x).sum()
        loss.backward()
        return loss

    x = real(2, 3)
    names = [o.name for o in dg.onnx.export(step, (x,), training=True).graph.output]
    assert names == ["output", "model.weight.grad", "model.bias.grad"]
    step(x)
    kept = model.weight.grad
    with pytest.raises(dg.errors.OnnxError, match=r"gradient that float32.* had before"):
        dg.onnx.export(step, (x,), training=True)
    assert model.weight.grad is kept


def test_backward_without_training_says_what_to_do():
    model = nn.Linear(3, 2)
    with pytest.raises(dg.errors.OnnxError, match="calls backward") as caught:
        dg.onnx.export(lambda x: model(x).sum().backward(), (real(2, 3),))
    assert "training=True" in str(caught.value)


# ---------------------------------------------------------------- draws


def quietly(function, *args, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the model draws random numbers")
        return dg.onnx.export(function, args, **options)


def moments(x):
    return x.mean(), x.std()


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize(
    ("draw", "mean", "std"),
    [
        (lambda a: dg.gamma(a, 2.0), lambda a: a / 2, lambda a: np.sqrt(a) / 2),
        (lambda a: dg.poisson(a), lambda a: a, np.sqrt),
        (lambda a: dg.beta(a, 2.0), lambda a: a / (a + 2), lambda a: np.sqrt(2 * a / (a + 3)) / (a + 2)),
    ],
    ids=["gamma", "poisson", "beta"],
)
def test_draws_have_the_moments_of_their_distribution(draw, mean, std, opset):
    rates = np.array([0.3, 1.0, 4.5, 11.9, 12.1, 300.0], np.float32)
    n = 20_000
    model = quietly(
        draw, dg.tensor(np.tile(rates, (4, 1))), opset=opset, input_names=["a"], dynamic={"a": ["n", None]}
    )
    (got,) = in_onnxruntime(model, np.tile(rates, (n, 1)))
    for row, rate in zip(got.T.astype(np.float64), rates.astype(np.float64)):
        assert abs(row.mean() - mean(rate)) < 6 * std(rate) / np.sqrt(n)
        assert abs(row.std() / std(rate) - 1) < 0.1


def test_draws_at_the_ends_of_their_parameters():
    ends = np.array([0.0, np.inf, -1.0, np.nan], np.float32)
    names = {"log_gamma_draw": [-np.inf, np.inf, np.nan, np.nan], "poisson_draw": [0, np.nan, np.nan, np.nan]}
    for name, want in names.items():
        keys = dg.tensor(np.arange(4))
        model = quietly(REGISTRY[name], keys, dg.tensor(ends))
        (got,) = in_onnxruntime(model, keys.numpy(), ends)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(REGISTRY[name](keys, dg.tensor(ends)).numpy(), want)


def test_slope_of_a_gamma_draw_agrees_in_all_its_ranges():
    a = np.array([0.2, 0.9, 3.0, 3.0, 50.0, 800.0, 19_000.0, 25_000.0, 1.0, 0.0])
    log_z = np.log(np.array([0.01, 1.5, 0.5, 9.0, 60.0, 790.0, 19_100.0, 24_900.0, 0.0 + 1e-300, 1.0]))
    args = [dg.tensor(v) for v in (a, log_z)]
    slope = lambda a, z: REGISTRY["log_gamma_slope"](a, z, dg.digamma(a))
    model = dg.onnx.export(slope, tuple(args))
    (got,) = in_onnxruntime(model, a, log_z)
    np.testing.assert_allclose(got, slope(*args).numpy(), rtol=1e-8)
    assert np.isnan(got[-1])


def test_a_gradient_through_a_gamma_draw_goes_out():
    n = 20_000
    model = quietly(dg.grad(lambda a: dg.gamma(a).mean()), dg.tensor(np.full(n, 3.0)))
    (slope,) = in_onnxruntime(model, np.full(n, 3.0))
    assert abs(slope.sum() - 1) < 0.05  # the mean is the concentration


def test_a_draw_of_one_number_goes_out():
    model = quietly(lambda x: x + dg.rand(()), dg.tensor(0.0))
    assert 0 <= in_onnxruntime(model, np.zeros((), np.float32))[0] < 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_uniform_numbers_are_below_one(dtype):
    model = quietly(lambda x: x + dg.rand(100_000, dtype=dtype).to(dg.float32), dg.tensor(0.0))
    (got,) = in_onnxruntime(model, np.zeros((), np.float32))
    assert got.max() < 1
    assert abs(got.mean() - 0.5) < 0.01


# ---------------------------------------------------------------- eigenvalues


def test_eigenvalues_of_hard_matrices_agree():
    n = 6
    rows = {
        "a cycle": np.roll(np.eye(n), 1, axis=0), "zeros": np.zeros((n, n)), "unit": np.eye(n),
        "triangle": np.triu(RNG.uniform(-1, 1, (n, n))), "symmetric": (lambda a: a + a.T)(RNG.uniform(-1, 1, (n, n))),
        "large": RNG.uniform(-1, 1, (n, n)) * 1e200, "small": RNG.uniform(-1, 1, (n, n)) * 1e-200,
        "companion": np.diag(np.ones(n - 1), -1) + np.pad(RNG.uniform(-1, 1, (1, n)), ((0, n - 1), (0, 0))),
        "blocks": np.kron(np.diag([1.0, 2.0, 3.0]), [[0, -1], [1, 0]]),
    }  # fmt: skip
    x = np.stack([*rows.values(), *RNG.uniform(-1, 1, (40, n, n))])
    model = dg.onnx.export(
        lambda v: dg.linalg.eig(v), (dg.tensor(RNG.uniform(-1, 1, x.shape)),), verify=False
    )
    w, v = (y[..., 0] + 1j * y[..., 1] for y in in_onnxruntime(model, x))
    size = np.abs(x).max(axis=(1, 2), keepdims=True).clip(1e-300)
    np.testing.assert_allclose(np.linalg.norm(v, axis=-2), 1, rtol=1e-12)
    np.testing.assert_allclose(x / size @ v, v * (w[:, None] / size), atol=1e-13)
    np.testing.assert_allclose(
        w / size[..., 0], dg.linalg.eigvals(dg.tensor(x)).numpy() / size[..., 0], atol=1e-12
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: dg.linalg.eigvals(x), lambda x: dg.linalg.inv(x + 3 * dg.eye(x.shape[0])),
        lambda x: dg.linalg.cholesky(x @ x.T + dg.eye(x.shape[0])), dg.grad(lambda x: dg.log(dg.linalg.det(x @ x.T))),
    ],
    ids=["eigvals", "inv", "cholesky", "det"],
)  # fmt: skip
def test_matrices_of_any_size_go_out(function):
    x = dg.tensor((np.random.default_rng(3).uniform(-1, 1, (4, 4)) + 2 * np.eye(4)).astype("float32"))
    dg.onnx.export(function, (x,), dynamic={"x": {0: "n", 1: "n"}}, input_names=["x"])


def test_singular_values_near_the_ends_of_the_range_agree():
    x = RNG.uniform(-1, 1, (2, 4, 3)) * np.array([1e200, 1e-200])[:, None, None]
    dg.onnx.export(lambda v: dg.linalg.svdvals(v) / abs(v).max(axis=(1, 2)).reshape(2, 1), (dg.tensor(x),))
