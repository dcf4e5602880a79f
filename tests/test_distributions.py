"""Distributions against PyTorch: log-densities, entropies, divergences, moments of draws, gradients, both modes."""

import duograd as dg
import numpy as np
import pytest
from duograd import distributions as D

A, B = np.array([0.5, 2.0, 1.3], "float32"), np.array([1.5, 0.7, 3.0], "float32")
ROWS = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], "float32")
OTHER = np.array([[0.3, 0.3, 0.4], [0.6, 0.2, 0.2]], "float32")

SQUARE = np.array([[2.0, 0.3, -0.4], [0.3, 1.0, 0.2], [-0.4, 0.2, 0.7]], "float32")

#: name -> (parameters, other parameters, values)
CASES = {
    "Normal": ((A, B), (B, A), A - 1),
    "Laplace": ((A, B), (B, A), A - 1),
    "Gumbel": ((A, B), None, A - 1),
    "StudentT": ((A * 10 + 8, A, B), None, A - 1),
    "LogNormal": ((A, B / 8), (B, A), B),
    "Uniform": ((-A, B), (-A - 1, B + 1), A / 4),
    "Exponential": ((A,), (B,), B),
    "Gamma": ((A, B), (B, A), B),
    "Beta": ((A, B), (B, A), ROWS[0]),
    "Dirichlet": ((ROWS * 5,), (OTHER * 4,), OTHER),
    "Poisson": ((A,), (B,), np.array([0.0, 3.0, 1.0], "float32")),
    "Bernoulli": ((ROWS[0],), (OTHER[0],), np.array([0.0, 1.0, 1.0], "float32")),
    "Categorical": ((ROWS,), (OTHER,), np.array([2, 0])),
    "OneHotCategorical": ((ROWS,), (OTHER,), np.eye(3, dtype="float32")[[2, 0]]),
    "MultivariateNormal": ((ROWS, SQUARE), (A, SQUARE[::-1, ::-1] + np.eye(3, dtype="float32")), OTHER),
}
DRAWN = [c for c in CASES if c not in ("Categorical",)]


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: densities are not compared with it")


def _pair(torch, name, rows):
    theirs = getattr(torch.distributions, name)(*map(torch.tensor, rows))
    return getattr(D, name)(*map(dg.tensor, rows)), theirs


def _close(a, b):
    np.testing.assert_allclose(a.numpy(), np.asarray(b), 2e-5, 2e-6)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", CASES)
def test_densities_agree_with_torch(torch, name, mode):
    rows, others, value = CASES[name]
    ours, theirs = _pair(torch, name, rows)

    @dg.function(mode=mode)
    def look(v, *rows):
        d = getattr(D, name)(*rows)
        return d.log_prob(v), d.entropy() if name != "Poisson" else v

    log_prob, entropy = look(dg.tensor(value), *map(dg.tensor, rows))
    _close(log_prob, theirs.log_prob(torch.tensor(value)))
    if name != "Poisson":  # neither has a closed form
        _close(entropy, theirs.entropy())
    if name != "Categorical":
        _close(ours.mean, theirs.mean)
        _close(ours.variance, theirs.variance)
        _close(ours.stddev, theirs.stddev)
    assert ours.batch_shape == tuple(theirs.batch_shape)
    assert ours.event_shape == tuple(theirs.event_shape)
    if others is not None:
        q, q_theirs = _pair(torch, name, others)
        _close(D.kl_divergence(ours, q), torch.distributions.kl_divergence(theirs, q_theirs))


@pytest.mark.parametrize("name", ["Exponential", "Gumbel", "Laplace", "Normal", "Uniform"])
def test_probabilities_up_to_a_value_agree_with_torch(torch, name):
    rows, _, value = CASES[name]
    ours, theirs = _pair(torch, name, rows)
    for x in (value, value * 0.3 + 0.5):
        _close(ours.cdf(dg.tensor(x)), theirs.cdf(torch.tensor(x)))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_many_degrees_of_freedom_lose_no_digits(torch, mode):
    """Differences of lgamma were off by 0.2 at 10^7 degrees in float32."""
    df = np.array([1e-6, 0.3, 5, 31, 33, 100, 1e4, 1e7, 1e30])

    def look(df):
        d = D.StudentT(df)
        return d.log_prob(dg.tensor(0.7, dtype=df.dtype)), d.entropy()

    theirs = torch.distributions.StudentT(torch.tensor(df[:6]))
    for dtype, rtol in (("float32", 2e-6), ("float64", 1e-12)):
        leaf = dg.tensor(df, dtype=dtype, requires_grad=True)
        found = dg.function(look, mode=mode)(leaf)
        for y, want in zip(
            found, (theirs.log_prob(torch.tensor(0.7, dtype=torch.float64)), theirs.entropy())
        ):
            np.testing.assert_allclose(y.detach().numpy()[:6], want.numpy(), rtol, rtol)
        normal = D.Normal(0.0, 1.0)
        for y, want in zip(found, (normal.log_prob(dg.tensor(0.7)), normal.entropy())):
            np.testing.assert_allclose(y.detach().numpy()[-2:], want.item(), 1e-6)
        (found[0] + found[1]).sum().backward()
        assert np.isfinite(leaf.grad.numpy()).all()


@pytest.mark.parametrize("name", ["Bernoulli", "Categorical"])
def test_logits_agree_with_torch(torch, name):
    ours = getattr(D, name)(logits=dg.tensor(ROWS * 40 - 10))
    theirs = getattr(torch.distributions, name)(logits=torch.tensor(ROWS * 40 - 10))
    value = np.array([1, 0]) if name == "Categorical" else (ROWS > 0.25).astype("float32")
    _close(ours.log_prob(dg.tensor(value)), theirs.log_prob(torch.tensor(value)))
    _close(ours.entropy(), theirs.entropy())
    _close(ours.probs, theirs.probs)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", DRAWN)
def test_draws_have_the_moments(name, mode):
    rows = CASES[name][0]
    d = getattr(D, name)(*map(dg.tensor, rows))
    x = dg.function(lambda: d.sample((20000,)), mode=mode)()
    assert x.shape == (20000, *d.batch_shape, *d.event_shape)
    off = np.abs(x.numpy().mean(0) - d.mean.numpy()) / d.stddev.numpy()
    assert off.max() < 0.035  # five standard errors
    np.testing.assert_allclose(x.numpy().var(0), d.variance.numpy(), rtol=0.12)


def test_categorical_draws_follow_their_weights():
    x = D.Categorical(dg.tensor(ROWS)).sample((20000,)).numpy()
    for k in range(3):
        np.testing.assert_allclose((x == k).mean(0), ROWS[:, k], atol=0.02)


@pytest.mark.parametrize("name", [c for c in CASES if getattr(D, c).has_rsample])
def test_reparameterised_draws_have_gradients(name):
    rows = [dg.tensor(r, requires_grad=True) for r in CASES[name][0]]
    x = getattr(D, name)(*rows).rsample((3,))
    (x * dg.randn(*x.shape)).sum().backward()
    assert all(np.abs(r.grad.numpy()).sum() > 0 for r in rows)
    assert not getattr(D, name)(*rows).sample().requires_grad


def test_axes_become_one_event(torch):
    ours = D.Independent(D.Normal(dg.tensor(ROWS), 1.0), 1)
    theirs = torch.distributions.Independent(torch.distributions.Normal(torch.tensor(ROWS), 1.0), 1)
    assert ours.batch_shape == (2,)
    assert ours.event_shape == (3,)
    _close(ours.log_prob(dg.tensor(OTHER)), theirs.log_prob(torch.tensor(OTHER)))
    _close(ours.entropy(), theirs.entropy())
    other = D.Independent(D.Normal(dg.tensor(OTHER), 2.0), 1)
    other_theirs = torch.distributions.Independent(torch.distributions.Normal(torch.tensor(OTHER), 2.0), 1)
    _close(D.kl_divergence(ours, other), torch.distributions.kl_divergence(theirs, other_theirs))


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("given", ["covariance_matrix", "precision_matrix", "scale_tril"])
def test_a_normal_of_vectors_is_given_by_any_of_its_matrices(torch, given, batch, mode):
    matrix = np.linalg.cholesky(SQUARE) if given == "scale_tril" else SQUARE
    matrix = np.broadcast_to(matrix, (*batch, 3, 3)) * np.float32(1.5)
    row = [A, np.ascontiguousarray(matrix), np.stack([ROWS, OTHER, ROWS])]

    def look(D, loc, matrix, value):
        d = D.MultivariateNormal(loc, **{given: matrix})
        log_prob = d.log_prob(value)
        log_prob.sum().backward()
        return log_prob, d.entropy(), d.variance, d.covariance_matrix, d.precision_matrix, d.scale_tril

    ours = [dg.tensor(x, requires_grad=k < 2) for k, x in enumerate(row)]
    theirs = [torch.tensor(x, requires_grad=k < 2) for k, x in enumerate(row)]
    made = dg.function(lambda *row: look(D, *row), mode=mode)(*ours)
    for a, b in zip(made, look(torch.distributions, *theirs), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 2e-5, 1e-5)
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 1e-4, 1e-4)


def test_a_normal_of_vectors_says_what_does_not_fit():
    loc, matrix = dg.tensor(A), dg.tensor(SQUARE)
    with pytest.raises(dg.errors.ArgumentError, match=r"got 2 matrices(.|\n)*give one of covariance_matrix"):
        D.MultivariateNormal(loc, matrix, scale_tril=matrix)
    with pytest.raises(dg.errors.ShapeError, match="is no square of loc"):
        D.MultivariateNormal(loc, matrix[:2, :2])
    with pytest.raises(dg.errors.LinAlgError, match="not positive definite"):
        D.MultivariateNormal(loc, -matrix)
    with pytest.raises(dg.errors.ArgumentError, match="scale_tril=-2 is not above 0"):
        D.MultivariateNormal(loc, scale_tril=-matrix)


def test_a_distribution_that_there_is_not_is_an_error_of_ours():
    with pytest.raises(dg.errors.UnknownNameError, match=r"write dg\.distributions\.MultivariateNormal"):
        _ = D.MultiVariateNormal


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", ["Bernoulli", "Categorical", "OneHotCategorical"])
def test_probabilities_of_0_and_1_have_finite_logarithms_and_gradients(torch, name, mode):
    probs = np.array(
        [0.0, 1.0, 0.3, 1.0, 0.0] if name == "Bernoulli" else [[0, 0.5, 0.5], [1, 0, 0]], "float32"
    )
    value = {
        "Bernoulli": np.array([0.0, 1.0, 1.0, 0.0, 1.0], "float32"),
        "Categorical": np.array([1, 1]),
        "OneHotCategorical": np.eye(3, dtype="float32")[[1, 1]],
    }[name]
    ours, theirs = dg.tensor(probs, requires_grad=True), torch.tensor(probs, requires_grad=True)

    @dg.function(mode=mode)
    def look(p, v):
        d = getattr(D, name)(p)
        even = getattr(D, name)(dg.full(p.shape, 0.5 if name == "Bernoulli" else 1 / 3))
        return d.log_prob(v), d.entropy(), D.kl_divergence(even, d)

    made = look(ours, dg.tensor(value))
    d = getattr(torch.distributions, name)(theirs, validate_args=False)
    even = getattr(torch.distributions, name)(torch.full(probs.shape, 0.5 if name == "Bernoulli" else 1 / 3))
    wanted = d.log_prob(torch.tensor(value)), d.entropy(), torch.distributions.kl_divergence(even, d)
    for a, b in zip(made, wanted):
        _close(a.detach(), b.detach())
    (slope,) = dg.autograd.grad(made[1].sum(), ours, retain_graph=True)
    assert np.isfinite(slope.numpy()).all()
    made[0].sum().backward()
    wanted[0].sum().backward()
    _close(ours.grad, theirs.grad)


def test_what_has_no_probability_is_never_drawn():
    x = D.Categorical(dg.tensor([1e-30, 0.0])).sample((1000,))
    assert x.sum().item() == 0
    logits = dg.tensor([-np.inf, 0.0, 1.0], dtype="float32", requires_grad=True)
    D.Categorical(logits=logits).entropy().backward()
    assert np.isfinite(logits.grad.numpy()).all()


def test_certain_events_have_finite_divergence():
    p, q = D.Categorical(dg.tensor([1.0, 0.0])), D.Categorical(dg.tensor([0.5, 0.5]))
    assert D.kl_divergence(p, q).item() == pytest.approx(np.log(2))
    assert p.entropy().item() == 0


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: D.Bernoulli(), "probs or logits"),
        (lambda: D.Categorical(probs=dg.ones(2), logits=dg.ones(2)), "probs or logits"),
        (lambda: D.Categorical(0.3), "last axis"),
        (lambda: D.Dirichlet(dg.tensor(1.0)), "no axis"),
        (lambda: D.Poisson(1.0).rsample(), "no gradient"),
        (lambda: D.kl_divergence(D.Normal(0.0, 1.0), D.Poisson(1.0)), "no rule for Normal and Poisson"),
        (lambda: D.Independent(D.Normal(0.0, 1.0), 1), "1 axes"),
        (lambda: D.Normal(dg.ones(2), dg.ones(3)), "broadcast"),
    ],
)
def test_misuse_is_named(call, match):
    with pytest.raises(dg.errors.DuogradError, match=match):
        call()


NAN = float("nan")
#: name -> parameters that have no meaning, and what the error says of them
NO_PARAMETERS = {
    "Normal": [((NAN, 1.0), "loc=nan is not a number"), ((0.0, -1.0), "scale=-1 is not above 0")],
    "Laplace": [((0.0, NAN), "scale=nan is not above 0"), ((0.0, 0.0), "scale=0 is not above 0")],
    "Gumbel": [((0.0, -2.0), "scale=-2")],
    "StudentT": [((0.0,), "df=0 is not above 0"), ((2.0, NAN), "loc=nan"), ((2.0, 0.0, -1.0), "scale=-1 is not")],
    "LogNormal": [((NAN, 1.0), "loc=nan is not a number"), ((0.0, -1.0), "scale=-1 is not above 0")],
    "Uniform": [((1.0, 0.5), "high - low=-0.5 is not above 0"), ((NAN, 1.0), "low=nan")],
    "Exponential": [((-1.5,), "rate=-1.5 is not above 0")],
    "Gamma": [((0.0, 1.0), "concentration=0"), ((1.0, -1.0), "rate=-1")],
    "Beta": [((0.0, 1.0), "concentration1=0"), ((1.0, -1.0), "concentration0=-1")],
    "Dirichlet": [(([1.0, -1.0],), "concentration=-1")],
    "Poisson": [((-1.0,), "rate=-1 is not 0 or above")],
    "Bernoulli": [((1.5,), "probs=1.5 is not from 0 to 1"), ((NAN,), "probs=nan"), ((None, NAN), "logits=nan")],
    "Categorical": [
        (([0.5, -0.5],), "probs=-0.5 is not 0 or above"), (([0.0, 0.0],), "the sum of probs=0 is not above 0"),
        ((None, [0.0, NAN]), "logits=nan is not a number"),
    ],
    "OneHotCategorical": [(([0.5, NAN],), "probs=nan")],
    "MultivariateNormal": [(([NAN, 1.0], [[1.0, 0.0], [0.0, 1.0]]), "loc=nan is not a number")],
}  # fmt: skip
#: name -> values that cannot come, and what the error says of them
NO_VALUES = {
    "Normal": [(NAN, "value=nan is not a number")],
    "Laplace": [(NAN, "value=nan")],
    "Gumbel": [(NAN, "value=nan")],
    "StudentT": [(NAN, "value=nan is not a number")],
    "LogNormal": [(-1.0, "value=-1 is not above 0"), (NAN, "value=nan")],
    "Uniform": [(9.0, "high - value="), (-9.0, "value - low="), (NAN, "nan")],
    "Exponential": [(-1.0, "value=-1 is not 0 or above")],
    "Gamma": [(-1.0, "value=-1")],
    "Beta": [(1.5, "value=1.5 is not from 0 to 1")],
    "Dirichlet": [([0.5, 0.2, 0.2], "value is not a row of shares")],
    "Poisson": [(-1.0, "value=-1"), (0.5, r"value is not a whole number from 0 \(off by 0.5\)")],
    "Bernoulli": [(0.5, "value is not 0 or 1"), (2.0, "value=2")],
    "Categorical": [(3, "value=3 is not a whole number from 0 to 2"), (-1, "value=-1")],
    "OneHotCategorical": [([1.0, 1.0, 0.0], "value is not a row of zeros with a single 1")],
    "MultivariateNormal": [([0.0, NAN, 0.0], "value=nan is not a number")],
}


def _refused(name, match, theirs, *ours):
    """Whether PyTorch refuses, and we by name."""
    with pytest.raises(ValueError, match=r"Expected|not defined"):
        theirs()
    for make in ours:
        with pytest.raises(dg.errors.ArgumentError, match=rf"\[{name}\] .*{match}") as found:
            make()
        assert "validate_args=False" in str(found.value)


def _no_parameters(torch, name, mode, rows, match):
    def made(of, wrap, **more):
        named = {"logits": wrap(rows[1])} if rows[0] is None else {}
        return getattr(of, name)(*(() if named else map(wrap, rows)), **named, **more)

    def ours():
        return dg.function(lambda: made(D, dg.tensor).sample(), mode=mode)()

    numbers = not any(isinstance(v, list) for v in rows)
    plain = (lambda: made(D, lambda v: v),) if numbers else ()
    _refused(name, match, lambda: made(torch.distributions, torch.tensor), ours, *plain)
    made(D, dg.tensor, validate_args=False)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", CASES)
def test_parameters_without_a_meaning_are_named(torch, name, mode):
    for rows, match in NO_PARAMETERS[name]:
        _no_parameters(torch, name, mode, rows, match)


def _no_value(torch, name, mode, value, match):
    rows = CASES[name][0]
    look = dg.function(lambda v, *r: getattr(D, name)(*r).log_prob(v), mode=mode)

    def theirs():
        like = "Normal" if name == "Gumbel" else name  # PyTorch's Gumbel looks at a function of the value
        getattr(torch.distributions, like)(*map(torch.tensor, rows)).log_prob(torch.tensor(value))

    _refused(name, match, theirs, lambda: look(dg.tensor(value), *map(dg.tensor, rows)))
    if name != "Categorical":
        getattr(D, name)(*map(dg.tensor, rows), validate_args=False).log_prob(dg.tensor(value))


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", CASES)
def test_values_that_cannot_come_are_named(torch, name, mode):
    for value, match in NO_VALUES[name]:
        _no_value(torch, name, mode, value, match)


def test_the_check_ends_no_segment_and_can_be_caught():
    @dg.function
    def look(v, scale):
        return D.Normal(0.0, scale).log_prob(v)

    look(dg.tensor(1.0), dg.tensor(2.0))
    assert len(look.variants[0].segments()) == 1
    with pytest.raises(dg.errors.ArgumentError, match="scale=-2"):
        look(dg.tensor(1.0), dg.tensor(-2.0))

    @dg.function
    def careful(v, scale):
        try:
            return D.Normal(0.0, scale).log_prob(v)
        except ValueError:
            return v * 0

    assert careful(dg.tensor(1.0), dg.tensor(-2.0)).item() == 0
    assert careful(dg.tensor(1.0), dg.tensor(2.0)).item() < 0


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_check_of_batched_parameters(mode):
    f = dg.function(dg.vmap(lambda s, v: D.Normal(0.0, s).log_prob(v)), mode=mode)
    f(dg.tensor([1.0, 2.0]), dg.tensor([0.0, 1.0]))
    with pytest.raises(dg.errors.ArgumentError, match="scale=-2"):
        f(dg.tensor([1.0, -2.0]), dg.tensor([0.0, 1.0]))


def test_checks_can_be_left_out_everywhere():
    D.Distribution.set_default_validate_args(False)
    try:
        assert D.Uniform(0.0, 1.0).log_prob(dg.tensor(2.0)).item() == -np.inf
        with pytest.raises(dg.errors.ArgumentError, match="scale=-1"):
            D.Normal(0.0, -1.0, validate_args=True)
    finally:
        D.Distribution.set_default_validate_args(True)
