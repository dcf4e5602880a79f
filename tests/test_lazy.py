"""Layers that learn the size of their input, and parameters that a step makes, in both modes, beside PyTorch's."""

import copy
import re

import duograd as dg
import numpy as np
import pytest
from duograd import nn

MODES = ("eager", "graph")


@pytest.fixture
def torch():
    return pytest.importorskip(
        "torch", reason="PyTorch is not installed: lazy layers are not compared with it"
    )


CASES = {
    "Linear": ((4,), {}, (3, 5)), "Linear without bias": ((4,), {"bias": False}, (2, 3, 5)),
    "Conv1d": ((4, 2), {}, (2, 3, 6)), "Conv2d": ((4, 3), {"padding": 1}, (2, 3, 6, 6)),
    "Conv2d of groups": ((4, 3), {"groups": 2}, (2, 6, 6, 6)), "Conv2d of one": ((4, 3), {}, (3, 6, 6)),
    "Conv3d": ((2, 2), {}, (1, 3, 4, 4, 4)), "ConvTranspose1d": ((4, 2), {}, (2, 3, 6)),
    "ConvTranspose2d": ((4, 2), {"stride": 2}, (2, 3, 4, 4)), "ConvTranspose3d": ((2, 2), {}, (1, 3, 3, 3, 3)),
    "BatchNorm1d": ((), {}, (4, 3)), "BatchNorm2d": ((), {"momentum": 0.3}, (4, 3, 2, 2)),
    "BatchNorm3d": ((), {"affine": False}, (2, 3, 2, 2, 2)), "InstanceNorm1d": ((), {}, (2, 3, 5)),
    "InstanceNorm2d": ((), {"affine": True}, (2, 3, 4, 4)), "InstanceNorm3d": ((), {}, (2, 3, 2, 2, 2)),
}  # fmt: skip


def numbers(shape):
    return np.linspace(-1, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape) ** 2


@pytest.mark.parametrize("case", CASES)
def test_a_lazy_layer_becomes_the_one_of_torch(case, torch):
    args, kwargs, shape = CASES[case]
    kind = f"Lazy{case.split()[0]}"
    theirs = getattr(torch.nn, kind)(*args, **kwargs)
    x = numbers(shape)
    theirs(torch.tensor(x))
    for mode in MODES:
        ours = getattr(nn, kind)(*args, **kwargs)
        held = dict(ours.named_parameters())
        run = dg.function(ours, mode=mode)
        run(dg.tensor(x))
        assert type(ours).__name__ == type(theirs).__name__
        assert repr(ours).split("(")[0] == repr(theirs).split("(")[0]
        state = ours.state_dict()
        assert {n: t.shape for n, t in state.items()} == {
            n: tuple(t.shape) for n, t in theirs.state_dict().items()
        }
        assert all(held[n] is p and type(p) is nn.Parameter for n, p in ours.named_parameters())
        with dg.no_grad():
            for n, t in theirs.state_dict().items():
                state[n].copy_(dg.tensor(t.numpy()))
        for _ in range(3):
            got, want = run(dg.tensor(x)), theirs(torch.tensor(x))
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-4, atol=1e-5)
        assert mode == "eager" or len(run.variants) == 1


def a_model():
    return nn.Sequential(nn.LazyLinear(4), nn.Dropout(0.5), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))


def test_a_model_of_lazy_layers_trains_alike_in_both_modes():
    both = []
    for mode in MODES:
        dg.manual_seed(0)
        model = a_model()
        f = dg.function(model, mode=mode)
        x = dg.randn(6, 3)
        first = f(x).tolist()
        optimizer = dg.optim.Adam(model.parameters(), lr=0.1)

        @dg.function(mode=mode)
        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        both.append((first, [step(x).item() for _ in range(4)], [p.tolist() for p in model.parameters()]))
        assert mode == "eager" or len(step.variants) == 1
    assert both[0] == both[1]


def test_a_step_that_meets_a_lazy_layer_is_a_graph_from_its_second_call():
    model = a_model()

    @dg.function
    def step(x):
        return model(x).sum()

    for _ in range(8):
        step(dg.ones(4, 3))
    assert len(step.variants) == 1
    assert step.variants[0].calls == 6
    assert "ran at a call, op by op: it gives a LazyLinear its sizes" in step.explain()


def test_nothing_is_drawn_before_the_first_call():
    dg.manual_seed(3)
    lazy = nn.LazyLinear(2)
    lazy(dg.ones(1, 4))
    dg.manual_seed(3)
    plain = nn.Linear(4, 2)
    assert lazy.weight.tolist() == plain.weight.tolist()
    assert lazy.bias.tolist() == plain.bias.tolist()


def test_what_needs_a_shape_before_says_what_to_do():
    for use in (
        lambda m: dg.optim.Adam(m.parameters()),
        lambda m: m.state_dict(),
        lambda m: m.load_state_dict({"weight": dg.ones(2, 3), "bias": dg.ones(2)}),
        lambda m: m.weight.shape,
        lambda m: m.weight * 2,
    ):
        with pytest.raises(
            dg.errors.ArgumentError, match="has no shape before the layer's first call"
        ) as found:
            use(nn.LazyLinear(2))
        assert "call the model once on a batch" in str(found.value)
    with pytest.raises(dg.errors.ShapeError, match="has no axis -3"):
        nn.LazyConv2d(2, 1)(dg.ones(3))
    with pytest.raises(dg.errors.ArgumentTypeError, match="takes a tensor"):
        nn.LazyLinear(2)(3)


def test_a_lazy_layer_is_moved_frozen_and_copied_before_its_first_call():
    layer = nn.LazyLinear(2).double().requires_grad_(False).eval()
    layer.zero_grad()
    other = copy.deepcopy(layer)
    for m in (layer, other):
        out = m(dg.ones(1, 3, dtype=dg.float64))
        assert (out.dtype, m.weight.dtype, m.weight.requires_grad, m.training) == (
            dg.float64,
            dg.float64,
            False,
            False,
        )
    assert layer.weight is not other.weight


@pytest.mark.parametrize("kind", [n for n in nn.__all__ if n.startswith("Lazy")])
def test_examples_of_lazy_layers_are_true(kind):
    left, right = re.search(r"Example: `(.+)` is `(.+)`", getattr(nn, kind).__doc__).groups()
    assert eval(left, {"dg": dg}) == eval(right)


# ---------------------------------------------------------------- parameters that a step makes


class Late(nn.Module):
    def __init__(self):
        self.weight = None

    def forward(self, x):
        if self.weight is None:
            self.weight = nn.Parameter(dg.ones(x.shape[-1]) * 2)
        return (x * self.weight).sum()


def test_a_parameter_made_at_the_first_call_is_the_modules():
    both = []
    for mode in MODES:
        model = Late()
        f = dg.function(model, mode=mode)
        found = []
        for _ in range(6):
            model.zero_grad()
            out = f(dg.ones(3))
            out.backward()
            found.append((out.item(), model.weight.grad.tolist()))
        assert [n for n, _ in model.named_parameters()] == ["weight"]
        assert mode == "eager" or f.variants[0].calls == 4
        both.append(found)
    assert both[0] == both[1]


def test_a_parameter_made_at_every_call_leaves_the_function_to_python():
    @dg.function
    def f(x):
        p = nn.Parameter(x * 2)
        (p * p).sum().backward()
        return p.grad

    for _ in range(4):
        assert f(dg.ones(2)).tolist() == [4.0, 4.0]
    assert "runs at every call, op by op: it makes a parameter" in f.explain()
    with pytest.raises(dg.errors.TraceError, match="a parameter cannot be made"):
        dg.vmap(lambda x: nn.Parameter(x))(dg.ones(2, 2))


def test_deviation_and_mean_are_those_of_torch(torch):
    x = numbers((3, 4))
    for name in ("std_mean", "var_mean"):
        for words, peer in (
            ({}, {}),
            ({"axis": 1}, {"dim": 1}),
            ({"axis": 0, "keepdims": True}, {"dim": 0, "keepdim": True}),
        ):
            want = getattr(torch, name)(torch.tensor(x), correction=1, **peer)
            for mode in MODES:
                got = dg.function(lambda t, n=name, w=words: getattr(dg, n)(t, correction=1, **w), mode=mode)(
                    dg.tensor(x)
                )
                for a, b in zip(got, want, strict=True):
                    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


def test_members_under_each_of_their_paths_are_those_of_torch(torch):
    def a_net(lib):
        first = lib.nn.Linear(2, 2)
        return lib.nn.Sequential(first, lib.nn.BatchNorm1d(2), first)

    ours, theirs = a_net(dg), a_net(torch)
    for kind in ("named_modules", "named_parameters", "named_buffers"):
        for once in (True, False):
            names = [
                [n for n, _ in getattr(m, kind)(prefix="net", remove_duplicate=once)] for m in (ours, theirs)
            ]
            assert names[0] == names[1]
    assert list(ours.state_dict(prefix="net.")) == list(theirs.state_dict(prefix="net."))
    assert ours.state_dict(keep_vars=True)["0.weight"] is ours[0].weight
