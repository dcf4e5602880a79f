"""Transforms, distributions of what they make, and mixtures, against PyTorch in both modes."""

import duograd as dg
import numpy as np
import pytest
from duograd import distributions as D

A, B = np.array([0.5, 2.0, 1.3], "float32"), np.array([1.5, 0.7, 3.0], "float32")
SHARES = np.array([0.2, 0.3, 0.5], "float32")

#: transforms, made of a library's transforms and of what makes its tensors
TRANSFORMS = {
    "exp": lambda T, w: T.ExpTransform(),
    "sigmoid": lambda T, w: T.SigmoidTransform(),
    "tanh": lambda T, w: T.TanhTransform(),
    "softplus": lambda T, w: T.SoftplusTransform(),
    "stick": lambda T, w: T.StickBreakingTransform(),
    "power": lambda T, w: T.PowerTransform(w(np.float32(2.5))),
    "affine": lambda T, w: T.AffineTransform(w(A), w(-B)),
    "affine of vectors": lambda T, w: T.AffineTransform(1.0, -2.0, event_dim=1),
    "reshape": lambda T, w: T.ReshapeTransform((3,), (1, 3)),
    "independent": lambda T, w: T.IndependentTransform(T.ExpTransform(), 1),
    "composed": lambda T, w: T.ComposeTransform(
        [T.AffineTransform(0.5, 0.25), T.TanhTransform(), T.StickBreakingTransform()]
    ),
    "identity": lambda T, w: T.identity_transform,
}
#: distributions, made in the same way, and values
MADE = {
    "tanh of normal": (
        lambda D, w: D.TransformedDistribution(
            D.Normal(w(A), w(B)), [D.transforms.AffineTransform(1.0, -2.0), D.transforms.TanhTransform()]
        ), A / 3,
    ),
    "one normal, three places": (
        lambda D, w: D.TransformedDistribution(
            D.Normal(w(np.float32(0)), w(np.float32(1))), D.transforms.AffineTransform(w(A), w(B))
        ), A,
    ),
    "shares of normals": (
        lambda D, w: D.TransformedDistribution(D.Normal(w(A), w(B)), D.transforms.StickBreakingTransform()),
        np.array([0.1, 0.2, 0.3, 0.4], "float32"),
    ),
    "mixture": (lambda D, w: D.MixtureSameFamily(D.Categorical(w(SHARES)), D.Normal(w(A), w(B))), A),
    "mixture of vectors": (
        lambda D, w: D.MixtureSameFamily(
            D.Categorical(w(np.stack([SHARES, SHARES[::-1]]))),
            D.Independent(D.Normal(w(np.arange(24, dtype="float32").reshape(2, 3, 4)), 1.0), 1),
        ), np.ones((5, 2, 4), "float32"),
    ),
}  # fmt: skip


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: densities are not compared with it")


def _close(a, b):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 2e-5, 2e-6)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_agree_with_torch(torch, name, mode):
    def look(T, wrap, x):
        t = TRANSFORMS[name](T, wrap)
        y = t(x)
        return y, t.inv(y), t.log_abs_det_jacobian(x, y)

    ours = dg.function(lambda x: look(D.transforms, dg.tensor, x), mode=mode)(dg.tensor(A))
    theirs = look(torch.distributions.transforms, torch.tensor, torch.tensor(A))
    for a, b in zip(ours, theirs, strict=True):
        _close(a, b if isinstance(b, torch.Tensor) else torch.tensor(np.full(3, b, "float32")))


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", MADE)
def test_densities_and_their_gradients_agree_with_torch(torch, name, mode):
    make, value = MADE[name]

    def look(D, wrap, v):
        leaves = []

        def leaf(x):
            leaves.append(wrap(x, requires_grad=True))
            return leaves[-1]

        d = make(D, leaf)
        p = d.log_prob(v)
        p.sum().backward()
        return d, (p, *(x.grad for x in leaves))

    made = []

    def ours(v):
        d, row = look(D, lambda x, **k: dg.tensor(np.ascontiguousarray(x), **k), v)
        made.append(d.batch_shape + d.event_shape)
        return row

    row = dg.function(ours, mode=mode)(dg.tensor(value))
    d, wanted = look(
        torch.distributions, lambda x, **k: torch.tensor(np.ascontiguousarray(x), **k), torch.tensor(value)
    )
    for a, b in zip(row, wanted, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 2e-4, 2e-5)
    assert made[0] == tuple(d.batch_shape + d.event_shape)


@pytest.mark.parametrize("name", MADE)
def test_draws_follow_the_density(torch, name):
    make, _ = MADE[name]
    ours = make(D, lambda x: dg.tensor(np.ascontiguousarray(x)))
    theirs = make(torch.distributions, lambda x: torch.tensor(np.ascontiguousarray(x)))
    x = dg.function(lambda: ours.sample((20000,)))().numpy().astype(np.float64)
    torch.manual_seed(3)
    y = theirs.sample((20000,)).numpy().astype(np.float64)
    assert x.shape == y.shape
    np.testing.assert_allclose(x.mean(0), y.mean(0), atol=0.06 * y.std())
    np.testing.assert_allclose(x.std(0), y.std(0), rtol=0.1)
    if "mixture" in name:
        _close(ours.mean, theirs.mean)
        _close(ours.variance, theirs.variance)


def test_probabilities_up_to_a_value_agree_with_torch(torch):
    for make, value in (MADE["tanh of normal"], MADE["one normal, three places"], MADE["mixture"]):
        _close(
            make(D, dg.tensor).cdf(dg.tensor(value)),
            make(torch.distributions, torch.tensor).cdf(torch.tensor(value)),
        )


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_kept_pair_gives_the_density_of_what_was_drawn(mode):
    kept = D.transforms.TanhTransform(cache_size=1)

    @dg.function(mode=mode)
    def draw(loc):
        d = D.TransformedDistribution(D.Normal(loc, 1.0), kept)
        x = d.rsample()
        p = d.log_prob(x)
        p.sum().backward()
        return x, p

    for _ in range(3):  # where tanh is 1 the inverse alone would be infinite
        loc = dg.tensor(40 * A, requires_grad=True)
        x, p = draw(loc)
        assert (x.detach().numpy() == 1).any()
        assert np.isfinite(p.detach().numpy()).all()
        np.testing.assert_allclose(loc.grad.numpy(), 2 * np.tanh(20 * A), 0.5)


def test_divergences_of_one_transform_are_those_of_the_bases():
    a, b = D.Normal(dg.tensor(A), dg.tensor(B)), D.Normal(dg.tensor(B), dg.tensor(A))
    made = [D.TransformedDistribution(d, [D.transforms.AffineTransform(1.0, 3.0)]) for d in (a, b)]
    _close(D.kl_divergence(*made), D.kl_divergence(a, b))
    with pytest.raises(dg.errors.ArgumentError, match="are not the same"):
        D.kl_divergence(made[0], D.TransformedDistribution(b, D.transforms.ExpTransform()))


def _of_normal(name):
    return D.TransformedDistribution(D.Normal(0.0, 1.0), getattr(D.transforms, name)())


@pytest.mark.parametrize(("call", "match"), [
    (lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), ["exp"]), "give transforms as a Transform or a row"),
    (lambda: _of_normal("StickBreakingTransform"), "have not the 1 axes"),
    (lambda: _of_normal("AbsTransform").log_prob(dg.ones(1)), "AbsTransform. has no slope"),
    (lambda: _of_normal("ExpTransform").log_prob(dg.tensor(-1.0)), "value=-1 is not above 0"),
    (lambda: D.transforms.ReshapeTransform((2, 3), (5,)), "have not as many elements"),
    (lambda: D.MixtureSameFamily(D.Categorical(dg.ones(2)), D.Normal(dg.ones(3), 1.0)), "over 2"),
    (lambda: D.MixtureSameFamily(D.Normal(0.0, 1.0), D.Normal(dg.ones(3), 1.0)), "pass a Categorical|is a Normal"),
    (lambda: D.MixtureSameFamily(D.Categorical(dg.ones(3)), D.Normal(dg.ones(3), 1.0)).entropy(), "has no entropy"),
    (lambda: D.StudentT(3.0).cdf(dg.tensor(1.0)), "has no cdf"),
    (lambda: D.transforms.ComposeTransform(3), r"\[ComposeTransform\] parts=3 is an integer"),
    (lambda: D.transforms.IndependentTransform("a", 1), r"\[IndependentTransform\] base_transform='a' is a text"),
    (lambda: D.transforms.ExpTransform(cache_size=np.ones(2)), "cache_size=array"),
    (lambda: D.transforms.AffineTransform(0.0, 1.0)("a"), r"\[transform\] x='a' is a text"),
    (lambda: D.transforms.AffineTransform(0.0, 1.0).inv({}), r"\[inv\] y={} is a dict"),
    (lambda: D.Categorical(dg.ones(3)).log_prob(1), r"\[log_prob\] value=1 is an integer"),
    (lambda: D.Normal(0.0, 1.0).sample(2.5), r"\[sample\] sample_shape=2.5 is a float"),
])  # fmt: skip
def test_misuse_is_named(call, match):
    with pytest.raises(dg.errors.DuogradError, match=match) as caught:
        call()
    assert "test_transformed.py:" in str(caught.value)


def test_what_a_transform_of_the_users_own_raises_is_his():
    class Mine(D.transforms.Transform):
        def _call(self, x):
            return x.nothing

    with pytest.raises(AttributeError, match="nothing"):
        Mine()(dg.ones(2))
