"""Arguments of all wrong kinds, for every public function: an error in the project's form or a result, nothing bare."""

import collections
import inspect
import random
import re
import warnings

import duograd as dg
import numpy as np
import pytest
from duograd.core.op import PUBLIC, REGISTRY

HOSTILE = ["a", None, {}, b"", int, object(), np.array([object()], dtype=object), 2**70]
#: what is needed and is no tensor
GIVEN = {
    "shape": (2, 3), "sizes": (2, 3), "axis": 0, "axis1": 0, "axis2": 1, "axes": (1, 0), "xs": [dg.ones((2, 3))] * 2,
    "n": 3, "num": 3, "k": 1, "start": 0, "stop": 3, "length": 1, "window": 2, "kernel_size": 2, "output_size": 2,
    "equation": "ij->ji", "p": 0.5, "reduce": "sum", "dim": 0, "groups": 1, "size": (2, 3), "normalized_shape": (3,),
    "num_groups": 1, "fill_value": 1.0, "value": 1.0, "q": 0.5, "low": 0, "high": 5, "norm_type": 2.0,
}  # fmt: skip
#: what Python and NumPy say where a value is not what their code, or ours, asks for
FOREIGN = re.compile(
    r"\w+Error\b|Error: |' object |has no attribute|not supported between|unsupported operand"
    r"|ufunc|truth value|inhomogeneous|has no len|unhashable|argument must be|could not convert|takes \d+ positional"
)
FUNCTIONS = {f"dg.{n}": f for n, f in PUBLIC.items()}
FUNCTIONS |= {f"F.{n}": getattr(dg.nn.functional, n) for n in dg.nn.functional.__all__}
FUNCTIONS |= {f"fft.{n}": getattr(dg.fft, n) for n in dg.fft.__all__}
FUNCTIONS |= {f"utils.{n}": f for n, f in vars(dg.nn.utils).items() if inspect.isfunction(f) and n[0] != "_"}
FUNCTIONS |= {f"{n}": op for n, op in REGISTRY.items() if not op.internal and f"dg.{n}" not in FUNCTIONS}


def calls(fn):
    """Calls with one argument of a wrong kind each, by the argument's name."""
    taken = inspect.signature(fn).parameters.values()
    needed = [GIVEN.get(p.name, dg.ones((2, 3))) for p in taken if p.default is p.empty and p.kind <= 2]
    for k, p in enumerate(taken):
        for x in HOSTILE:
            if k < len(needed):
                yield p.name, lambda x=x, k=k: fn(*needed[:k], x, *needed[k + 1 :])
            elif p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                yield p.name, lambda x=x, n=p.name: fn(*needed, **{n: x})


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_nothing_bare_leaves_a_function(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of numbers that are no numbers
        for argument, call in calls(FUNCTIONS[name]):
            try:
                call()
            except dg.errors.DuogradError as e:
                text = str(e)
                assert "test_hostile.py:" in text, (argument, text)
                assert "fix:" in text, (argument, text)
                assert not FOREIGN.search(text), (argument, text)
                assert len(text) < 1500
            except Exception as e:
                raise AssertionError(f"{argument}: {type(e).__name__}: {e}") from e


LAYERS = {n: c for n, c in vars(dg.nn).items() if isinstance(c, type) and issubclass(c, dg.nn.Module)}
NAN = float("nan")
#: kinds of values, of which every argument meets some in both modes
ALSO = [
    "a", None, {}, 2**40, -(2**40), -7, 0, NAN, float("inf"), 1j, [], [1, 2], ["a"], [None], (-1, -1), [[1, 2], [3]],
    {1}, np.ones((2, 3)), np.array(["a"]), dg.ones((2, 3)), dg.zeros((2, 3), dtype="int64"), dg.ones((2, 3)) > 0,
    dg.ones((2, 3), dtype="complex64"), dg.tensor(1.5), dg.zeros((0, 3)), dg.ones((5,)), dg.ones((1, 2, 3, 4)),
    dg.full((2, 3), NAN), dg.full((2, 3), -5, dtype="int64"), [dg.ones((2, 3)), None], dg.float32, slice(None), ...,
]  # fmt: skip
#: more than constructors need than functions
SIZES = dict.fromkeys((
    "in_features", "out_features", "in1_features", "in2_features", "in_channels", "out_channels", "num_features",
    "num_channels", "input_size", "hidden_size", "num_embeddings", "embedding_dim", "embed_dim", "d_model",
    "upscale_factor", "downscale_factor", "padding", "num_layers", "dim_feedforward", "threshold",
), 2) | {"num_heads": 1, "nhead": 1, "negative_slope": 0.1}  # fmt: skip


def refusal(call, mode):
    """The error of a call, and what is wrong with its words; None where there is none."""
    try:
        found = dg.function(call, mode=mode)()
        if isinstance(found, dg.Tensor):
            assert all(type(n) is int for n in found.shape), found.shape
    except dg.errors.DuogradError as e:
        text = str(e)
        good = "test_hostile.py:" in text and "fix:" in text and not FOREIGN.search(text)
        return type(e), re.sub(r"[\d,]+ (bytes|are available)|at 0x\w+", "", text), good
    except Exception as e:
        return type(e), str(e), False
    return None


def drawn(name, fn, draw):
    """A call with one argument of another kind."""
    taken = list(inspect.signature(fn).parameters.values())
    needed = [p for p in taken if p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD]
    row = [GIVEN.get(p.name, SIZES.get(p.name, dg.ones((2, 3)))) for p in needed]
    row = [y.clone() if isinstance(y, dg.Tensor) else y for y in row]
    among = [p for p in taken[hasattr(dg.Tensor, name) :] if p.kind is not p.VAR_KEYWORD]
    if not among:
        return "", None, lambda: None
    p, x = draw.choice(among), draw.choice(ALSO)
    if p in needed:
        row[needed.index(p)] = x
        return p.name, x, lambda: fn(*row)
    return p.name, x, lambda: fn(*row, x) if p.kind is p.VAR_POSITIONAL else fn(*row, **{p.name: x})


METHODS = {
    n: getattr(dg.Tensor, n)
    for n in dir(dg.Tensor)
    if n[0] != "_" and inspect.isfunction(getattr(dg.Tensor, n, None))
}


@pytest.mark.parametrize("table", [FUNCTIONS, METHODS, LAYERS], ids=["functions", "methods", "layers"])
def test_what_is_of_another_kind_is_refused_alike_in_both_modes(table, capsys):
    draw = random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong = []
        for name, fn in table.items():
            argument, x, call = drawn(name, fn, draw)
            eager = refusal(call, "eager")
            if eager is not None and (not eager[2] or refusal(call, "graph") != eager):
                wrong.append((name, argument, x, eager, refusal(call, "graph")))
    assert not wrong


@pytest.mark.parametrize("wrong", ["a", 1.5, [], object()], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_flags_are_true_or_false(wrong, mode):
    x = dg.ones((2, 3))
    for call, name in (
        (lambda: x.sum(keepdims=wrong), "keepdims"),
        (lambda: dg.quantile(x, 0.5, keepdims=wrong), "keepdims"),
        (lambda: dg.nn.functional.dropout(x, training=wrong), "training"),
    ):
        with pytest.raises(dg.errors.ArgumentTypeError, match=f"give {name} as True or False"):
            dg.function(call, mode=mode)()
    assert x.sum(axis=1, keepdims=1).shape == (2, 1)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_number_or_none_for_a_tensor_is_named(mode):
    x, F, lstm = dg.ones((2, 3)), dg.nn.functional, dg.nn.LSTM(3, 2)
    for call, text in (
        (lambda: F.linear(1.5, x), "x=1.5 is a float; got w: float32"),
        (lambda: F.conv2d(1.5, x), "x=1.5 is a float"),
        (lambda: F.elu(None), "x is None"),
        (lambda: lstm(1.5), "1.5"),
    ):
        with pytest.raises(dg.errors.ArgumentTypeError, match=text):
            dg.function(call, mode=mode)()


def test_a_layer_says_what_it_is_called_with():
    layer, x = dg.nn.Linear(3, 2), dg.ones((1, 3))
    for call, text in (
        (lambda: layer(), r"\[Linear\] misses x"),
        (lambda: layer(x, x), r"\[Linear\] takes 1 by position, got 2"),
        (lambda: layer(x, y=x), r"\[Linear\] got y="),
    ):
        with pytest.raises(dg.errors.ArgumentTypeError, match=text) as caught:
            call()
        assert "test_hostile.py:" in str(caught.value)

    class Mine(dg.nn.Module):
        def forward(self, x):
            return x + None if x is None else len(x)

    with pytest.raises(TypeError, match="unsupported operand"):
        Mine()(None)  # the user's own
    with pytest.raises(TypeError, match="missing 1 required"):
        Mine()()


def same(before, after):
    return all(np.array_equal(a, b.detach().numpy()) for a, b in zip(before, after))


def test_a_state_that_does_not_fit_changes_nothing():
    layer = dg.nn.Linear(3, 2)
    optimizer = dg.optim.Adam(layer.parameters(), lr=0.1)
    layer(dg.ones((1, 3))).sum().backward()
    optimizer.step()
    tensors = [*layer.parameters(), *(t for row in optimizer.state.values() for t in row.values())]
    before = [t.detach().numpy().copy() for t in tensors]
    good, state = layer.state_dict(), optimizer.state_dict()
    good = {n: t + 1 for n, t in good.items()}
    more = {k: {n: t + 1 for n, t in row.items()} for k, row in state["state"].items()}
    (group,) = state["param_groups"]
    for wrong in (None, 3, {**good, "bias": "a"}, {**good, "bias": np.array(["a"])}, {**good, 3: 4}):
        with pytest.raises(dg.errors.DuogradError):
            layer.load_state_dict(wrong)
        assert same(before, tensors)
    for wrong in (
        None, 3, {}, {"state": 3, "param_groups": [group]}, {"state": more, "param_groups": [3]},
        {"state": {**more, "a": {}}, "param_groups": [group]}, {"state": {**more, 1: 3}, "param_groups": [group]},
        {"state": more, "param_groups": [{**group, "params": 3}]},
        *({"state": more, "param_groups": [{**group, **s}]} for s in ({"lr": "a"}, {"betas": 3}, {"betas": (2, 2)})),
    ):  # fmt: skip
        with pytest.raises(dg.errors.DuogradError):
            optimizer.load_state_dict(wrong)
        assert same(before, tensors)
        assert optimizer.param_groups[0]["lr"] == 0.1
    for wrong in (
        None,
        3,
        {},
        {"params": 3},
        {"params": [3]},
        {"params": [dg.nn.Parameter(dg.ones(2))], "lr": "a"},
    ):
        with pytest.raises(dg.errors.DuogradError):
            optimizer.add_param_group(wrong)
        assert len(optimizer.param_groups) == len(optimizer._plans) == 1
    for wrong in (
        lambda: optimizer.step(3),
        lambda: dg.optim.lr_scheduler.StepLR(optimizer, 2).load_state_dict(3),
    ):
        with pytest.raises(dg.errors.DuogradError):
            wrong()


def test_containers_take_all_or_nothing():
    row, named = dg.nn.Sequential(dg.nn.ReLU()), dg.nn.ModuleDict()
    for call in (
        lambda: row.extend([dg.nn.ReLU(), 3]), lambda: row.append(3), lambda: row.insert("a", dg.nn.ReLU()),
        lambda: named.update([("a", dg.nn.ReLU()), ("b", 3)]), lambda: named.update({"a": dg.nn.ReLU(), "b.c": row}),
        lambda: named.update(["ab"]), lambda: named.update(3), lambda: dg.nn.ModuleDict(["ab"]),
    ):  # fmt: skip
        with pytest.raises(dg.errors.DuogradError):
            call()
    assert (len(row), len(named)) == (1, 0)


@pytest.mark.parametrize("method", ["add_", "mul_", "copy_", "pow_", "__setitem__"])
def test_in_place_with_another_shape_changes_nothing(method):
    x = dg.ones((2, 3))
    with pytest.raises(dg.errors.ShapeError):
        getattr(x, method)(*([0] if method == "__setitem__" else []), dg.full((7,), 2.0))
    assert same([np.ones((2, 3))], [x])


@pytest.mark.parametrize("size", [2**70, 2**21])
def test_more_layers_than_memory_holds(size):
    layer = dg.nn.TransformerEncoderLayer(4, 1, 4)
    for make in (
        lambda: dg.nn.LSTM(2, 3, num_layers=size),
        lambda: dg.nn.TransformerEncoder(layer, size),
        lambda: dg.nn.Transformer(4, 1, size, 1, 4),
    ):
        with pytest.raises(dg.errors.ArgumentError, match="too large"):
            make()


def test_positions_and_sizes_of_loaders():
    rows = dg.data.TensorDataset(dg.ones((4, 2)))
    for call in (
        lambda: dg.data.Subset(rows, 3), lambda: dg.data.Subset(rows, [0.5]), lambda: dg.data.Subset(rows, [[0]]),
        lambda: dg.data.SubsetRandomSampler(["a"]), lambda: dg.data.BatchSampler([0], 2**70),
        lambda: dg.data.RandomSampler(rows, num_samples=-1), lambda: dg.data.DataLoader(rows, num_workers=2**40),
        lambda: dg.data.DataLoader(rows).set_epoch("a"),
    ):  # fmt: skip
        with pytest.raises(dg.errors.DuogradError) as caught:
            call()
        assert "test_hostile.py:" in str(caught.value)


def test_no_dtype_is_no_dtype():
    with pytest.raises(dg.errors.DtypeError, match="None is not a dtype"):
        dg.nn.Linear(2, 2).to(None)
    with pytest.raises(dg.errors.DtypeError, match="is not a dtype"):
        dg.nn.Linear(2, 2, dtype=dg.ones(2))


#: constructors with an argument that is of the right kind and outside its range
OUTSIDE = {
    "BatchNorm1d": (lambda m: (3,), {"eps": (-1, NAN), "momentum": (-0.1, 2, NAN)}),
    "LayerNorm": (lambda m: (3,), {"eps": (-1e-5, NAN)}),
    "GroupNorm": (lambda m: (1, 3), {"eps": (-1, NAN)}),
    "RMSNorm": (lambda m: (3,), {"eps": (-1, NAN)}),
    "InstanceNorm2d": (lambda m: (3,), {"eps": (-1, NAN)}),
    "LocalResponseNorm": (lambda m: (2,), {"size": (0, -1, 2**70)}),
    "AvgPool2d": (lambda m: (2,), {"kernel_size": (0, -1, 2**70, (2, -1)), "divisor_override": (0, -2)}),
    "MaxPool1d": (lambda m: (2,), {"kernel_size": (-1,), "stride": (-2, 2**70), "dilation": (0,)}),
    "LPPool2d": (lambda m: (2, 2), {"norm_type": (0, -1, NAN)}),
    "AdaptiveAvgPool2d": (lambda m: (2,), {"output_size": (-1, (2, -1), 2**70)}),
    "Conv2d": (lambda m: (1, 1, 2), {"stride": (0, 2**70), "dilation": (-1,)}),
    "ConvTranspose2d": (lambda m: (1, 1, 2), {"output_padding": (-1,)}),
    "Fold": (lambda m: (4, 2), {"output_size": (-1,), "kernel_size": (0,), "stride": (-1,)}),
    "FractionalMaxPool2d": (lambda m: (2,), {"kernel_size": (0, -1)}),
    "HuberLoss": (lambda m: (), {"delta": (0, -1, NAN)}),
    "SmoothL1Loss": (lambda m: (), {"beta": (-1, NAN)}),
    "GaussianNLLLoss": (lambda m: (), {"eps": (0, NAN)}),
    "MarginRankingLoss": (lambda m: (), {"margin": (NAN,)}),
    "CTCLoss": (lambda m: (), {"blank": (-1, 2**70)}),
    "PairwiseDistance": (lambda m: (), {"p": (0, -1, NAN)}),
    "LeakyReLU": (lambda m: (), {"negative_slope": (NAN,)}),
    "Softplus": (lambda m: (), {"beta": (NAN,), "threshold": (NAN,)}),
    "Embedding": (lambda m: (3, 2), {"max_norm": (-1, NAN), "norm_type": (NAN,)}),
    "StepLR": (lambda m: (m, 2), {"gamma": (-1, NAN)}),
    "ExponentialLR": (lambda m: (m,), {"gamma": (-1, NAN)}),
    "CosineAnnealingLR": (lambda m: (m, 3), {"eta_min": (-1, NAN)}),
    "LinearLR": (lambda m: (m,), {"total_iters": (-1, 2**70)}),
    "PolynomialLR": (lambda m: (m,), {"power": (NAN,), "total_iters": (0,)}),
    "ReduceLROnPlateau": (lambda m: (m,), {"patience": (-1,), "cooldown": (-1,), "threshold": (NAN,), "min_lr": (-1,)}),
    "LBFGS": (lambda m: (m.param_groups[0]["params"],), {"max_eval": (0, -1)}),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_constructor_names_what_is_outside_its_range(name):
    make = next(getattr(s, name) for s in (dg.nn, dg.optim, dg.optim.lr_scheduler) if hasattr(s, name))
    needed, wrong = OUTSIDE[name]
    args = needed(dg.optim.SGD([dg.nn.Parameter(dg.ones(2))], lr=0.1))
    taken = list(inspect.signature(make).parameters)
    make(*args) if name != "ExponentialLR" else make(*args, gamma=0.5)
    for argument, values in wrong.items():
        at = taken.index(argument)
        for x in values:
            with pytest.raises(dg.errors.ArgumentError, match=f"{argument}=") as caught:
                make(*args[:at], x, *args[at + 1 :]) if at < len(args) else make(*args, **{argument: x})
            assert "test_hostile.py:" in str(caught.value)


def test_what_may_be_nan_is():
    assert np.isnan(dg.nn.ConstantPad1d(1, NAN)(dg.ones((1, 1, 2))).numpy()).sum() == 2
    assert np.isnan(dg.nn.Threshold(2.0, NAN)(dg.ones(2)).numpy()).all()
    assert dg.optim.lr_scheduler.LinearLR(dg.optim.SGD([dg.nn.Parameter(dg.ones(2))], lr=0.1), total_iters=0)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_class_stands_for_no_number(mode):
    """A class has the methods of its instances."""
    x = dg.ones((2, 3))
    for call in (
        lambda: dg.nn.LeakyReLU(int), lambda: dg.nn.AvgPool2d(int), lambda: x[int], lambda: x[int:],
        lambda: dg.grad(lambda a: a.sum(), argnums=int)(x), lambda: dg.topk(x, int), lambda: dg.arange(int),
        lambda: dg.nn.Linear(int, 2),
    ):  # fmt: skip
        with pytest.raises(dg.errors.DuogradError, match="int") as caught:
            dg.function(call, mode=mode)()
        assert "test_hostile.py:" in str(caught.value)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_what_python_or_numpy_raise_inside_is_said_in_our_words(mode):
    x, F = dg.ones((2, 3)), dg.nn.functional
    for call, kind in (
        (lambda: x.round(decimals=2**40), dg.errors.ArgumentError),
        (lambda: dg.ones((2, 3)).round_(decimals=2**40), dg.errors.ArgumentError),
        (lambda: dg.ones((2, 3)).tril_("a"), dg.errors.ArgumentTypeError),
        (lambda: dg.ones((2, 3)).logit_({}), dg.errors.ArgumentTypeError),
        (lambda: x.mm(np.float16(3)), dg.errors.ArgumentTypeError),
        (lambda: x.tensor_split(2**40), dg.errors.ArgumentError),
        (lambda: x.repeat_interleave([0.5, 1]), dg.errors.ArgumentTypeError),
        (lambda: F.adaptive_avg_pool1d(x[None], 2**40), dg.errors.OutOfMemoryError),
        (lambda: F.pad(x[None], (2**40, 0), mode="circular"), dg.errors.OutOfMemoryError),
        (lambda: dg.grad(lambda a: a.sum(), argnums=(0, 0))(x), dg.errors.ArgumentError),
        (lambda: dg.manual_seed(NAN), dg.errors.ArgumentTypeError),
    ):
        with pytest.raises(kind) as caught:
            dg.function(call, mode=mode)()
        assert "test_hostile.py:" in str(caught.value)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("wrong", [2.0, NAN, None, dg.tensor(1.5)], ids=str)
def test_a_part_has_whole_numbers_of_elements(mode, wrong):
    """A float was the size of a tensor, which no text and no kernel could be made of."""
    x = dg.ones((2, 3))
    for call, name in (
        (lambda: x.narrow(1, 0, wrong), "length"),
        (lambda: dg.narrow(x, 1, wrong, 2), "start"),
    ):
        with pytest.raises(
            dg.errors.ArgumentTypeError, match=rf"\[narrow\] {name}.* is .*\n.*\n.*give {name} as an integer"
        ):
            dg.function(call, mode=mode)()
    with pytest.raises(dg.errors.ArgumentTypeError, match="axis=a tensor"):
        dg.function(lambda: x.unsqueeze(dg.tensor(1.5)), mode=mode)()
    assert dg.function(lambda: x.narrow(1, dg.tensor(1), np.int64(2)), mode=mode)().shape == (2, 2)


def test_what_does_not_fit_into_a_tensor_leaves_it_as_it_was():
    x = dg.ones((2, 3))
    for value in (None, "a", ["a"], [[1, 2], [3]], np.array([object()]), {}, object(), 1j):
        with pytest.raises(dg.errors.DuogradError):
            x[0] = value
    assert same([np.ones((2, 3))], [x])


@pytest.mark.parametrize("positions", [[7], [-5], [0.5], ["a"], [2**70], [None]])
def test_a_loader_says_which_positions_are_none(positions):
    rows = dg.data.TensorDataset(dg.ones((4, 2)))
    for kind in ("sampler", "batch_sampler"):
        with pytest.raises(dg.errors.DuogradError) as caught:
            list(dg.data.DataLoader(rows, **{kind: positions if kind == "sampler" else [positions]}))
        assert "test_hostile.py:" in str(caught.value)
    with pytest.raises(dg.errors.ArgumentTypeError, match="indices=0"):
        list(dg.data.DataLoader(rows, batch_sampler=[0, 1]))


def test_a_profile_of_a_result_that_is_an_argument():
    f = dg.function(lambda x: (x, 3))
    assert f.profile((), seconds=0.001).calls


LOSSES = {
    "mse_loss": (), "l1_loss": (), "huber_loss": (), "smooth_l1_loss": (), "kl_div": (), "binary_cross_entropy": (),
    "binary_cross_entropy_with_logits": (), "poisson_nll_loss": (), "soft_margin_loss": (), "hinge_embedding_loss": (),
    "multilabel_margin_loss": (), "multilabel_soft_margin_loss": (), "gaussian_nll_loss": ("x",),
    "margin_ranking_loss": ("x",), "cosine_embedding_loss": ("v",), "triplet_margin_loss": ("x",),
    "triplet_margin_with_distance_loss": ("x",), "pairwise_distance": (), "cosine_similarity": (),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_losses_and_norms_take_no_integers_that_would_wrap_around(mode, dtype):
    x, v, F = dg.ones((2, 3), dtype=dtype), dg.ones((2,), dtype=dtype), dg.nn.functional
    calls = [
        lambda n=n, r=r: getattr(F, n)(x, x, *({"x": x, "v": v}[k] for k in r)) for n, r in LOSSES.items()
    ]
    calls += [
        lambda n=n: getattr(F, n)(x, dg.ones((2,), dtype="int64"))
        for n in ("cross_entropy", "nll_loss", "multi_margin_loss")
    ]
    calls += [
        lambda: F.normalize(x), lambda: F.layer_norm(x, (3,)), lambda: F.rms_norm(x, (3,)), lambda: F.group_norm(x, 1),
        lambda: F.batch_norm(x, None, None, training=True), lambda: F.instance_norm(x[None]), lambda: dg.pdist(x),
        lambda: dg.cdist(x, x), lambda: F.embedding_bag(dg.zeros((1, 2), dtype="int64"), x),
        lambda: F.local_response_norm(x[None], 2), lambda: dg.nn.utils.get_total_norm([x]),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(dg.errors.DtypeError) as caught:
            dg.function(call, mode=mode)()
        assert "test_hostile.py:" in str(caught.value)
    # one of them a float: the other is promoted
    assert F.mse_loss(dg.full((2,), 1.5), dg.full((2,), 200, dtype="uint8")).item() == 198.5**2


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_more_memory_than_there_is_is_refused_before_it_is_written(mode, monkeypatch):
    from duograd.backends.cpu import memory

    monkeypatch.setattr(memory, "available", lambda: 2**30)
    made = dg.function(lambda x: x.expand((2**29, 1)) + 1.0, mode=mode)
    with pytest.raises(MemoryError, match="2,147,483,648 bytes more: 1,073,741,824 are available") as caught:
        made(dg.ones((1,)))
    assert "test_hostile.py:" in str(caught.value)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_spaced_numbers_of_16_bits(mode, dtype):
    for make in (lambda: dg.linspace(0, 1, 5001, dtype=dtype), lambda: dg.geomspace(1, 2, 5001, dtype=dtype)):
        found = dg.function(make, mode=mode)().to(dg.float64).numpy()
        assert found.shape == (5001,)
        assert found[-1] == found.max()
        assert abs(found[2500] - (0.5 if found[0] == 0 else 2**0.5)) < 0.01
    assert dg.function(lambda: dg.linspace(0, 3, 3, dtype=dtype), mode=mode)().tolist() == [0.0, 1.5, 3.0]


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_numbers_of_more_than_64_bits_are_named_where_they_are_given(mode):
    x, F = dg.ones((1, 2, 3)), dg.nn.functional
    for call, text in (
        (lambda: F.avg_pool1d(x, 2, divisor_override=2**70), r"\[avg_pool1d\] divisor_override=1180591620"),
        (lambda: F.max_pool1d(x, 2, stride=2**70), r"\[max_pool1d\] stride=1180591620"),
        (lambda: F.silu(x, inplace="a"), r"\[silu\] inplace='a' is a text"),
    ):
        with pytest.raises(dg.errors.ArgumentTypeError, match=text):
            dg.function(call, mode=mode)()
    assert dg.function(lambda: dg.clip(x, max=2**70), mode=mode)().shape == x.shape  # a float as well


def test_a_line_inside_a_library_is_none_of_the_users():
    for call in (lambda: np.ones(dg.ones((2,))), lambda: collections.Counter(dg.tensor(1.0))):
        with pytest.raises(dg.errors.DuogradError) as caught:
            call()
        assert "test_hostile.py:" in str(caught.value)


def test_callbacks_name_what_does_not_fit():
    for call in (
        lambda: dg.nn.callbacks.EarlyStopping(patience="a"), lambda: dg.nn.callbacks.EarlyStopping(patience=NAN),
        lambda: dg.nn.callbacks.EarlyStopping(min_delta=None), lambda: dg.nn.callbacks.ModelCheckpoint(3),
        lambda: dg.nn.callbacks.EarlyStopping(monitor=3), lambda: dg.bench(lambda: None, seconds=NAN),
    ):  # fmt: skip
        with pytest.raises(dg.errors.DuogradError) as caught:
            call()
        assert "test_hostile.py:" in str(caught.value)


@pytest.mark.parametrize("name", ["fit", "evaluate", "predict"])
def test_a_trainer_looks_at_what_it_is_given_before_it_runs(name):
    model = dg.nn.Linear(3, 2)
    trainer = dg.nn.Trainer(model, dg.nn.MSELoss(), dg.optim.SGD(model.parameters(), lr=0.1))
    loader = dg.data.DataLoader(dg.data.TensorDataset(dg.ones((4, 3)), dg.ones((4, 2))))
    for x in (0, -1, "a", None, 2**70, 1.5, True):
        with pytest.raises(dg.errors.DuogradError, match="batch_size"):
            getattr(trainer, name)(loader, batch_size=x)


@pytest.mark.parametrize(
    "words",
    [
        ["demo", "--epochs", "-1"], ["demo", "--epochs", "a"], ["bench", "--threads", "0"],
        ["bench", "--budget", "nan"],
        ["bench", "--json", "/nowhere/x.json"], ["ops", "--markdown", "/nowhere/x"], ["onnx", "run", "."],
        ["onnx", "info", "/nowhere.onnx"], ["onnx", "run", "x", "--batch", "-1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_the_command_line_says_what_is_wrong(words, capsys):
    from duograd.interop.cli import main

    try:
        status = main(words)
    except SystemExit as e:
        status = e.code
    said = capsys.readouterr().err
    assert status in (1, 2)
    assert "Traceback" not in said
    assert said


def test_nothing_for_a_tensor_and_no_device_are_said_alike_in_both_modes():
    for call in (
        lambda: dg.linalg.cholesky(None), lambda: dg.linalg.svd(None), lambda: dg.linalg.eigh(None),
        lambda: dg.concat([]), lambda: dg.linalg.norm(None), lambda: dg.fft.fftfreq(3, device=()),
        lambda: dg.zeros((3,), device="b"),
    ):  # fmt: skip
        said = []
        for mode in ("eager", "graph"):
            with pytest.raises(dg.errors.DuogradError) as caught:
                dg.function(call, mode=mode)()
            said.append((type(caught.value), str(caught.value)))
        assert said[0] == said[1]


@pytest.mark.parametrize("wrong", ["a", {}, int, NAN, 2**70, -7, object()])
def test_a_function_is_as_it_was_after_a_wrong_call(wrong):
    """The call is refused inside a trace: nothing of it is kept, and the next call is right."""
    layer, total = dg.nn.Linear(3, 2), dg.zeros(())
    optimizer = dg.optim.SGD(layer.parameters(), lr=0.1)

    @dg.function
    def step(x, axis):
        total.add_(1.0)
        optimizer.zero_grad()
        loss = layer(x).square().sum(axis=axis).sum()
        loss.backward()
        optimizer.step()
        return loss

    x = dg.ones((1, 3))
    before = [p.detach().numpy().copy() for p in layer.parameters()]
    for _ in range(2):
        with pytest.raises(dg.errors.DuogradError) as caught:
            step(x, wrong)
        assert "test_hostile.py:" in str(caught.value)
    with pytest.raises(dg.errors.DuogradError) as eager, dg.mode("eager"):
        step(x, wrong)
    assert str(eager.value) == str(caught.value)
    assert same(before, layer.parameters())
    made = dg.function(lambda x: x * 2, mode="graph")
    assert made(x).tolist() == [[2.0, 2.0, 2.0]]
    assert np.isfinite(step(x, 0).item())
    assert not same(before, layer.parameters())
