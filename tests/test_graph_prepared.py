"""What depends on state alone is computed once, anew when the state has changed, and always gives eager mode's bits."""

from __future__ import annotations

import gc
import threading

import duograd as dg
import numpy as np
import pytest
from duograd.graph import entry
from duograd.graph import prepared as store
from duograd.graph.prepared import Cache
from duograd.nn import functional as F

RNG = np.random.default_rng(5)


def normal(*shape, dtype=np.float32):
    return dg.tensor(RNG.standard_normal(shape).astype(dtype))


def same(a, b):
    assert a.dtype is b.dtype
    assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()


def runner(fn, k=-1):
    return fn.variants[k].root.runner


def made(fn, k=-1):
    """How often each result of a variant has been made."""
    return [e.made for e in runner(fn, k).prepared.entries]


class Net(dg.nn.Module):
    """Packed weights, a scale of batch normalisation, a transposed and joined weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = dg.nn.Linear(20, 24), dg.nn.Linear(20, 24)
        self.norm = dg.nn.BatchNorm1d(48)
        self.last = dg.nn.Linear(48, 3)

    def forward(self, x):
        w = dg.concat([self.first.weight, self.second.weight])
        return self.last(dg.relu(self.norm(x @ w.T)))


def network():
    dg.manual_seed(11)
    net = Net()
    net.norm.running_mean.copy_(normal(48))
    net.norm.running_var.copy_(dg.abs(normal(48)) + 0.5)
    return net.eval()


def evaluated(net):
    @dg.function
    def forward(x):
        with dg.no_grad():
            return net(x)

    return forward


def _slice(net):
    with dg.no_grad():
        net.last.weight[1] = 0.25


def _view(net):
    with dg.no_grad():
        net.first.weight.T[3].add_(1.0)


def _other_function(net):
    @dg.function
    def change(y):
        with dg.no_grad():
            net.second.weight.add_(y)

    change(normal(24, 20))


def _load(net):
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})


def _optimizer(net):
    for p in net.parameters():
        p.grad = dg.ones_like(p)
    dg.optim.SGD(net.parameters(), lr=0.1).step()


def _numpy(net):
    net.last.weight.detach().numpy()[0, 0] = 7.0


def _dlpack(net):
    np.from_dlpack(net.first.weight.detach())[2] = 3.0


def _buffer(net):
    net.norm.running_var.mul_(2.0)


def _training(net):
    net.train()
    with dg.no_grad():
        net(normal(8, 20))
    net.eval()


CHANGES = {
    f.__name__[1:]: f
    for f in (_slice, _view, _other_function, _load, _optimizer, _numpy, _dlpack, _buffer, _training)
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_every_change_of_state_is_seen(change):
    net, x = network(), normal(16, 20)
    fn = evaluated(net)
    before = fn(x)
    assert len(runner(fn).compiled.prepared) >= 2
    for _ in range(5):
        same(fn(x), before)
    assert set(made(fn)) == {1}
    change(net)
    after = fn(x)
    same(after, fn.eager(x))
    assert after.numpy().tobytes() != before.numpy().tobytes()
    for _ in range(4):
        same(fn(x), after)
    assert len(fn.variants) == 1
    assert max(made(fn)) <= (2 if change is not _dlpack else 99)


@pytest.mark.parametrize("change", ["replace", "float64", "assign"])
def test_other_memory_is_another_variant(change):
    net, x = network(), normal(16, 20)
    fn = evaluated(net)
    fn(x)
    if change == "replace":
        net.last = dg.nn.Linear(48, 3)
    elif change == "assign":
        net.last.weight = dg.nn.Parameter(normal(3, 48))
    else:
        net.to(dg.float64)
        x = x.to(dg.float64)
    for _ in range(2):
        same(fn(x), fn.eager(x))
    assert len(fn.variants) == 2


def test_memory_that_numpy_holds_is_read_at_every_call():
    net, x = network(), normal(4, 20)
    fn = evaluated(net)
    fn(x)
    array = net.last.weight.detach().numpy()
    for value in (1.0, 2.0, 3.0):
        array[0] = value
        same(fn(x), fn.eager(x))
    array[1] = 4.0
    del array
    for _ in range(3):
        same(fn(x), fn.eager(x))
    count = made(fn)
    fn(x)
    assert made(fn) == count


def test_memory_of_a_numpy_array_is_read_at_every_call():
    array = RNG.standard_normal((24, 40)).astype(np.float32)
    w, x = dg.asarray(array, copy=False), normal(6, 24)
    fn = dg.function(lambda x: x @ w)
    for _ in range(5):
        array *= 1.5
        same(fn(x), x @ w)


def test_batch_sizes_share_what_is_prepared():
    net = network()
    fn = evaluated(net)
    for rows in (16, 40, 9):
        x = normal(rows, 20)
        for _ in range(5):
            same(fn(x), fn.eager(x))
    assert len(fn.variants) == 3
    assert set(made(fn)) == {1}
    assert len({id(e) for k in range(3) for e in runner(fn, k).prepared.entries}) == len(made(fn))


def test_functions_share_what_is_prepared():
    w, x = normal(30, 50), normal(12, 30)
    f, g = dg.function(lambda x: x @ w), dg.function(lambda x: dg.exp((x @ w) * 2))
    f(x), g(x)
    assert runner(f).prepared.entries == runner(g).prepared.entries
    assert made(f) == [1]


def test_kernels_that_prepare_are_no_part_of_a_call():
    w, x = normal(30, 50), normal(12, 30)
    fn = dg.function(lambda x: x @ w)
    fn(x)
    program = runner(fn).compiled.program
    assert len(program.launches) == 1
    (recipe,) = runner(fn).compiled.prepared
    assert not {row.source for row in recipe.program.launches} & {row.source for row in program.launches}
    assert "prepared once" in fn.explain()


def test_a_train_step_prepares_nothing():
    net, x, y = network().train(), normal(16, 20), normal(16, 3)
    optimizer = dg.optim.SGD(net.parameters(), lr=0.1)

    @dg.function
    def step(x, y):
        optimizer.zero_grad()
        loss = ((net(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    step(x, y)
    assert runner(step).prepared is None


def test_a_frozen_weight_in_a_train_step_is_prepared():
    frozen, head, x = normal(30, 40), normal(40, 2).requires_grad_(), normal(8, 30)

    @dg.function
    def step(x):
        loss = (dg.tanh(x @ frozen) @ head).sum()
        loss.backward()
        with dg.no_grad():
            head.sub_(head.grad * 0.1)
        head.grad = None
        return loss

    for _ in range(5):
        twin = head.detach().clone().requires_grad_()
        expected = (dg.tanh(x @ frozen) @ twin).sum()
        same(step(x), expected)
    assert made(step) == [1]


def test_a_call_on_the_tape_prepares_what_needs_no_gradient():
    frozen, w, x = normal(30, 40), normal(40, 20).requires_grad_(), normal(8, 30)
    fn = dg.function(lambda x: dg.tanh(x @ frozen) @ w)
    for _ in range(3):
        out = fn(x)
        out.sum().backward()
        with dg.no_grad():
            w.sub_(w.grad * 0.1)
        w.grad = None
        same(fn(x), fn.eager(x))
    assert made(fn) == [1]


def test_results_may_be_state_and_what_is_made_of_it():
    w, b = normal(6, 5), normal(5)

    @dg.function
    def fn():
        big = dg.exp(dg.concat([w, w])) + b
        return big, big.T, big.sum(), w, dg.sort(b)

    for _ in range(4):
        first = fn()
        for a, e in zip(first, fn.eager()):
            same(a, e)
        first[0].add_(1.0)  # a result is the caller's own


def test_halves_and_integers_are_prepared():
    x, index = normal(9, 32), dg.tensor([3, 1, 2])
    w = normal(32, 20, dtype=np.float16)
    fn = dg.function(lambda x: (x.to(dg.float16) @ w, dg.take(x, dg.sort(index), axis=0)))
    for _ in range(4):
        for a, e in zip(fn(x), fn.eager(x)):
            same(a, e)
    assert set(made(fn)) == {1}


@pytest.mark.parametrize("cell", [dg.nn.LSTM, dg.nn.GRU])
def test_recurrent_weights_are_prepared(cell):
    dg.manual_seed(1)
    net, x = cell(12, 20, num_layers=2), normal(5, 3, 12)
    fn = evaluated(net)
    for _ in range(4):
        same(fn(x)[0], fn.eager(x)[0])
    assert sum(len(row.sources()) for row in [runner(fn).compiled]) > 0
    assert all("pack" not in launch.source[:8] for launch in runner(fn).compiled.program.launches)
    with dg.no_grad():
        net.weight_hh_l1.mul_(0.5)
    same(fn(x)[0], fn.eager(x)[0])


def test_winograd_filters_are_prepared():
    w, x = normal(32, 32, 3, 3), normal(1, 32, 16, 16)
    fn = dg.function(lambda x: F.conv2d(x, w, padding=1))
    for _ in range(4):
        same(fn(x), fn.eager(x))
    assert len(runner(fn).compiled.program.launches) == 1
    w.mul_(2.0)
    same(fn(x), fn.eager(x))


def test_a_branch_on_a_value_sees_what_its_other_side_writes():
    w, x = normal(24, 40), normal(6, 24)

    @dg.function
    def fn(x, limit):
        y = x @ w
        if y.sum() > limit:
            w.mul_(0.5)
        return dg.tanh(y)

    twin = dg.function(fn._fn, mode="eager")
    start = w.clone()
    for limit in (1e9, -1e9, -1e9, 1e9, -1e9):
        got = fn(x, dg.tensor(limit)), w.clone()
        w.copy_(start)
        expected = twin(x, dg.tensor(limit)), w
        for a, e in zip(got, expected):
            same(a, e)
        start = w.clone()


def test_threads_share_results_and_see_changes():
    net = network()
    fn = evaluated(net)
    xs = [normal(n, 20) for n in (8, 24)]
    for x in xs:
        fn(x)
    wrong = []

    def work(x):
        for _ in range(60):
            if fn(x).numpy().tobytes() != expected[id(x)]:
                wrong.append(1)

    for _ in range(3):
        with dg.no_grad():
            net.last.weight.add_(0.5)
        expected = {id(x): fn.eager(x).numpy().tobytes() for x in xs}
        threads = [threading.Thread(target=work, args=(x,)) for x in (*xs, *xs)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong


@pytest.mark.usefixtures("own_garbage")
def test_memory_is_bounded_and_given_back(monkeypatch):
    cache = Cache(limit=100_000)
    monkeypatch.setattr(store, "cache", cache)
    monkeypatch.setattr("duograd.graph.compile.cache", cache)
    x, weights = normal(8, 64), [normal(64, 128) for _ in range(6)]
    functions = [dg.function(lambda x, w=w: x @ w) for w in weights]
    for _ in range(3):
        for fn, w in zip(functions, weights):
            same(fn(x), x @ w)
            assert cache.nbytes <= 100_000
    assert cache.nbytes > 60_000
    large = normal(64, 512)  # more than all that may be kept: packed in each call
    fn = dg.function(lambda x: x @ large)
    same(fn(x), x @ large)
    assert runner(fn).prepared is None
    del functions, fn
    gc.collect()
    assert cache.nbytes == 0
    assert len(cache._entries) == 0


@pytest.mark.usefixtures("own_garbage")
def test_a_variant_that_goes_takes_its_results_along():
    w, x = normal(64, 96), normal(8, 64)
    before = len(store.cache._entries)
    fn = dg.function(lambda x: x @ w)
    fn(x)
    assert len(store.cache._entries) == before + 1
    del fn
    gc.collect()
    assert len(store.cache._entries) == before


def test_looking_at_a_function_leaves_what_is_prepared_right():
    net, x = network(), normal(16, 20)
    fn = evaluated(net)
    fn(x)
    fn.profile(x, seconds=0.01)
    assert dg.compare(net, x).equal
    assert dg.compare(fn, x).equal
    with dg.no_grad():
        net.last.bias.add_(1.0)
        net.first.weight.mul_(1.5)
    same(fn(x), fn.eager(x))


def test_entries_know_what_is_prepared(monkeypatch):
    monkeypatch.setattr(entry, "CALLS", 1)
    net, x = network(), normal(16, 20)
    fn = evaluated(net)
    for scale in (1.0, 0.5, 2.0):
        with dg.no_grad():
            net.second.weight.mul_(scale)
        for _ in range(3):
            same(fn(x), fn.eager(x))
    assert fn._entries
    assert max(made(fn)) == 3


def _normalised(norm, channels):
    module = norm(channels).eval()
    module.running_mean.copy_(normal(channels))
    module.running_var.copy_(dg.abs(normal(channels)) + 0.5)
    return module


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (lambda: dg.nn.Conv2d(4, 6, 3, padding=1, groups=2), dg.nn.BatchNorm2d, (2, 4, 7, 7)),
        (lambda: dg.nn.Conv1d(4, 6, 3, bias=False), dg.nn.BatchNorm1d, (2, 4, 9)),
        (lambda: dg.nn.Linear(5, 6), dg.nn.BatchNorm1d, (3, 5)),
    ],
)
def test_fast_precision_puts_scales_into_weights(layer, norm, shape):
    dg.manual_seed(2)
    first, second, x = layer(), _normalised(norm, 6), normal(*shape)

    def body(x):
        with dg.no_grad():
            return dg.relu(second(first(x)) * 0.5)

    fast, match = dg.function(body, precision="fast"), dg.function(body)
    for _ in range(2):
        same(match(x), body(x))
        np.testing.assert_allclose(fast(x).numpy(), body(x).numpy(), rtol=2e-5, atol=2e-6)
        second.weight.detach().mul_(1.5)
        second.running_mean.add_(0.25)
    (group,) = runner(fast).compiled.groups
    assert sorted(n.op.name for n in group.nodes if not n.op.is_view)[:1] == ["add"]
    assert len([n for n in group.nodes if not n.op.is_view]) == 3
    assert made(fast) == [2]


def test_fast_precision_leaves_results_that_are_read_twice_and_changing_weights():
    w, s, x = normal(5, 6), normal(6), normal(3, 5)

    def twice(x):
        y = x @ w
        return y * s, y.sum()

    def given(x, w):
        return (x @ w) * s

    for fn, args in ((twice, (x,)), (given, (x, w))):
        fast = dg.function(fn, precision="fast")
        expected = fn(*args)
        for a, e in zip(dg.function(fn)(*args), expected):
            same(a, e)
        np.testing.assert_allclose(fast(*args)[0].numpy(), expected[0].numpy(), rtol=2e-6)
        assert sum(n.op.name == "multiply" for n in runner(fast).compiled.optimised.nodes) == 1


@pytest.mark.parametrize("half", [dg.bfloat16, dg.float16], ids=str)
@pytest.mark.parametrize("rows", [1, 12, 300])
def test_a_weight_in_16_bits_is_packed_from_what_it_is_rounded_from(half, rows):
    w, x, b = normal(30, 50), normal(rows, 30), normal(50)
    fn = dg.function(lambda x: dg.relu(x.to(half) @ w.to(half) + b.to(half)))
    for _ in range(2):
        same(fn(x), fn.eager(x))
    texts = [launch.source.partition("\n")[0] for launch in runner(fn).compiled.program.launches]
    assert not any("cast" in text for text in texts[rows == 1 :])
    if rows > 1:
        assert len(texts) == 1
    before = made(fn)
    w *= 1.001
    same(fn(x), fn.eager(x))
    assert sum(made(fn)) == sum(before) + 1
