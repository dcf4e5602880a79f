"""Layers, losses and initialisers; compared with PyTorch where it is installed."""

import math

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn import functional as F


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: layers are not compared with it")


# ---------------------------------------------------------------- layers against PyTorch

LAYERS = {
    "linear": ("Linear", (5, 3), {}, (4, 5)),
    "linear_rank_3": ("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    "conv": ("Conv2d", (3, 4, 3), {"padding": 1}, (2, 3, 6, 5)),
    "conv_stride": ("Conv2d", (4, 6, (3, 2)), {"stride": 2, "groups": 2, "bias": False}, (2, 4, 7, 6)),
    "conv_dilation": ("Conv2d", (2, 3, 3), {"dilation": 2, "padding": "same"}, (1, 2, 6, 6)),
    "max_pool": ("MaxPool2d", (2,), {}, (2, 3, 6, 6)),
    "max_pool_padding": ("MaxPool2d", (3,), {"stride": 2, "padding": 1}, (2, 3, 7, 6)),
    "max_pool_ceil": ("MaxPool2d", (2,), {"ceil_mode": True}, (1, 2, 5, 7)),
    "max_pool_ceil_pad": ("MaxPool2d", (3, 2, 1), {"ceil_mode": True}, (1, 2, 6, 8)),
    "avg_pool": ("AvgPool2d", (2,), {}, (2, 3, 6, 6)),
    "avg_pool_padding": ("AvgPool2d", (3, 2, 1), {"count_include_pad": False}, (1, 2, 7, 5)),
    "flatten": ("Flatten", (), {}, (2, 3, 4)),
    "relu": ("ReLU", (), {"inplace": True}, (3, 4)),
    "gelu": ("GELU", (), {}, (3, 4)),
    "gelu_tanh": ("GELU", (), {"approximate": "tanh"}, (3, 4)),
    "silu": ("SiLU", (), {}, (3, 4)),
    "sigmoid": ("Sigmoid", (), {}, (3, 4)),
    "tanh": ("Tanh", (), {}, (3, 4)),
    "leaky_relu": ("LeakyReLU", (0.2,), {}, (3, 4)),
    "elu": ("ELU", (0.7,), {}, (3, 4)),
    "softplus": ("Softplus", (), {}, (3, 4)),
    "softplus_beta": ("Softplus", (2.0, 1.0), {}, (3, 4)),
    "softmax": ("Softmax", (1,), {}, (2, 3, 4)),
    "log_softmax": ("LogSoftmax", (-1,), {}, (2, 3, 4)),
    "layer_norm": ("LayerNorm", (6,), {}, (3, 6)),
    "layer_norm_axes": ("LayerNorm", ((2, 6),), {"bias": False}, (3, 2, 6)),
    "identity": ("Identity", (), {}, (3, 4)),
    "dropout_off": ("Dropout", (0.5,), {}, (3, 4)),
}  # fmt: skip


def _pair(torch, name, args, kwargs):
    """The layer and PyTorch's, with the same random weights."""
    ours, theirs = getattr(nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert p.shape == tuple(q.shape)
        values = np.random.randn(*p.shape).astype(np.float32)
        with dg.no_grad(), torch.no_grad():
            p.copy_(dg.tensor(values))
            q.copy_(torch.tensor(values))
    return ours, theirs


@pytest.mark.parametrize("case", LAYERS)
def test_layer_agrees_with_torch(torch, close, case):
    name, args, kwargs, shape = LAYERS[case]
    ours, theirs = _pair(torch, name, args, kwargs)
    ours.eval(), theirs.eval()
    values = np.random.randn(*shape).astype(np.float32)
    x, y = dg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    # PyTorch may write over its input (inplace=True), which must be no leaf then.
    a, b = ours(x), theirs(y * 1)
    close(a.detach(), b.detach().numpy(), 5)
    weight = np.random.randn(*a.shape).astype(np.float32)
    (a * dg.tensor(weight)).sum().backward()
    (b * torch.tensor(weight)).sum().backward()
    close(x.grad, y.grad.numpy(), 10)
    for p, q in zip(ours.parameters(), theirs.parameters()):
        # Sums over all positions, in another order.
        close(p.grad, q.grad.numpy(), 20)


@pytest.mark.parametrize("padding_idx", [None, 1, -1])
def test_embedding_agrees_with_torch(torch, close, padding_idx):
    ours, theirs = nn.Embedding(5, 3, padding_idx), torch.nn.Embedding(5, 3, padding_idx)
    if padding_idx is not None:
        assert ours.weight[padding_idx].tolist() == [0.0] * 3
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(ours.weight.detach().numpy()))
    index = np.array([[0, 1, 4], [1, 4, 4]])
    weight = np.random.randn(2, 3, 3).astype(np.float32)
    a, b = ours(dg.tensor(index)), theirs(torch.tensor(index))
    close(a.detach(), b.detach().numpy())
    (a * dg.tensor(weight)).sum().backward()
    (b * torch.tensor(weight)).sum().backward()
    close(ours.weight.grad, theirs.weight.grad.numpy())


CLASSES = np.array([0, 3, 2, 3, 1, -100])
LOSSES = {
    "mse": ("MSELoss", {}, "like"),
    "mse_sum": ("MSELoss", {"reduction": "sum"}, "like"),
    "l1": ("L1Loss", {"reduction": "none"}, "like"),
    "cross_entropy": ("CrossEntropyLoss", {}, "classes"),
    "cross_entropy_ignore": ("CrossEntropyLoss", {"ignore_index": 3, "reduction": "none"}, "labels"),
    "cross_entropy_weight": ("CrossEntropyLoss", {"weight": True}, "classes"),
    "cross_entropy_smooth": ("CrossEntropyLoss", {"label_smoothing": 0.1}, "classes"),
    "cross_entropy_all": (
        "CrossEntropyLoss", {"weight": True, "label_smoothing": 0.2, "ignore_index": 2}, "labels"),
    "cross_entropy_probabilities": ("CrossEntropyLoss", {"weight": True, "label_smoothing": 0.1}, "shares"),
    "nll": ("NLLLoss", {"weight": True, "reduction": "sum"}, "classes"),
    "nll_ignore": ("NLLLoss", {"ignore_index": 3}, "labels"),
    "bce": ("BCEWithLogitsLoss", {}, "bits"),
    "bce_weights": ("BCEWithLogitsLoss", {"weight": True, "pos_weight": True, "reduction": "sum"}, "bits"),
    "bce_weight": ("BCEWithLogitsLoss", {"weight": True}, "bits"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
def test_loss_agrees_with_torch(torch, close, case):
    name, kwargs, kind = LOSSES[case]
    values = np.random.randn(6, 4).astype(np.float32)
    shares = np.random.rand(6, 4).astype(np.float32)
    target = {
        "like": np.random.randn(6, 4).astype(np.float32), "classes": CLASSES, "labels": np.abs(CLASSES) % 4,
        "shares": shares / shares.sum(1, keepdims=True), "bits": shares,
    }[kind]  # fmt: skip
    weight = np.random.rand(4).astype(np.float32) + 0.5
    ours = getattr(nn, name)(**{k: dg.tensor(weight) if v is True else v for k, v in kwargs.items()})
    theirs = getattr(torch.nn, name)(
        **{k: torch.tensor(weight) if v is True else v for k, v in kwargs.items()}
    )
    x, y = dg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    a, b = ours(x, dg.tensor(target)), theirs(y, torch.tensor(target))
    close(a.detach(), b.detach().numpy(), 2)
    a.sum().backward(), b.sum().backward()
    close(x.grad, y.grad.numpy(), 2)


def test_cross_entropy_agrees_with_torch_over_images(torch, close):
    values, target = np.random.randn(2, 3, 4, 5).astype(np.float32), np.random.randint(0, 3, (2, 4, 5))
    a = nn.CrossEntropyLoss(label_smoothing=0.1)(dg.tensor(values), dg.tensor(target))
    b = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(torch.tensor(values), torch.tensor(target))
    close(a, b.numpy(), 2)


def test_cross_entropy_over_nothing_is_nan():
    assert math.isnan(F.cross_entropy(dg.ones((2, 3)), dg.tensor([-100, -100])).item())


def test_a_class_outside_gives_nan():
    assert math.isnan(F.cross_entropy(dg.ones((2, 3)), dg.tensor([0, 3])).item())


def test_bce_slope_at_zero_is_exact():
    x = dg.zeros((1,)).requires_grad_()
    F.binary_cross_entropy_with_logits(x, dg.ones((1,))).backward()
    assert x.grad.tolist() == [-0.5]


@pytest.mark.parametrize(("pad", "shape"), [((1, 2), (2, 6)), ((1, 0, 2, 0), (4, 4))])
def test_pad_agrees_with_torch(torch, close, pad, shape):
    values = np.random.randn(2, 3).astype(np.float32)
    out = F.pad(dg.tensor(values), pad, value=0.5)
    assert out.shape == shape
    close(out, torch.nn.functional.pad(torch.tensor(values), pad, value=0.5).numpy())


def test_one_hot_reads_the_number_of_classes():
    assert F.one_hot(dg.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert F.one_hot(dg.tensor([0]), 2).dtype == dg.int64


def test_dropout_keeps_the_mean_and_follows_the_seed():
    layer = nn.Dropout(0.25)
    x = dg.ones((200, 100))
    dg.manual_seed(3)
    first = layer(x)
    dg.manual_seed(3)
    assert (layer(x) == first).all()
    values = np.asarray(first)
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    # 20,000 draws: five standard deviations of the mean are 0.02.
    assert abs(values.mean() - 1) < 0.02
    assert (layer.eval()(x) == x).all()
    assert (nn.Dropout(1.0)(x) == 0).all()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.Linear(-1, 2), "in_features=-1"),
        (lambda: nn.Linear("4", 2), "in_features='4' is a text"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "does not divide"),
        (lambda: nn.Conv2d(3, 4, 0), "kernel_size=0"),
        (lambda: nn.Conv2d(3, 4, None), "kernel_size is None"),
        (lambda: nn.Conv2d(3, 4, 3, padding=1.5), "padding=1.5"),
        (lambda: nn.MaxPool2d(2, padding=(1, "x")), "padding=\\(1, 'x'\\)"),
        (lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"), "padding=\"same\" with stride"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="odd"), "padding_mode='odd'"),
        (lambda: nn.MaxPool2d(0), "kernel_size=0"),
        (lambda: nn.Dropout(1.5), "not a probability"),
        (lambda: nn.Embedding(4, 2, padding_idx=4), "padding_idx=4 is outside"),
        (lambda: nn.Embedding(4, 2, sparse=True), "sparse=True is not supported"),
        (lambda: nn.CrossEntropyLoss(reduction="average"), "reduction='average'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=1.0), "outside"),
        (lambda: nn.GELU("fast"), "approximate='fast'"),
        (lambda: nn.init.kaiming_uniform_(dg.zeros((3,))), "fan-in"),
        (lambda: nn.Linear(3, 2)(dg.ones((4, 5))), "features"),
        (lambda: nn.Conv2d(3, 4, 3)(dg.ones((1, 2, 5, 5))), "2 channels"),
        (lambda: nn.LayerNorm(4)(dg.ones((2, 3))), r"does not end in \[4\]"),
        (lambda: nn.MaxPool2d(3)(dg.ones((1, 1, 2, 2))), "larger than the padded image"),
        (lambda: nn.CrossEntropyLoss()(dg.ones((2, 3)), dg.tensor([1, 2, 0])), "does not fit logits"),
        (lambda: nn.CrossEntropyLoss(dg.ones((2,)))(dg.ones((2, 3)), dg.tensor([1, 2])), "3 classes"),
        (lambda: nn.MSELoss()(dg.ones((2,)), dg.ones((2, 1))), "differ in shape"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(make, match):
    with pytest.raises(dg.errors.DuogradError, match=match) as error:
        make()
    assert "test_nn_layers.py" in error.value.line


# ---------------------------------------------------------------- initialisers


def test_the_default_initialisation_is_torchs(torch):
    ours, theirs = nn.Linear(300, 200), torch.nn.Linear(300, 200)
    for p, q in zip(ours.parameters(), theirs.parameters()):
        bound = 1 / math.sqrt(300)
        assert np.abs(p.detach().numpy()).max() <= bound
        # Sixty thousand weights: the largest is close to the bound, the deviation to bound / sqrt(3).
        assert abs(p.detach().numpy().std() - q.detach().numpy().std()) < 0.1 * bound


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("kaiming_uniform_", {"nonlinearity": "relu"}), ("kaiming_normal_", {"mode": "fan_out"}),
        ("xavier_uniform_", {"gain": 2.0}), ("xavier_normal_", {}), ("uniform_", {"a": -2.0, "b": 3.0}),
        ("normal_", {"mean": 1.0, "std": 0.5}), ("constant_", {}), ("zeros_", {}), ("ones_", {}),
    ],
)  # fmt: skip
def test_initialiser_has_torchs_mean_and_deviation(torch, name, kwargs):
    shape = (64, 32, 3, 3)
    args = (0.25,) if name == "constant_" else ()
    x = getattr(nn.init, name)(dg.zeros(shape), *args, **kwargs)
    y = getattr(torch.nn.init, name)(torch.zeros(shape), *args, **kwargs)
    scale = max(y.std().item(), 1e-6)
    # 18,432 draws: within four per cent of the deviation.
    assert abs(np.asarray(x).mean() - y.mean().item()) < 0.04 * scale
    assert abs(np.asarray(x).std() - y.std().item()) < 0.04 * scale


def test_initialisation_follows_the_seed():
    dg.manual_seed(5)
    a = nn.Linear(4, 3)
    dg.manual_seed(5)
    assert nn.Linear(4, 3).weight.tolist() == a.weight.tolist()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_rows_of_recurrent_layers_do_not_depend_on_the_batch(kind):
    layer = getattr(nn, kind)(7, 50)

    def run(x):
        x = dg.tensor(x, requires_grad=True)
        y = layer(x)[0]
        y.sum().backward()
        return y.detach().numpy(), x.grad.numpy()

    x = np.random.standard_normal((3, 17, 7)).astype(np.float32)
    whole = run(x)
    for rows in (1, 2, 3, 4, 5, 7, 9, 11):
        for some, all_ in zip(run(x[:, :rows]), whole):
            np.testing.assert_array_equal(some, all_[:, :rows])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_states_and_biases_of_recurrent_layers_of_another_dtype_are_refused(mode):
    """The kernel read float64 as float32, past the end of it."""
    x, h, c = dg.ones(3, 2, 4), dg.ones(2, 3), dg.ones(2, 3).to(dg.float64)
    lstm, gru = dg.nn.LSTM(4, 3), dg.nn.GRU(4, 3)
    gru.bias_hh_l0 = dg.nn.Parameter(dg.ones(9).to(dg.float64))
    with pytest.raises(dg.errors.DtypeError, match="c0: float64"):
        dg.function(lambda: lstm(x, (h[None], c[None])), mode=mode)()
    with pytest.raises(dg.errors.DtypeError, match="b: float64"):
        dg.function(lambda: gru(x), mode=mode)()


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int32", "int64"])
def test_classes_and_pivots_of_any_integer_dtype_count_alike(kind, mode):
    """-100 does not fit into uint8, said Python; the kernel read pivots of other dtypes as int32."""
    x, target = dg.linspace(-1, 1, 12).reshape(3, 4), dg.tensor([3, 0, 2])
    lu, pivots = dg.linalg.lu_factor(dg.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 3.0], [2.0, 1.0, 0.0]]))
    losses = lambda target: (F.cross_entropy(x, target), F.nll_loss(x, target, ignore_index=200))
    solved = lambda pivots: dg.linalg.lu_solve(lu, pivots, dg.ones(3, 2))
    for a, b in zip(dg.function(losses, mode=mode)(target.to(kind)), losses(target), strict=True):
        assert a.item() == b.item()
    assert dg.function(solved, mode=mode)(pivots.to(kind)).tolist() == solved(pivots).tolist()
    with pytest.raises(dg.errors.ShapeError, match="pivots"):
        solved(pivots.to(dg.float32))
