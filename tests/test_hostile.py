"""Arguments of all wrong kinds, for every public function: an error in the project's form or a result, nothing bare."""

import inspect
import warnings

import duograd as dg
import numpy as np
import pytest
from duograd.core.op import PUBLIC, REGISTRY

HOSTILE = ["a", None]
#: what is needed and is no tensor
GIVEN = {
    "shape": (2, 3), "sizes": (2, 3), "axis": 0, "axis1": 0, "axis2": 1, "axes": (1, 0), "xs": [dg.ones((2, 3))] * 2,
    "n": 3, "num": 3, "k": 1, "start": 0, "stop": 3, "length": 1, "window": 2, "kernel_size": 2, "output_size": 2,
    "equation": "ij->ji", "p": 0.5, "reduce": "sum", "dim": 0, "groups": 1, "size": (2, 3), "normalized_shape": (3,),
    "num_groups": 1, "fill_value": 1.0, "value": 1.0, "q": 0.5, "low": 0, "high": 5, "norm_type": 2.0,
}  # fmt: skip
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
                assert len(text) < 1500
            except Exception as e:
                raise AssertionError(f"{argument}: {type(e).__name__}: {e}") from e


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
