"""Random tensors: distributions against SciPy's, choices, generators, equal numbers in both modes."""

import math

import duograd as dg
import numpy as np
import pytest

N = 20000
#: name -> (draw of a shape and dtype, SciPy's distribution and its arguments)
CONTINUOUS = {
    "rand": (lambda n, d: dg.rand(n, dtype=d), ("uniform",)),
    "uniform": (lambda n, d: dg.uniform(2.0, 5.0, (n,), dtype=d), ("uniform", 2, 3)),
    "randn": (lambda n, d: dg.randn(n, dtype=d), ("norm",)),
    "normal": (lambda n, d: dg.normal(1.0, 2.0, (n,), dtype=d), ("norm", 1, 2)),
    "exponential": (lambda n, d: dg.exponential(2.0, (n,), dtype=d), ("expon", 0, 0.5)),
    "gumbel": (lambda n, d: dg.gumbel(1.0, 2.0, (n,), dtype=d), ("gumbel_r", 1, 2)),
    "laplace": (lambda n, d: dg.laplace(1.0, 2.0, (n,), dtype=d), ("laplace", 1, 2)),
    "cauchy": (lambda n, d: dg.cauchy(1.0, 2.0, (n,), dtype=d), ("cauchy", 1, 2)),
    "log_normal": (lambda n, d: dg.log_normal(0.5, 0.3, (n,), dtype=d), ("lognorm", 0.3, 0, math.exp(0.5))),
    "truncated_normal": (
        lambda n, d: dg.truncated_normal(0.5, 2.0, -1.0, 3.0, (n,), dtype=d), ("truncnorm", -0.75, 1.25, 0.5, 2)),
}  # fmt: skip


@pytest.fixture
def stats():
    return pytest.importorskip("scipy.stats", reason="SciPy is not installed: distributions are not tested")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_draws_follow_the_distribution(stats, name, dtype):
    draw, (law, *args) = CONTINUOUS[name]
    x = draw(N, dtype)
    assert x.shape == (N,)
    assert x.dtype == dtype
    # One fixed seed: the probability of a wrong alarm is 1 in 1000 for each, once and for all.
    assert stats.kstest(x.numpy().astype(float), getattr(stats, law)(*args).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["rand", "randn"])
def test_float64_draws_have_all_bits(name):
    x = CONTINUOUS[name][0](N, "float64").numpy()
    assert np.unique(x).size == N
    low = (x * 2.0**40) % 1.0 if name == "rand" else np.abs(x.view(np.int64)) % 2**8 / 256
    # What float32 cannot hold is random too: its mean is 1/2 to five deviations.
    assert abs(low.mean() - 0.5) < 5 * math.sqrt(1 / 12 / N)
    if name == "rand":
        assert (x * 2.0**53 % 1 == 0).all()


def test_uniform_numbers_stay_below_one():
    x = dg.rand(1 << 20).numpy()
    assert x.min() >= 0
    assert x.max() < 1


def test_discrete_draws_follow_their_shares(stats):
    counts = np.bincount(dg.randint(3, 8, (N,)).numpy() - 3)
    assert stats.chisquare(counts).pvalue > 1e-3
    trials = dg.geometric(0.3, (N,)).numpy()
    seen = np.array([(trials == k).sum() for k in range(1, 12)] + [(trials >= 12).sum()])
    share = np.array([0.7 ** (k - 1) * 0.3 for k in range(1, 12)] + [0.7**11])
    assert stats.chisquare(seen, share * N).pvalue > 1e-3
    p = dg.tensor([0.0, 0.25, 1.0])
    mean = dg.bernoulli(p, (N, 3)).mean(axis=0).numpy()
    np.testing.assert_allclose(mean, [0, 0.25, 1], atol=5 * math.sqrt(0.19 / N))
    assert mean[0] == 0
    assert mean[2] == 1


def test_wide_ranges_of_integers_are_even(stats):
    span = 3 << 30  # a third of the 32-bit numbers would come twice as often from 32 bits alone
    x = dg.randint(0, span, (N,)).numpy()
    assert stats.kstest(x / span, "uniform").pvalue > 1e-3


def test_classes_are_drawn_by_weight(stats):
    logits = np.log(np.array([0.1, 0.2, 0.7], np.float32))
    drawn = dg.categorical(dg.tensor(np.tile(logits, (N, 1)))).numpy()
    assert stats.chisquare(np.bincount(drawn), np.array([0.1, 0.2, 0.7]) * N).pvalue > 1e-3
    drawn = dg.multinomial(dg.tensor([1.0, 0.0, 2.0, 7.0]), N, replacement=True).numpy()
    assert stats.chisquare(np.bincount(drawn)[[0, 2, 3]], np.array([0.1, 0.2, 0.7]) * N).pvalue > 1e-3
    assert not (drawn == 1).any()


def test_draws_without_replacement_follow_the_order_of_weights(stats):
    w = np.array([0.5, 0.3, 0.2])
    drawn = dg.multinomial(dg.tensor(np.tile(w, (N, 1)).astype(np.float32)), 2).numpy()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    seen = [((drawn == p).all(axis=1)).sum() for p in pairs]
    assert stats.chisquare(seen, [w[i] * w[j] / (1 - w[i]) * N for i, j in pairs]).pvalue > 1e-3


def test_permutations_are_even(stats):
    seen = np.zeros((4, 4))
    for _ in range(600):
        seen[np.arange(4), dg.randperm(4).numpy()] += 1
    assert stats.chisquare(seen.ravel()).pvalue > 1e-3
    assert sorted(dg.permutation(50).tolist()) == list(range(50))
    x = dg.arange(12).reshape(3, 4)
    rows = dg.shuffle(x).numpy()
    assert sorted(map(tuple, rows)) == sorted(map(tuple, x.numpy()))
    assert sorted(dg.permutation(x, axis=1).numpy()[0]) == [0, 1, 2, 3]


def test_a_generator_repeats_itself_in_both_modes():
    generator = dg.Generator(3)

    def draw(m):
        return (
            dg.normal(m, 2.0, generator=generator), dg.randperm(6, generator=generator),
            dg.exponential(shape=(3,), dtype="float64", generator=generator), dg.laplace(m, generator=generator),
            dg.truncated_normal(m, generator=generator), dg.bernoulli(0.3, (4,), generator=generator),
        )  # fmt: skip

    m = dg.tensor([0.5, -1.0, 2.0])
    first = draw(m)
    second = draw(m)
    graph = dg.function(draw)
    for want in (first, second):
        if want is first:
            generator.manual_seed(3)
        for a, b in zip(want, graph(m)):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert not np.array_equal(first[0].numpy(), second[0].numpy())


@pytest.mark.parametrize(
    "start", [2**63 - 3, 2**63 + 5, 2**64 - 3], ids=["below the sign", "above it", "at the end"]
)
def test_all_64_bits_of_an_offset_count(start):
    generator = dg.Generator(3)

    def draw():
        def body(c, _):
            return c + dg.rand((), generator=generator), dg.randint(100, shape=(2,), generator=generator)

        return (
            dg.rand((2, 3), generator=generator), dg.randn(5, generator=generator),
            dg.randperm(6, generator=generator), dg.scan(body, dg.tensor(0.0), length=3),
            dg.rand((4,), dtype="float64", generator=generator),
        )  # fmt: skip

    runs, states = [], []
    for run in (draw, *[dg.function(draw)] * 4):
        generator.set_state((3, start))
        runs.append([y.numpy() for y in dg.core.tree.leaves(run())])
        states.append(generator.get_state())
    assert set(states) == {(3, (start + 22) % 2**64)}
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    generator.set_state((3, start))
    one_by_one = [dg.rand((), generator=generator).item() for _ in range(6)]
    np.testing.assert_array_equal(runs[0][0].ravel(), np.float32(one_by_one))
    order = dg.data.RandomSampler(range(9), generator=generator)
    assert sorted(order) == list(range(9))


def test_what_is_no_state_of_a_generator_is_refused():
    for state in ((2**63, 0), (0, -1), (0, 2**64)):
        with pytest.raises(dg.errors.ArgumentError, match="no state of a generator"):
            dg.Generator().set_state(state)


def test_draws_differentiate_by_their_parameters():
    mean, std = (dg.tensor([v, v], requires_grad=True) for v in (1.0, 2.0))
    x = dg.normal(mean, std)
    x.sum().backward()
    np.testing.assert_array_equal(mean.grad.numpy(), [1, 1])
    np.testing.assert_allclose(std.grad.numpy(), ((x - 1) / 2).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_parameters_give_shape_and_dtype():
    x = dg.normal(dg.zeros((3, 1), dtype="float64"), dg.ones((4,)))
    assert x.type == dg.zeros((3, 4), dtype="float64").type
    assert dg.rand_like(x).type == x.type
    assert dg.randn_like(x, dtype="float32").dtype is dg.float32
    assert dg.randint_like(x, 5, dtype="int32").type == dg.zeros((3, 4), dtype="int32").type
    assert dg.exponential().shape == ()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: dg.randint(5, 5), r"\[randint\] the range from 5 to 5 is empty"),
        (lambda: dg.exponential(0.0), r"\[exponential\] rate=0.0 is not above 0"),
        (lambda: dg.bernoulli(1.5), r"\[bernoulli\] p=1.5 is not a probability"),
        (lambda: dg.multinomial(dg.ones((3,)), 4), r"\[multinomial\] cannot draw 4 of 3 classes"),
        (
            lambda: dg.truncated_normal(low=2.0, high=1.0),
            r"\[truncated_normal\] low=2.0 is not below high=1.0",
        ),
        (lambda: dg.rand(2, dtype="int32"), r"\[rand\] dtype=int32 is no float"),
        (lambda: dg.randperm(-1), "randperm"),
    ],
)
def test_impossible_draws_are_refused(call, match):
    with pytest.raises(dg.errors.DuogradError, match=match):
        call()


# ---------------------------------------------------------------- spaced numbers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["linspace", "logspace", "geomspace"])
@pytest.mark.parametrize(("num", "endpoint"), [(0, True), (1, True), (1, False), (7, True), (7, False)])
def test_spaced_numbers_equal_numpy(name, dtype, num, endpoint):
    start, stop = (0.3, 2.7) if name != "linspace" else (-1.3, 0.1)
    got = getattr(dg, name)(start, stop, num, endpoint, dtype=dtype).numpy()
    want = getattr(np, name)(start, stop, num, endpoint).astype(dtype)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=3e-7 if dtype == "float32" else 4e-15)
    if num > 1 and endpoint and name != "logspace":
        assert got[-1] == np.dtype(dtype).type(stop)


def test_linspace_of_integers_rounds_down():
    np.testing.assert_array_equal(dg.linspace(0, 10, 4, dtype="int64"), np.linspace(0, 10, 4, dtype=np.int64))


@pytest.mark.parametrize(
    ("data", "dtype"),
    [([True, False], "bool"), ([True, 2], "int64"), ([[1, 2.5], [3, 4]], "float32"), ([], "float32"), (3, "int64"),
     ([np.float64(1), 2], "float64"), ([np.float32(1), 2.5], "float32"), ([np.int32(1), 2.5], "float32")],
)  # fmt: skip
def test_dtype_of_python_data(data, dtype):
    assert dg.tensor(data).dtype == dtype
    assert dg.asarray(data).dtype == dtype


def test_tensors_in_lists_are_joined():
    assert dg.tensor([dg.tensor(1.0), 2.0]).type == dg.zeros((2,)).type
    assert dg.tensor([dg.tensor([1.0, 2.0]), dg.tensor([3.0, 4.0])]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
