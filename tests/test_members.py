"""Assigning to attributes of modules: what drops a parameter, a buffer or a module is an error, in both modes."""

import copy
import operator
import pickle

import duograd as dg
import pytest
from duograd import nn


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: modules are not compared with it")


def a_net(nn, zeros):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(zeros((2, 3)))
            self.fc = nn.Linear(3, 3)
            self.register_buffer("mean", zeros((3,)))
            self.register_buffer("nothing", None)
            self.register_parameter("bias", None)
            self.add_module("head", None)
            self.plain = zeros((3,))
            self.none = None

    return Net()


class Net(nn.Module):
    def __init__(self):
        made = a_net(nn, dg.zeros)
        self.__dict__.update(made.__dict__)


NAMES = ("weight", "fc", "mean", "nothing", "bias", "head", "plain", "none", "new")
VALUES = {
    "a parameter": lambda nn, zeros: nn.Parameter(zeros((4,))),
    "a module": lambda nn, zeros: nn.Linear(2, 2),
    "a tensor": lambda nn, zeros: zeros((2, 3)),
    "a number": lambda nn, zeros: 3,
    "a list": lambda nn, zeros: [1],
    "None": lambda nn, zeros: None,
}


def outcome(net, nn, zeros, steps):
    """The error, if there is one, and what the module has then."""
    error = None
    for name, value in steps:
        try:
            if value == "del":
                delattr(net, name)
            else:
                setattr(net, name, VALUES[value](nn, zeros))
        except TypeError:
            error = name, value
    members = net.named_parameters(), net.named_buffers(), net.named_children()
    return error, [[n for n, _ in row] for row in members], sorted(net.state_dict())


@pytest.mark.parametrize("second", [None, *VALUES, "del"])
@pytest.mark.parametrize("first", VALUES)
@pytest.mark.parametrize("name", NAMES)
def test_what_may_be_assigned_is_what_torch_allows(name, first, second, torch):
    steps = [(name, first), *([] if second is None else [(name, second), (name, "a tensor")])]
    ours = outcome(a_net(nn, dg.zeros), nn, dg.zeros, steps)
    assert ours == outcome(a_net(torch.nn, torch.zeros), torch.nn, torch.zeros, steps)


def test_names_of_layers_without_bias_stay_those_of_parameters():
    layers = [
        nn.Linear(2, 2, bias=False), nn.Bilinear(2, 2, 2, bias=False), nn.Conv1d(1, 1, 1, bias=False),
        nn.LayerNorm(2, elementwise_affine=False), nn.BatchNorm1d(2, affine=False), nn.GroupNorm(1, 2, affine=False),
    ]  # fmt: skip
    for layer in layers:
        with pytest.raises(TypeError, match="bias is a parameter"):
            layer.bias = dg.zeros(2)
        layer.bias = nn.Parameter(dg.zeros(2))
        assert "bias" in dict(layer.named_parameters())


def test_the_error_says_what_to_do():
    net = Net()
    with pytest.raises(dg.errors.ArgumentTypeError) as found:
        net.weight = net.weight * 0.5
    text = str(found.value)
    assert text.startswith("[Net] weight is a parameter float32[2, 3]: it takes a dg.nn.Parameter or None")
    assert "got the tensor float32[2, 3]" in text
    assert f"{__file__}:" in text
    assert "with dg.no_grad(): module.weight.copy_(x)" in text
    assert "dg.nn.Parameter(x)" in text


def test_copies_of_modules_know_their_members():
    for net in (copy.deepcopy(Net()), pickle.loads(pickle.dumps(Net()))):
        for name in ("weight", "bias", "mean", "fc"):
            with pytest.raises(TypeError):
                setattr(net, name, 1.0)


# ---------------------------------------------------------------- in a step


def drops(net, x):
    net.weight = net.weight * x


def drops_by_name(net, x):
    setattr(net, "weight", x)  # noqa: B010


def drops_a_module(net, x):
    net.fc = x


def drops_a_buffer(net, x):
    net.mean = 3.0


def drops_by_method(net, x):
    nn.Module.__setattr__(net, "weight", x)


def drops_unseen(net, x):
    [*map(net.__setattr__, ["weight"], [x])]


def drops_by_caller(net, x):
    [*map(operator.methodcaller("__setattr__", "weight", x), [net])]


@pytest.mark.parametrize(
    "change",
    [drops, drops_by_name, drops_a_module, drops_a_buffer, drops_by_method, drops_unseen, drops_by_caller],
)
def test_a_step_has_the_same_error(change):
    texts = []
    for mode in ("eager", "graph"):
        net, x = Net(), dg.ones(2, 3)

        def step(x, net=net):
            change(net, x)
            return x + 1

        run = dg.function(step, mode=mode)
        for _ in range(2):
            with pytest.raises(dg.errors.ArgumentTypeError) as found:
                run(x)
        assert isinstance(net.weight, nn.Parameter)
        assert net.weight.shape == (2, 3)
        assert isinstance(net.fc, nn.Linear)
        texts.append(str(found.value))
    assert texts[0] == texts[1]


def catches(net, x):
    try:
        net.weight = x
    except TypeError:
        return x * 2
    return x * 3


def test_a_step_that_catches_the_error_is_traced_again_when_the_name_is_free():
    net, x = Net(), dg.ones(2, 3)
    step = dg.function(lambda x: catches(net, x))
    assert step(x).sum().item() == 12
    assert step(x).sum().item() == 12
    del net.weight
    assert step(x).sum().item() == 18
    assert net.weight is x
    assert step(x).sum().item() == 18
    net.weight = nn.Parameter(dg.zeros(2, 3))
    assert step(x).sum().item() == 12
    assert isinstance(net.weight, nn.Parameter)


def keeps(net, x):
    net.plain = net.plain + x
    net.mean = net.mean * 0.5 + x
    net.note = x.sum()
    return net.plain * net.mean


def test_state_that_a_step_replaces_is_traced_once_and_a_parameter_in_its_place_is_an_error():
    both = []
    for mode in ("eager", "graph"):
        net, x, seen = Net(), dg.ones(3), []
        step = dg.function(lambda x, net=net: keeps(net, x), mode=mode)
        for _ in range(3):
            seen.append(step(x).tolist())
        assert mode == "eager" or len(step.variants) == 1
        assert [n for n, _ in net.named_buffers()] == ["mean"]
        net.plain = nn.Parameter(net.plain)
        with pytest.raises(TypeError, match="plain is a parameter"):
            step(x)
        del net.plain
        net.plain = dg.ones(3)
        seen.append(step(x).tolist())
        net.note = nn.Parameter(dg.zeros(()))
        with pytest.raises(TypeError, match="note is a parameter"):
            step(x)
        both.append(seen)
    assert both[0] == both[1]


def swaps(net, other):
    net.weight = other
    net.bias, net.fc, net.mean = None, None, other
    net.register_buffer("late", other.detach() * 2)
    return net.weight * 2


def test_members_that_a_step_replaces_are_members_after_it():
    both = []
    for mode in ("eager", "graph"):
        seen = []
        other = nn.Parameter(dg.ones(3))
        for _ in range(3):
            net = Net()
            step = dg.function(lambda net=net, other=other: swaps(net, other), mode=mode)
            step()
            with pytest.raises(TypeError):
                net.fc = 3
            names = [n for n, _ in net.named_parameters()], [n for n, _ in net.named_buffers()]
            seen.append((names, sorted(net.state_dict()), net._buffers, net._absent))
            with pytest.raises(dg.errors.ArgumentError, match="late"):
                step()
        both.append(seen)
    assert both[0] == both[1]


class Counting(nn.Module):
    """Its attributes pass a method of its own."""

    def __init__(self):
        self.writes = []
        self.weight = nn.Parameter(dg.ones(2))
        self.total = dg.zeros(2)

    def __setattr__(self, name, value):
        if "writes" in self.__dict__:
            self.writes.append(name)
        super().__setattr__(name, value)


def test_a_class_with_a_way_of_its_own_keeps_the_rules():
    both = []
    for mode in ("eager", "graph"):
        net, x = Counting(), dg.ones(2)

        def step(x, net=net):
            net.total = net.total + net.weight * x

        def wrong(x, net=net):
            net.weight = x

        run, bad = dg.function(step, mode=mode), dg.function(wrong, mode=mode)
        for _ in range(3):
            run(x)
        with pytest.raises(TypeError, match="weight is a parameter"):
            bad(x)
        both.append((net.total.tolist(), net.writes[:5]))
    assert both[0] == both[1]
