"""What ported models reach for: containers, parametrizations, calls with other parameters, initialisers, samplers."""

import copy
import subprocess
import sys

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn import utils

MODES = ("eager", "graph")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: results are not compared with it")


# ---------------------------------------------------------------- containers


def test_module_dict_names_its_members():
    d = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.ReLU()})
    d["c"] = nn.Identity()
    d.update([("a", nn.Linear(2, 4))])
    assert list(d) == d.keys() == ["a", "b", "c"]
    assert len(d) == 3
    assert "b" in d
    assert "train" not in d
    assert list(d.state_dict()) == ["a.weight", "a.bias"]
    assert d["a"].weight.shape == (4, 2)
    assert isinstance(d.pop("c"), nn.Identity)
    del d["b"]
    assert [n for n, _ in d.items()] == ["a"]
    d.clear()
    assert not d.values()


def test_named_containers_say_what_is_wrong():
    d = nn.ModuleDict({"a": nn.ReLU()})
    with pytest.raises(dg.errors.IndexingError, match="it has a"):
        d["b"]
    with pytest.raises(dg.errors.ArgumentError, match="already has"):
        d["train"] = nn.ReLU()
    with pytest.raises(dg.errors.ArgumentTypeError, match="holds Modules"):
        d["x"] = 3
    with pytest.raises(dg.errors.ArgumentError, match="cannot be made of"):
        nn.ModuleDict(3)


def test_parameter_dict_makes_parameters():
    d = nn.ParameterDict({"w": dg.ones(2)})
    assert isinstance(d["w"], nn.Parameter)
    assert list(dict(nn.Sequential(d).named_parameters())) == ["0.w"]
    assert "w" in repr(d)


@pytest.mark.parametrize("mode", MODES)
def test_a_module_dict_is_used_inside_a_graph(mode):
    d = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Tanh()})

    @dg.function(mode=mode)
    def run(x):
        for name in ("a", "b"):
            x = d[name](x)
        return x

    x = dg.randn(4, 2)
    np.testing.assert_array_equal(run(x).detach().numpy(), d["b"](d["a"](x)).detach().numpy())


def test_parameters_and_buffers_are_found_by_path():
    m = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert m.get_parameter("0.weight") is m[0].weight
    assert m.get_buffer("1.running_mean") is m[1].running_mean
    with pytest.raises(dg.errors.ArgumentError, match=r"it has 0\.weight"):
        m.get_parameter("0.wight")


def test_modules_are_cast_by_name():
    m = nn.Linear(2, 3)
    for name in ("half", "bfloat16", "double", "float"):
        assert getattr(m, name)().weight.dtype.name == {
            "half": "float16",
            "double": "float64",
            "float": "float32",
        }.get(name, name)
    assert m.cpu() is m


# ---------------------------------------------------------------- parametrizations


def _twin(torch, ours, theirs):
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(ours.weight.detach().numpy()))
        theirs.bias.copy_(torch.tensor(ours.bias.detach().numpy()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_weight_norm_agrees_with_torch(torch, dim, mode):
    ours, theirs = nn.Conv1d(3, 4, 2), torch.nn.Conv1d(3, 4, 2)
    _twin(torch, ours, theirs)
    utils.weight_norm(ours, dim=dim)
    torch.nn.utils.parametrizations.weight_norm(theirs, dim=dim)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    x = np.random.randn(2, 3, 5).astype("float32")

    @dg.function(mode=mode)
    def step(x):
        out = ours(x)
        (out * out).sum().backward()
        return out

    out, expected = step(dg.tensor(x)), theirs(torch.tensor(x))
    (expected * expected).sum().backward()
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), 1e-5, 1e-5)
    theirs_by_name = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), theirs_by_name[name].grad.numpy(), 1e-4, 1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose2d"])
def test_spectral_norm_agrees_with_torch(torch, kind, mode):
    sizes = (3, 4) if kind == "Linear" else (3, 4, 2)
    ours, theirs = getattr(nn, kind)(*sizes), getattr(torch.nn, kind)(*sizes)
    _twin(torch, ours, theirs)
    utils.parametrizations.spectral_norm(ours, n_power_iterations=2)
    torch.nn.utils.parametrizations.spectral_norm(theirs, n_power_iterations=2)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    state = {k: v.numpy().copy() for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    x = np.random.randn(*((2, 3) if kind == "Linear" else (2, 3, 4, 4))).astype("float32")

    @dg.function(mode=mode)
    def step(x):
        out = ours(x)
        (out * out).sum().backward()
        return out

    for train in (True, True, False):
        ours.train(train), theirs.train(train)
        out, expected = step(dg.tensor(x)), theirs(torch.tensor(x))
        (expected * expected).sum().backward()
        np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), 1e-5, 1e-5)
    theirs_by_name = {**dict(theirs.named_parameters()), **dict(theirs.named_buffers())}
    for name, p in ours.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), theirs_by_name[name].grad.numpy(), 1e-4, 1e-4)
    for name, b in ours.named_buffers():
        np.testing.assert_allclose(b.numpy(), theirs_by_name[name].numpy(), 1e-5, 1e-6)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT


def test_parametrizations_of_ones_own_come_and_go():
    m = nn.Linear(3, 3)
    before = m.weight
    utils.parametrize.register_parametrization(m, "weight", Symmetric())
    utils.parametrize.register_parametrization(m, "bias", nn.Tanh())
    assert utils.parametrize.is_parametrized(m)
    assert utils.parametrize.is_parametrized(m, "bias")
    w = m.weight.detach().numpy()
    np.testing.assert_array_equal(w, w.T)
    assert m.parametrizations.weight.original is before
    again = copy.deepcopy(m)
    np.testing.assert_array_equal(again.weight.detach().numpy(), w)
    utils.parametrize.remove_parametrizations(m, "weight")
    assert isinstance(m.weight, nn.Parameter)
    np.testing.assert_array_equal(m.weight.detach().numpy(), w)
    bias = m.parametrizations.bias.original
    utils.parametrize.remove_parametrizations(m, "bias", leave_parametrized=False)
    assert m.bias is bias
    assert type(m) is nn.Linear
    assert list(m.state_dict()) == ["weight", "bias"]


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x

    def right_inverse(self, x):
        return x / 2


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_what_is_assigned_to_a_parametrized_name_goes_back_to_what_is_trained(mode):
    m = nn.Linear(2, 2)
    utils.parametrize.register_parametrization(m, "weight", Doubled())
    original = m.parametrizations.weight.original
    m.weight = dg.ones((2, 2))
    np.testing.assert_array_equal(original.detach().numpy(), np.full((2, 2), 0.5))
    utils.weight_norm(m, "bias", dim=None)
    run = dg.function(lambda x: m(x), mode=mode)
    run(dg.ones((1, 2)))
    m.weight, m.bias = dg.full((2, 2), 3.0), dg.tensor([4.0, -2.0])
    assert m.parametrizations.weight.original is original
    np.testing.assert_allclose(run(dg.ones((1, 2))).detach().numpy(), [[10.0, 4.0]], rtol=1e-6)
    utils.parametrize.register_parametrization(m, "weight", Symmetric())
    with pytest.raises(dg.errors.ArgumentError, match="Symmetric has no right_inverse"):
        m.weight = dg.ones((2, 2))


def test_parametrizations_are_checked():
    m = nn.Linear(3, 2)
    for wrong, error in (
        (lambda: utils.parametrize.register_parametrization(m, "w", nn.Tanh()), "no parameter 'w'"),
        (lambda: utils.parametrize.register_parametrization(m, "weight", nn.Flatten(0)), "became"),
        (
            lambda: utils.parametrize.register_parametrization(m, "weight", dg.tanh),
            "give parametrization as a Module",
        ),
        (lambda: utils.parametrize.remove_parametrizations(m, "weight"), "not parametrized"),
        (lambda: utils.spectral_norm(m, "w"), "no parameter 'w'"),
        (lambda: utils.spectral_norm(m, n_power_iterations=0), "n_power_iterations=0"),
    ):
        with pytest.raises(dg.errors.DuogradError, match=error):
            wrong()
    assert list(m.state_dict()) == ["weight", "bias"]


# ---------------------------------------------------------------- other parameters, vectors, bounds


@pytest.mark.parametrize("mode", MODES)
def test_functional_call_runs_on_other_tensors(mode):
    m = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    m[2].bias = m[2].bias
    x = dg.randn(8, 2)

    @dg.function(mode=mode)
    def step(x, scale):
        own = {name: p * scale for name, p in m.named_parameters()}
        buffers = {name: b.clone() for name, b in m.named_buffers()}
        out = utils.functional_call(m, {**own, **buffers}, x)
        return out, out.sum(), buffers["1.running_mean"]

    scale = dg.tensor(2.0, requires_grad=True)
    out, total, mean = step(x, scale)
    total.backward()
    other = copy.deepcopy(m)
    with dg.no_grad():
        for p in other.parameters():
            p.mul_(2)
    np.testing.assert_allclose(out.detach().numpy(), other(x).detach().numpy(), 1e-5, 1e-6)
    np.testing.assert_allclose(mean.numpy(), other[1].running_mean.numpy(), 1e-6, 1e-7)
    assert m[1].running_mean.tolist() == [0, 0, 0]
    assert scale.grad is not None
    assert m[0].weight.grad is not None


def test_functional_call_under_vmap_runs_an_ensemble():
    models = [nn.Linear(2, 3) for _ in range(4)]
    stacked = {n: dg.stack([dict(m.named_parameters())[n] for m in models]) for n in ("weight", "bias")}
    x = dg.randn(5, 2)
    out = dg.vmap(lambda p: utils.functional_call(models[0], p, x))(stacked)
    for k, m in enumerate(models):
        np.testing.assert_allclose(out[k].detach().numpy(), m(x).detach().numpy(), 1e-5, 1e-6)


def test_functional_call_checks_names_and_shapes():
    m = nn.Linear(2, 3)
    with pytest.raises(dg.errors.ArgumentError, match="'wight'"):
        utils.functional_call(m, {"wight": m.weight}, dg.ones(1, 2))
    with pytest.raises(dg.errors.ShapeError, match="float32"):
        utils.functional_call(m, {"weight": m.bias}, dg.ones(1, 2))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_clipped_one_by_one(mode):
    m = nn.Linear(3, 2)

    @dg.function(mode=mode)
    def step(x):
        m.zero_grad()
        (m(x) * dg.tensor([1.0, -30.0])).sum().backward()
        utils.clip_grad_value_(m.parameters(), 0.5)

    step(dg.ones(1, 3) * 4)
    assert m.weight.grad.tolist() == [[0.5] * 3, [-0.5] * 3]
    assert m.bias.grad.tolist() == [0.5, -0.5]
    with pytest.raises(dg.errors.ArgumentError, match="negative"):
        utils.clip_grad_value_(m.parameters(), -1)


def test_parameters_become_a_vector_and_come_back():
    m, other = nn.Linear(3, 2), nn.Linear(3, 2)
    v = utils.parameters_to_vector(m.parameters())
    assert v.shape == (8,)
    utils.vector_to_parameters(v, other.parameters())
    np.testing.assert_array_equal(other.weight.detach().numpy(), m.weight.detach().numpy())
    with pytest.raises(dg.errors.ShapeError, match="8 elements"):
        utils.vector_to_parameters(v[:3], other.parameters())
    assert utils.get_total_norm([dg.tensor([3.0]), dg.tensor([4.0])]).item() == 5


# ---------------------------------------------------------------- initialisers


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3)])
def test_orthogonal_rows_or_columns(shape):
    x = nn.init.orthogonal_(dg.empty(shape), gain=2.0).reshape(shape[0], -1).numpy()
    short = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    np.testing.assert_allclose(short, 4 * np.eye(len(short)), atol=1e-5)


def test_constants_are_given_by_the_word_of_torch():
    assert nn.init.constant_(dg.zeros(2), val=3.0).tolist() == [3.0, 3.0]
    with pytest.raises(TypeError, match="write val= for value="):
        nn.init.constant_(dg.zeros(2), value=3.0)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize("mode", MODES)
def test_softmax_is_taken_in_another_dtype(torch, name, mode):
    scores = np.random.default_rng(0).standard_normal((3, 4)).astype("float16")
    fn = dg.function(lambda x: getattr(nn.functional, name)(x, dim=-1, dtype=dg.float32), mode=mode)
    x = dg.tensor(scores, requires_grad=True)
    out = fn(x)
    assert out.dtype == dg.float32
    out[:, 0].sum().backward()
    t = torch.tensor(scores, requires_grad=True)
    theirs = getattr(torch.nn.functional, name)(t, dim=-1, dtype=torch.float32)
    theirs[:, 0].sum().backward()
    np.testing.assert_allclose(out.detach().numpy(), theirs.detach().numpy(), 1e-6, 1e-7)
    assert x.grad.dtype == dg.float16
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), 2e-3, 1e-4)


def test_truncated_normal_stays_inside():
    x = nn.init.trunc_normal_(dg.empty(5000), mean=0.5, std=0.3, a=0.2, b=1.0).numpy()
    assert x.min() >= 0.2
    assert x.max() <= 1.0
    assert x.std() > 0.15


@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_and_eye_agree_with_torch(torch, groups):
    ours, theirs = dg.empty(6, 2, 3, 3), torch.empty(6, 2, 3, 3)
    nn.init.dirac_(ours, groups), torch.nn.init.dirac_(theirs, groups)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_array_equal(nn.init.eye_(dg.empty(2, 3)).numpy(), np.eye(2, 3))


def test_sparse_columns_have_their_share_of_zeros():
    x = nn.init.sparse_(dg.empty(10, 7), sparsity=0.25).numpy()
    assert ((x == 0).sum(axis=0) == 3).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: nn.init.orthogonal_(dg.empty(3)),
        lambda: nn.init.eye_(dg.empty(3)),
        lambda: nn.init.dirac_(dg.empty(3)),
        lambda: nn.init.dirac_(dg.empty(3, 2, 1), groups=2),
        lambda: nn.init.sparse_(dg.empty(3), 0.1),
        lambda: nn.init.sparse_(dg.empty(3, 3), 1.1),
        lambda: nn.init.trunc_normal_(dg.empty(3), a=1, b=1),
    ],
)
def test_initialisers_refuse_what_they_cannot_fill(call):
    with pytest.raises(dg.errors.DuogradError, match="_"):
        call()


# ---------------------------------------------------------------- data


def _numbers(n):
    return dg.data.TensorDataset(np.arange(n, dtype="float32"))


def test_samplers_give_the_order():
    data = _numbers(10)
    S = dg.data
    assert list(S.SequentialSampler(data)) == list(range(10))
    assert sorted(S.RandomSampler(data)) == list(range(10))
    assert len(list(S.RandomSampler(data, num_samples=25))) == 25
    drawn = list(S.RandomSampler(data, replacement=True, num_samples=100))
    assert set(drawn) <= set(range(10))
    assert len(set(drawn)) < 100
    assert sorted(S.SubsetRandomSampler([3, 5, 7])) == [3, 5, 7]
    weighted = list(S.WeightedRandomSampler([0, 0, 1, 3], 4000))
    assert set(weighted) == {2, 3}
    assert 0.7 < np.mean(np.array(weighted) == 3) < 0.8
    assert sorted(S.WeightedRandomSampler(dg.ones(5), 5, replacement=False)) == [0, 1, 2, 3, 4]
    assert list(S.BatchSampler(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(S.BatchSampler(range(5), 2, drop_last=True)) == [[0, 1], [2, 3]]


def test_random_samplers_depend_on_the_seed_alone():
    data = _numbers(30)
    for make in (
        lambda g: dg.data.RandomSampler(data, generator=g),
        lambda g: dg.data.RandomSampler(data, True, generator=g),
        lambda g: dg.data.SubsetRandomSampler(range(30), generator=g),
        lambda g: dg.data.WeightedRandomSampler([1.0] * 30, 30, generator=g),
    ):
        sampler = make(dg.Generator(3))
        first, second = list(sampler), list(sampler)
        assert first != second
        assert first == list(make(dg.Generator(3)))


def test_loaders_follow_samplers():
    data = _numbers(7)
    loader = dg.data.DataLoader(data, batch_size=3, sampler=[6, 0, 4, 2])
    assert [x.tolist() for (x,) in loader] == [[6, 0, 4], [2]]
    assert len(loader) == 2
    loader = dg.data.DataLoader(data, batch_sampler=[[1, 2], [5]])
    assert [x.tolist() for (x,) in loader] == [[1, 2], [5]]
    assert len(loader) == 2


class Stream(dg.data.IterableDataset):
    def __iter__(self):
        return ((np.float32(k), k) for k in range(5))


def test_streams_are_read_in_batches():
    assert [y.tolist() for _, y in dg.data.DataLoader(Stream(), batch_size=2)] == [[0, 1], [2, 3], [4]]
    with pytest.raises(dg.errors.ArgumentError, match="own order"):
        dg.data.DataLoader(Stream(), shuffle=True)


def test_data_sets_are_joined():
    both = _numbers(3) + _numbers(2)
    assert len(both) == 5
    assert [both[k][0].item() for k in (0, 2, 3, 4, -1)] == [0, 2, 0, 1, 1]
    with pytest.raises(dg.errors.IndexingError, match="outside 5"):
        both[5]
    (x,) = next(iter(dg.data.DataLoader(both, batch_size=5)))
    assert x.tolist() == [0, 1, 2, 0, 1]


def test_a_split_follows_its_generator():
    parts = [dg.data.random_split(_numbers(10), [7, 3], generator=dg.Generator(5)) for _ in range(2)]
    assert parts[0][0].indices.tolist() == parts[1][0].indices.tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda: dg.data.WeightedRandomSampler([-1, 2], 3),
        lambda: dg.data.WeightedRandomSampler([1, 0], 2, replacement=False),
        lambda: dg.data.BatchSampler(range(3), 0),
        lambda: dg.data.ConcatDataset([]),
        lambda: dg.data.DataLoader(_numbers(3), sampler=[1], shuffle=True),
        lambda: dg.data.DataLoader(_numbers(3), batch_sampler=[[1]], batch_size=2),
        lambda: iter(dg.data.Sampler()),
        lambda: iter(dg.data.IterableDataset()),
    ],
)
def test_samplers_refuse_what_they_cannot_do(call):
    with pytest.raises(dg.errors.DuogradError):
        call()


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", ["relu", "silu", "leaky_relu", "elu", "hardswish", "mish", "dropout"])
def test_functions_write_over_their_argument_when_asked(name, mode):
    fn = getattr(nn.functional, name)

    def both(w, inplace):
        dg.manual_seed(3)
        x = w * 2
        y = fn(x, inplace=True) if inplace else fn(x)
        return y, x, y is x

    f, w = dg.function(both, mode=mode), dg.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    (new, kept, _), (over, same, one) = f(w, False), f(w, True)
    assert one
    assert over.tolist() == same.tolist() == new.tolist()
    assert kept.tolist() == [-2.0, 1.0, 4.0]
    slopes = [dg.autograd.grad(y.sum(), w)[0].tolist() for y in (new, over)]
    assert slopes[0] == slopes[1]


# ---------------------------------------------------------------- imports

IMPORTS = """
import duograd as dg
import duograd.optim as optim
import duograd.linalg
import duograd.distributions as D
import duograd.optim.lr_scheduler
from duograd.amp import autocast, GradScaler
from duograd.autograd import Function, grad
from duograd.data import DataLoader, TensorDataset
from duograd.distributions import Normal, kl_divergence
from duograd.distributions.transforms import TanhTransform
from duograd.nn.callbacks import EarlyStopping
from duograd.nn.parameter import Parameter
from duograd.onnx import export
from duograd.optim import SGD
from duograd.optim.lr_scheduler import StepLR
from duograd.optim.swa_utils import AveragedModel

assert optim is dg.optim and D is dg.distributions and optim.lr_scheduler is dg.optim.lr_scheduler
assert SGD is dg.optim.SGD and StepLR is dg.optim.lr_scheduler.StepLR and Parameter is dg.nn.Parameter
assert dg.optim.__name__ == dg.optim.__spec__.name == "duograd.nn.optim"
for name in ("nonsense", "optim.nonsense", "distributions.nonsense"):
    try:
        __import__("duograd." + name)
    except ModuleNotFoundError as error:
        assert "duograd." + name in str(error)
    else:
        raise AssertionError(name)
"""


def test_namespaces_are_imported_under_the_names_that_users_write():
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
