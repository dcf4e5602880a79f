"""Modules and what holds them, hooks, states; modules in graph mode; clipping of gradients."""

import copy
import math
import pickle

import duograd as dg
import numpy as np
import pytest
from duograd import nn


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: clipping is not compared with it")


class Block(nn.Module):
    def __init__(self, width=4):
        self.fc = nn.Linear(width, width)
        self.act = nn.ReLU()
        self.scale = nn.Parameter(dg.ones((width,)))
        self.register_buffer("count", dg.zeros(()))
        self.register_buffer("cache", dg.zeros((2,)), persistent=False)

    def forward(self, x):
        return self.act(self.fc(x)) * self.scale


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


# ---------------------------------------------------------------- Module


def test_parameters_are_named_by_path_in_order_of_definition():
    names = [n for n, _ in Net().named_parameters()]
    assert names == [
        "blocks.0.scale", "blocks.0.fc.weight", "blocks.0.fc.bias",
        "blocks.1.scale", "blocks.1.fc.weight", "blocks.1.fc.bias", "head.weight",
    ]  # fmt: skip


def test_state_holds_parameters_and_persistent_buffers():
    state = Block().state_dict()
    assert sorted(state) == ["count", "fc.bias", "fc.weight", "scale"]
    assert not any(t.requires_grad for t in state.values())


def test_state_shares_memory_with_the_module():
    net = Block()
    net.state_dict()["scale"].fill_(3.0)
    assert net.scale.tolist() == [3.0] * 4


def test_super_init_may_be_left_out():
    assert Block().training
    assert Block()(dg.ones((1, 4))).shape == (1, 4)


def test_plain_tensors_are_attributes_and_no_parameters():
    net = Block()
    net.note = dg.ones((2,), dtype="float32").requires_grad_()
    assert "note" not in dict(net.named_parameters())
    assert "note" not in net.state_dict()


def test_a_shared_parameter_is_listed_once_and_saved_under_both_names():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert "0.weight" in net.state_dict()
    assert "1.weight" in net.state_dict()


def test_modules_are_walked_once_each():
    act = nn.ReLU()
    net = nn.Sequential(act, nn.Sequential(act, nn.Linear(2, 2)))
    assert [n for n, _ in net.named_modules()] == ["", "0", "1", "1.1"]
    assert len(list(net.children())) == 2
    assert net.get_submodule("1.1").in_features == 2


def test_train_and_eval_reach_every_module():
    net = Net().eval()
    assert not any(m.training for m in net.modules())
    assert net.train().blocks[0].act.training


def test_freezing_stops_gradients():
    net = Net().requires_grad_(False)
    net.head.requires_grad_(True)
    net(dg.ones((3, 4))).sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is not None] == ["head.weight"]


def test_zero_grad_forgets_or_zeroes():
    net = Block()
    net(dg.ones((3, 4))).sum().backward()
    net.zero_grad(set_to_none=False)
    assert net.scale.grad.tolist() == [0.0] * 4
    net.zero_grad()
    assert net.scale.grad is None


def test_apply_goes_children_first():
    seen = []
    nn.Sequential(nn.ReLU(), nn.Tanh()).apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["ReLU", "Tanh", "Sequential"]


def test_to_converts_floats_in_place():
    net = Block()
    net.register_buffer("steps", dg.zeros((), dtype="int64"))
    before = net.fc.weight
    assert net.to(dg.float64) is net
    assert net.fc.weight is before
    assert net.fc.weight.dtype == dg.float64
    assert net.count.dtype == dg.float64
    assert net.steps.dtype == dg.int64
    assert net(dg.ones((2, 4), dtype="float64")).dtype == dg.float64


def test_to_refuses_integer_dtypes():
    with pytest.raises(dg.errors.ArgumentError, match="float dtypes only"):
        Block().to("int64")


def test_gradients_recorded_before_to_stay_right():
    dg.manual_seed(0)
    net = nn.Linear(3, 2, bias=False)
    expected = net.weight.detach().numpy().sum(0).tolist()
    x = dg.ones((1, 3)).requires_grad_()
    out = net(x).sum()
    net.to("float64")
    out.backward()
    np.testing.assert_allclose(x.grad.tolist(), [expected], rtol=1e-6)
    assert net.weight.grad.dtype == dg.float64


def test_hooks_may_replace_arguments_and_results():
    net = nn.Linear(2, 2)
    x = dg.ones((1, 2))
    plain = net(x)
    before = net.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    after = net.register_forward_hook(lambda m, args, out: out - m.bias)
    hooked = net(x)
    np.testing.assert_allclose(hooked.tolist(), ((plain - net.bias) * 2).tolist(), rtol=1e-6)
    before.remove()
    after()
    assert net(x).tolist() == plain.tolist()


def test_repr_prints_the_tree():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sequential(nn.ReLU()), nn.Linear(4, 3))
    assert repr(net) == (
        "Sequential(\n"
        "  (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        "  (2): Linear(in_features=4, out_features=3, bias=True)\n"
        ")"
    )


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_apart(clone):
    net = nn.Sequential(Block(), nn.Dropout(0.3)).eval()
    net[0].tied = net[0].fc.weight
    twin = clone(net)
    assert not twin[1].training
    assert isinstance(twin[0].scale, nn.Parameter)
    assert twin[0].scale.requires_grad
    assert twin[0].tied is twin[0].fc.weight
    assert list(twin.state_dict()) == list(net.state_dict())
    x = dg.randn(3, 4)
    assert twin(x).tolist() == net(x).tolist()
    with dg.no_grad():
        twin[0].scale.zero_()
    assert net[0].scale.tolist() == [1.0] * 4


def test_load_state_dict_copies_into_the_same_tensors():
    a, b = Net(), Net()
    kept = b.head.weight
    result = b.load_state_dict(a.state_dict())
    assert b.head.weight is kept
    assert str(result) == "<All keys matched successfully>"
    x = dg.randn(3, 4)
    assert a(x).tolist() == b(x).tolist()


def test_load_state_dict_lists_every_problem_and_changes_nothing():
    net = Net()
    before = {k: v.tolist() for k, v in net.state_dict().items()}
    state = {k: dg.zeros(v.shape) for k, v in net.state_dict().items()}
    del state["head.weight"]
    state["blocks.0.fc.bias"] = dg.zeros((5,))
    state["blocks.1.fc.bias"] = dg.zeros((4,), dtype="float64")
    state["extra"] = dg.zeros((1,))
    state["blocks.1.scale"] = "text"
    with pytest.raises(dg.errors.CheckpointError) as error:
        net.load_state_dict(state)
    for text in (
        "missing: head.weight: float32[2, 4]", "unexpected: extra: float32[1]",
        "other shape: blocks.0.fc.bias is float32[5] in the state, float32[4] in the module",
        "other dtype: blocks.1.fc.bias is float64[4]", "not a tensor: blocks.1.scale is a str",
    ):  # fmt: skip
        assert text in str(error.value)
    assert {k: v.tolist() for k, v in net.state_dict().items()} == before


def test_load_state_dict_not_strict_loads_what_is_common():
    net = Block()
    result = net.load_state_dict({"scale": np.full(4, 2, np.float32), "other": dg.zeros(())}, strict=False)
    assert net.scale.tolist() == [2.0] * 4
    assert result.unexpected_keys == ["other"]
    assert result.missing_keys == ["count", "fc.weight", "fc.bias"]


def test_names_with_dots_and_taken_names_are_refused():
    net = Block()
    with pytest.raises(dg.errors.ArgumentError, match="not an attribute name"):
        net.register_buffer("a.b", dg.zeros(()))
    with pytest.raises(dg.errors.ArgumentError, match="already has an attribute"):
        net.register_buffer("forward", dg.zeros(()))
    with pytest.raises(dg.errors.ArgumentTypeError, match=r"no forward"):
        nn.Module()(1)


def test_parameters_are_checked():
    with pytest.raises(dg.errors.AutogradError, match="only floats"):
        nn.Parameter(dg.zeros((2,), dtype="int64"))
    with pytest.raises(dg.errors.ArgumentTypeError, match="takes a tensor"):
        nn.Parameter([1.0])
    assert repr(nn.Parameter(dg.zeros((1,)))).startswith("Parameter containing:\ntensor(")
    assert not nn.Parameter(np.arange(3), requires_grad=False).requires_grad


# ---------------------------------------------------------------- containers


def test_sequential_indexes_slices_and_grows():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(net) == 3
    assert net[-1].out_features == 1
    assert isinstance(net[:2], nn.Sequential)
    net.insert(1, nn.Tanh())
    assert [n for n, _ in net.named_children()] == ["0", "1", "2", "3"]
    assert isinstance(net[1], nn.Tanh)
    del net[1]
    net[1] = nn.GELU()
    assert [type(m).__name__ for m in net] == ["Linear", "GELU", "Linear"]
    assert net.append(nn.Sigmoid())(dg.ones((5, 2))).shape == (5, 1)
    with pytest.raises(IndexError, match="outside 4 members"):
        net[4]
    with pytest.raises(dg.errors.ArgumentTypeError, match="got a function"):
        nn.Sequential(lambda x: x)


def test_sequential_takes_names():
    net = nn.Sequential({"first": nn.Linear(2, 2), "act": nn.ReLU()})
    assert net.first is net[0]
    del net[1]
    assert [n for n, _ in net.named_parameters()] == ["first.weight", "first.bias"]


def test_parameter_list_holds_parameters():
    net = nn.ParameterList([dg.ones((2,)), nn.Parameter(dg.zeros((1,)))])
    assert [n for n, _ in net.named_parameters()] == ["0", "1"]
    assert net[0].requires_grad


# ---------------------------------------------------------------- in graph mode


def test_a_module_runs_as_a_graph(close):
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(12),
        nn.Linear(12, 2),
    )
    fast = dg.function(net)
    x = dg.randn(4, 1, 4, 4)
    close(fast(x).detach(), net(x).detach())
    net[5] = nn.Linear(12, 5)
    assert fast(x).shape == (4, 5)


def test_training_and_weights_are_seen_by_a_graph(close):
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    fast = dg.function(net)
    x = dg.randn(3, 4)
    for mode in (True, False):
        net.train(mode)
        dg.manual_seed(1)
        expected = net(x)
        dg.manual_seed(1)
        close(fast(x).detach(), expected.detach())
    with dg.no_grad():
        net[0].weight.zero_()
    close(fast(x).detach(), net(x).detach())


def test_a_parameter_that_a_function_makes_is_handed_out():
    @dg.function
    def f(x):
        return nn.Parameter(x * 2)

    for _ in range(4):
        p = f(dg.ones((2,)))
        assert isinstance(p, nn.Parameter)
        assert p.is_leaf
        assert p.tolist() == [2.0, 2.0]
    assert "it makes a parameter" in f.explain()


# ---------------------------------------------------------------- clipping


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
def test_clip_grad_norm_agrees_with_torch(torch, close, norm_type):
    grads = [np.random.randn(3, 4).astype(np.float32), np.random.randn(5).astype(np.float32)]
    ours, theirs = [nn.Parameter(g) for g in grads], [torch.nn.Parameter(torch.tensor(g)) for g in grads]
    for bound in (100.0, 0.7):
        for p, q, g in zip(ours, theirs, grads):
            p.grad, q.grad = dg.tensor(g), torch.tensor(g)
        a = nn.utils.clip_grad_norm_([*ours, nn.Parameter(dg.zeros((2,)))], bound, norm_type)
        b = torch.nn.utils.clip_grad_norm_(theirs, bound, norm_type)
        close(a, b.numpy())
        for p, q in zip(ours, theirs):
            close(p.grad, q.grad.numpy())


def test_clip_grad_norm_notices_nan():
    p = nn.Parameter(dg.zeros((2,)))
    p.grad = dg.tensor([1.0, math.nan])
    with pytest.raises(dg.errors.AutogradError, match="not finite"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_modules_are_moved_and_converted_in_functions(mode):
    """A module that is there already stays in the graph, a conversion leaves the function to Python."""
    layer = nn.Linear(2, 2)
    nn.init.ones_(layer.weight), nn.init.zeros_(layer.bias)

    @dg.function(mode=mode)
    def stays(x):
        return layer.to("cpu").float()(x)

    @dg.function(mode=mode)
    def converts(x):
        y = layer.double()(x.double())
        layer.float()
        return y

    for _ in range(3):
        assert stays(dg.ones(1, 2)).tolist() == [[2, 2]]
        y = converts(dg.ones(1, 2))
        assert y.dtype == dg.float64
        assert y.tolist() == [[2, 2]]
    assert layer.weight.dtype == dg.float32
    assert bool(stays.variants) == (mode == "graph")
