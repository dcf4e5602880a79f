"""Programs as their users write them: what a few lines of well-known tutorials need, in both modes."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn import functional as F


def _normal(*shape):
    return dg.tensor(np.random.default_rng(len(shape)).normal(size=shape).astype("float32"))


def _gan(first):
    """A step of a GAN that freezes its critic while the generator learns."""
    dg.manual_seed(0)
    maker = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    critic = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    own = [dg.optim.Adam(m.parameters(), lr=0.01) for m in (maker, critic)]

    def step(real, z):
        fake = maker(z)
        if first == "thaw":
            for p in critic.parameters():
                p.requires_grad = True
        own[1].zero_grad()
        loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
        loss.backward()
        own[1].step()
        for p in critic.parameters():
            p.requires_grad = False
        own[0].zero_grad()
        wish = F.softplus(-critic(fake)).mean()
        wish.backward()
        own[0].step()
        if first == "freeze":
            critic.requires_grad_(True)
        return loss.detach(), wish.detach()

    return step, maker, critic


@pytest.mark.parametrize("first", ["freeze", "thaw"])
def test_a_step_freezes_and_thaws_parameters(first):
    told = {}
    for mode in ("eager", "graph"):
        step, maker, critic = _gan(first)
        fn = dg.function(step, mode=mode)
        losses = [fn(_normal(5, 4), _normal(5, 3)) for _ in range(5)]
        asked = [p.requires_grad for p in critic.parameters()]
        told[mode] = [[x.tolist() for x in row] for row in losses], asked
        told[mode] += ([p.tolist() for m in (maker, critic) for p in m.parameters()],)
        grads = [p.grad for p in critic.parameters()]
        told[mode] += ([None if g is None else g.tolist() for g in grads],)
    assert told["eager"] == told["graph"]
    assert len(fn.variants) == (1 if first == "freeze" else 2)
    assert "Python" not in str(fn.explain())


def test_a_result_follows_a_changed_requires_grad():
    w = nn.Parameter(dg.ones(3))

    @dg.function
    def scaled(x):
        w.requires_grad = not w.requires_grad
        return (x * w).sum()

    for _ in range(4):
        y = scaled(dg.ones(3))
        assert y.requires_grad is w.requires_grad
    assert len(scaled.variants) == 2


def test_a_loss_whose_classes_are_the_batch_compiles_nothing_for_another_batch():
    from duograd.core.backend import get_backend

    @dg.function
    def contrast(z, scale):
        s = z @ z.T / scale
        loss = F.cross_entropy(
            s.masked_fill(dg.eye(z.shape[0], dtype=dg.bool), -10.0), dg.arange(z.shape[0]).roll(1)
        )
        return loss, (z.mean(0) * 0.25).sum(), (z.sum(1) * 0.2).clip(-0.2, 0.25).mean()

    def misses():
        stats = get_backend("cpu").kernel_stats()
        return stats["compiled"] + stats["loaded"]

    for n in (6, 7):
        contrast(_normal(n, 8), 0.5)
    before = misses()
    for n in (4, 5, 8, 10):
        contrast(_normal(n, 8), 0.5)
    assert misses() == before


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_leaves_are_made_by_one_call(mode):
    def slopes():
        w, b = dg.ones(3, requires_grad=True), dg.zeros_like(dg.ones(3), requires_grad=True)
        scale = dg.linspace(0, 1, 3, requires_grad=True)
        noise = dg.randn(2, 3, requires_grad=True)
        (w * scale * 2 + b + noise * 3).sum().backward()
        return w.grad, b.grad, scale.grad, noise.grad

    found = dg.function(slopes, mode=mode)()
    assert [g.tolist() for g in found] == [[0, 2, 4], [2, 2, 2], [4, 4, 4], [[3] * 3] * 2]
    with pytest.raises(dg.errors.AutogradError, match="only floats do"):
        dg.arange(3, requires_grad=True)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_range_picks(mode):
    x = dg.tensor(np.arange(12, dtype=np.float32).reshape(4, 3))
    fn = dg.function(lambda x, y: (x[range(y.shape[0]), y], x[range(1, 4, 2)]), mode=mode)
    for y in ([0, 1, 2, 0], [2, 2]):
        row, part = fn(x, dg.tensor(y))
        assert row.tolist() == x.numpy()[range(len(y)), y].tolist()
        assert part.tolist() == x.numpy()[range(1, 4, 2)].tolist()
    x[range(2)] = 7
    assert x.sum(1).tolist() == [21, 21, 21, 30]


def test_states_have_the_order_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")

    def net(T):
        class Net(T.nn.Module):
            def __init__(self):
                super().__init__()
                self.norm = T.nn.BatchNorm1d(3)
                self.register_buffer("mean", T.zeros(2))
                self.body = T.nn.Sequential(T.nn.Linear(3, 2), T.nn.PReLU())
                self.scale = T.nn.Parameter(T.ones(1))

        return Net()

    assert list(net(dg).state_dict()) == list(net(torch).state_dict())


@pytest.mark.parametrize(
    "fn",
    [
        lambda a, v: a.T @ v,
        lambda a, v: (dg.exp(a).T * 2) @ v,
        lambda a, v: dg.stack([a, a]).mT @ v,
        lambda a, v: v @ a,
    ],
    ids=["turned", "computed", "stacked", "row"],
)
def test_turned_matrices_times_vectors_are_read_right_by_onnxruntime(fn):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing to compare with")
    a, v = _normal(6, 5), _normal(6)
    again = dg.onnx.load(dg.onnx.export(fn, (a, v)))  # the export compares with onnxruntime
    np.testing.assert_allclose(again(a, v).numpy(), fn(a, v).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "name", "fix"),
    [
        ("dg", "LongTensor", r"dg\.tensor\(data, dtype=dg\.int64\)"),
        ("dg", "Linear", r"write dg\.nn\.Linear$"),
        ("dg", "kaiming_normal_", r"write dg\.nn\.init\.kaiming_normal_$"),
        ("dg.nn", "Adam", r"write dg\.optim\.Adam$"),
        ("dg.nn", "Relu", r"write dg\.nn\.ReLU"),
        ("dg.nn.functional", "cross_entropie", r"write dg\.nn\.functional\.cross_entropy"),
        ("dg.optim", "StepLR", r"write dg\.optim\.lr_scheduler\.StepLR$"),
        ("dg", "quite_unknown", r"docs/porting\.md"),
    ],
)
def test_an_unknown_name_says_what_to_write(space, name, fix):
    found = {"dg": dg, "dg.nn": nn, "dg.nn.functional": F, "dg.optim": dg.optim}[space]
    assert not hasattr(found, name)
    with pytest.raises(dg.errors.UnknownNameError, match=fix) as caught:
        getattr(found, name)
    assert f"[{space}] has no {name}\n  at {__file__}:" in str(caught.value)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("unsqueeze_", r"write x = x\.unsqueeze\(axis\): a tensor keeps its shape$"),
        ("detach_", r"write x = x\.detach\(\)$"),
        ("data_ptr", r"write x\.numpy\(\)\.ctypes\.data$"),
        ("block_until_ready", "its values are there when they are read"),
        ("layer_norm", r"write dg\.layer_norm\(x\)$"),
        ("eigh", r"write dg\.eigh\(x\)$"),
    ],
)
def test_an_unknown_attribute_of_a_tensor_says_what_to_write(name, fix, mode):
    def ask(x):
        return getattr(x, name)

    x = dg.ones((2, 3))
    with pytest.raises(dg.errors.UnknownNameError, match=fix) as caught:
        dg.function(ask, mode=mode)(x)
    assert f"[Tensor] has no {name}\n  at {__file__}:" in str(caught.value)
    assert isinstance(caught.value, AttributeError)
    there = dg.function(lambda x: (hasattr(x, name), getattr(x, name, x) * 2), mode=mode)
    for _ in range(3):
        assert there(x)[0] is False
        np.testing.assert_array_equal(there(x)[1].numpy(), 2.0)
    assert not hasattr(dg.Tensor, name)
    assert name not in dir(x)
    if mode == "graph":
        assert "globals()" not in str(there.explain(guards=True))  # of ours


def test_no_name_of_a_tensor_points_elsewhere():
    from duograd.core.foreign import elsewhere

    x = dg.ones((2, 2), requires_grad=True)
    assert not [name for name in elsewhere if hasattr(x, name)]
    assert {"layer_norm", "unsqueeze_"} <= elsewhere
    assert not {"detach", "zeros", "randn"} & elsewhere


def test_of_other_names_python_itself_says_what_is_near():
    x = dg.ones((2,))
    for name in ("unsqueze", "__cuda_array_interface__", "_fields"):
        with pytest.raises(AttributeError, match=f"'Tensor' object has no attribute '{name}'") as caught:
            getattr(x, name)
    assert caught.value.name == name
    assert caught.value.obj is x
    for face in (dg.Tensor, type(x)):
        assert not hasattr(face, "__getattr__")  # it would make every look-up of an attribute slower


def test_dtypes_have_the_names_of_pytorch():
    kinds = dg.half, dg.float, dg.double, dg.short, dg.int, dg.long
    assert list(map(str, kinds)) == ["float16", "float32", "float64", "int16", "int32", "int64"]


def test_clamping_from_one_side_has_methods():
    x = dg.tensor([-2.0, 0.5, 3.0])
    assert x.clamp_min(0).tolist() == [0, 0.5, 3]
    assert x.clamp_max(1).tolist() == [-2, 0.5, 1]
    assert x.clamp_min_(-1).clamp_max_(2).tolist() == x.tolist() == [-1, 0.5, 2]


def test_the_type_of_a_tensor_is_no_method():
    with pytest.raises(
        dg.errors.ArgumentTypeError, match=r"no method, but float32\[2\]\n.*\n  fix: convert by x\.to"
    ):
        dg.ones(2).type(dg.long)


def test_a_model_in_the_place_of_its_parameters_is_named():
    with pytest.raises(dg.errors.ArgumentTypeError, match=r"bias=True\) is a Linear\n"):
        dg.optim.Adam(nn.Linear(2, 2))
