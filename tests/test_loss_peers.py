"""Losses against PyTorch, values and gradients: functions, layers, CTC over a grid of settings."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn import functional as F

torch = pytest.importorskip("torch", reason="PyTorch is not installed: losses are not compared with it")

N, C = 6, 5


def inputs(kind, dtype):
    """Arrays of a kind of argument; the floats among them get gradients."""
    x, y, z = (np.random.randn(N, C).astype(dtype) for _ in range(3))
    signs = np.where(np.random.rand(N, C) < 0.5, -1, 1).astype(dtype)
    shares = np.random.rand(N, C).astype(dtype)
    rows = np.full((N, C), -1)
    for row in rows:
        count = np.random.randint(0, C)
        row[:count] = np.random.permutation(C)[:count]
    return {
        "pair": (x, y), "signs": (x, signs), "shares": (shares, np.random.rand(N, C).astype(dtype)),
        "edges": (np.clip(np.round(shares * 3) / 3, 0, 1).astype(dtype), np.round(shares[::-1]).astype(dtype)),
        "log": (np.log(shares + 0.01), np.random.dirichlet(np.ones(C), N).astype(dtype)),
        "counts": (shares + 0.1, np.random.poisson(2.0, (N, C)).astype(dtype)),
        "variance": (x, y, shares + 0.1), "row_variance": (x, y, shares[:, :1] + 0.1),
        "three": (x, y, z), "ranks": (x[:, 0].copy(), y[:, 0].copy(), signs[:, 0].copy()),
        "classes": (x, np.random.randint(0, C, N)), "class": (x[0], np.asarray(2)), "lists": (x, rows),
        "directions": (x, y, np.where(np.arange(N) % 2, -1, 1)), "bits": (x, np.round(shares)),
    }[kind]  # fmt: skip


WEIGHT = np.linspace(0.5, 2.0, C)
CASES = [
    ("huber_loss", {}, "pair"), ("huber_loss", {"delta": 0.3}, "pair"), ("huber_loss", {"weight": True}, "pair"),
    ("smooth_l1_loss", {}, "pair"), ("smooth_l1_loss", {"beta": 0.3}, "pair"),
    ("smooth_l1_loss", {"beta": 0.0}, "pair"),
    ("kl_div", {}, "log"), ("kl_div", {"log_target": True}, "pair"), ("kl_div", {"reduction": "batchmean"}, "log"),
    ("binary_cross_entropy", {}, "shares"), ("binary_cross_entropy", {"weight": True}, "shares"),
    ("binary_cross_entropy", {}, "edges"), ("poisson_nll_loss", {}, "counts"),
    ("poisson_nll_loss", {"full": True, "log_input": False}, "counts"),
    ("gaussian_nll_loss", {}, "variance"), ("gaussian_nll_loss", {"full": True, "eps": 0.5}, "row_variance"),
    ("hinge_embedding_loss", {}, "signs"), ("hinge_embedding_loss", {"margin": 0.3}, "signs"),
    ("margin_ranking_loss", {}, "ranks"), ("margin_ranking_loss", {"margin": 0.5}, "ranks"),
    ("multi_margin_loss", {}, "classes"), ("multi_margin_loss", {"p": 2, "margin": 0.5, "weight": True}, "classes"),
    ("multi_margin_loss", {}, "class"), ("multilabel_margin_loss", {}, "lists"), ("soft_margin_loss", {}, "signs"),
    ("multilabel_soft_margin_loss", {}, "bits"), ("multilabel_soft_margin_loss", {"weight": True}, "bits"),
    ("cosine_embedding_loss", {}, "directions"), ("cosine_embedding_loss", {"margin": -0.2}, "directions"),
    ("triplet_margin_loss", {}, "three"), ("triplet_margin_loss", {"p": 1.0, "margin": 3.0}, "three"),
    ("triplet_margin_loss", {"p": 3.0, "swap": True}, "three"),
    ("triplet_margin_with_distance_loss", {"swap": True}, "three"), ("cosine_similarity", {}, "pair"),
    ("cosine_similarity", {"dim": 0}, "pair"), ("pairwise_distance", {}, "pair"),
    ("pairwise_distance", {"p": 1.0, "keepdim": True}, "pair"), ("pairwise_distance", {"p": 3.0}, "pair"),
    ("pairwise_distance", {"p": float("inf")}, "pair"),
]  # fmt: skip
NOT_REDUCED = ("cosine_similarity", "pairwise_distance")


def compare(ours, theirs, arrays, close, dtype, free, rough=20.0):
    """Values and gradients of the floats that may have one."""
    rows = []
    for module in (dg, torch):
        row = [module.tensor(a) for a in arrays]
        for k, a in enumerate(row):
            if arrays[k].dtype.kind == "f" and k < free:
                a.requires_grad_()
        rows.append(row)
    a, b = ours(*rows[0]), theirs(*rows[1])
    close(a.detach(), b.detach().numpy(), 5)
    weight = np.asarray(np.random.randn(*a.shape)).astype(dtype)
    (a * dg.tensor(weight)).sum().backward()
    (b * torch.tensor(weight)).sum().backward()
    for x, y in zip(*rows):
        if y.grad is not None:
            close(x.grad, y.grad.numpy(), rough)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # PyTorch's, of kl_div
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{'-'.join(c[1])}-{c[2]}")
def test_loss_and_gradient_agree_with_torch(case, reduction, dtype, close):
    name, settings, kind = case
    if name in NOT_REDUCED:
        if reduction != "none":
            return
    else:
        settings = {"reduction": reduction, **settings}
    arrays = inputs(kind, dtype)

    def call(module, wrap):
        named = {
            k: wrap(WEIGHT.astype(dtype)) if v is True and k == "weight" else v for k, v in settings.items()
        }
        if name == "huber_loss" and "weight" in named:
            named["weight"] = wrap(np.tile(WEIGHT.astype(dtype), (N, 1)))
        return lambda *row: getattr(module, name)(*row, **named)

    # PyTorch keeps the least denominator, 1e-12, in float32.
    rough = 1e4 if kind == "edges" and dtype == "float64" else 20
    free = {"binary_cross_entropy": 1, "soft_margin_loss": 1, "poisson_nll_loss": 1, "kl_div": 2}.get(name, 3)
    compare(call(F, dg.tensor), call(torch.nn.functional, torch.tensor), arrays, close, dtype, free, rough)


LAYERS = [
    ("HuberLoss", {"delta": 0.4}, "pair"), ("SmoothL1Loss", {"beta": 0.4}, "pair"),
    ("KLDivLoss", {"reduction": "batchmean"}, "log"), ("BCELoss", {"weight": True}, "shares"),
    ("PoissonNLLLoss", {"full": True}, "counts"), ("GaussianNLLLoss", {"full": True}, "variance"),
    ("MarginRankingLoss", {"margin": 0.1}, "ranks"), ("CosineEmbeddingLoss", {"margin": 0.1}, "directions"),
    ("HingeEmbeddingLoss", {}, "signs"), ("SoftMarginLoss", {}, "signs"), ("MultiLabelMarginLoss", {}, "lists"),
    ("MultiLabelSoftMarginLoss", {"weight": True}, "bits"), ("MultiMarginLoss", {"p": 2, "weight": True}, "classes"),
    ("TripletMarginLoss", {"swap": True}, "three"), ("TripletMarginWithDistanceLoss", {"margin": 2.0}, "three"),
    ("CosineSimilarity", {"dim": 0}, "pair"), ("PairwiseDistance", {"p": 1.0}, "pair"),
]  # fmt: skip


@pytest.mark.parametrize("case", LAYERS, ids=lambda c: c[0])
def test_layer_agrees_with_torch(case, close):
    name, settings, kind = case
    arrays = inputs(kind, "float32")
    results = []
    for module, space in ((nn, dg), (torch.nn, torch)):
        weight = space.tensor(WEIGHT.astype("float32"))
        layer = getattr(module, name)(
            **{k: weight if v is True and k == "weight" else v for k, v in settings.items()}
        )
        results.append(layer(*(space.tensor(a) for a in arrays)))
        assert repr(layer)
    close(results[0], results[1].numpy(), 5)


# ---------------------------------------------------------------- CTC


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("joined", [False, True])
def test_ctc_agrees_with_torch(dtype, blank, reduction, joined, close):
    times, samples, classes, width = 12, 4, 6, 4
    values = np.random.randn(times, samples, classes).astype(dtype)
    labels = np.array([k for k in range(classes) if k != blank])
    target = labels[np.random.randint(0, 3, (samples, width))]  # few labels: some repeat
    lengths, counts = np.array([12, 9, 12, 10]), np.array([4, 3, 0, 2])
    flat = np.concatenate([row[:n] for row, n in zip(target, counts)])
    given = flat if joined else target
    x, y = dg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    settings = {"blank": blank, "reduction": reduction}
    a = F.ctc_loss(F.log_softmax(x, 2), dg.tensor(given), dg.tensor(lengths), dg.tensor(counts), **settings)
    b = torch.nn.functional.ctc_loss(
        torch.log_softmax(y, 2), torch.tensor(given), torch.tensor(lengths), torch.tensor(counts), **settings
    )
    close(a.detach(), b.detach().numpy(), 5)
    a.sum().backward(), b.sum().backward()
    close(x.grad, y.grad.numpy(), 20)


@pytest.mark.parametrize("zero", [False, True])
def test_ctc_without_an_alignment(zero):
    values = np.random.randn(3, 2, 4).astype("float32")
    target, lengths, counts = np.array([[1, 1, 2], [1, 2, 3]]), [3, 3], [3, 3]
    x, y = dg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    a = nn.CTCLoss(reduction="none", zero_infinity=zero)(
        F.log_softmax(x, 2), dg.tensor(target), lengths, counts
    )
    b = torch.nn.CTCLoss(reduction="none", zero_infinity=zero)(
        torch.log_softmax(y, 2), torch.tensor(target), lengths, counts
    )
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5)
    a[1:].sum().backward(), b[1:].sum().backward()
    np.testing.assert_allclose(x.grad.numpy()[:, 1], y.grad.numpy()[:, 1], rtol=1e-4, atol=1e-6)


def test_ctc_of_one_sample_and_in_a_graph():
    x, target = dg.randn(6, 5), dg.tensor([1, 2, 2])

    def loss(x):
        return F.ctc_loss(F.log_softmax(x, 1), target, 6, 3)

    want = torch.nn.functional.ctc_loss(
        torch.log_softmax(torch.tensor(x.numpy()), 1),
        torch.tensor([1, 2, 2]),
        torch.tensor(6),
        torch.tensor(3),
    )
    assert loss(x).item() == pytest.approx(want.item(), rel=1e-5)
    assert dg.function(loss)(x).item() == loss(x).item()


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(("labels", "lengths", "counts", "said"), [
    ([[1, 2], [3, 4]], [6, 6], [2, 2], "label 4 is no class"),
    ([[1, 2], [3, 10**7]], [6, 6], [2, 2], "label 10000000 is no class"),
    ([[1, 2], [-1, 3]], [6, 6], [2, 2], "label -1 is no class"),
    ([[1, 2], [3, 1]], [7, 6], [2, 2], "lengths has 7"),
    ([[1, 2], [3, 1]], [6, -1], [2, 2], "lengths has -1"),
    ([[1, 2], [3, 1]], [6, 6], [2, 3], "target_lengths has 3"),
    ([[1, 2], [3, 1]], [6, 6], [2, -1], "target_lengths has -1"),
])  # fmt: skip
def test_ctc_refuses_what_lies_outside_of_its_operands(labels, lengths, counts, said, mode):
    logp = dg.log_softmax(dg.ones((6, 2, 4)), axis=-1).requires_grad_()

    @dg.function(mode=mode)
    def step(*given):
        F.ctc_loss(logp, *given).backward()

    step(dg.tensor([[1, 2], [3, 9]]), dg.tensor([6, 6]), dg.tensor([2, 1]))  # what pads may be anything
    with pytest.raises(dg.errors.DuogradError, match=said):
        step(dg.tensor(labels), dg.tensor(lengths), dg.tensor(counts))


def test_ctc_gradient_is_that_of_log_probabilities():
    """Not only behind log_softmax: against a difference, in float64."""
    values, along = np.random.randn(7, 2, 4), np.random.randn(7, 2, 4)
    target = dg.tensor([[1, 1, 3], [2, 3, 0]])

    def loss(v):
        return F.ctc_loss(v, target, [7, 5], [3, 2], reduction="sum")

    x = dg.tensor(values, requires_grad=True)
    loss(x).backward()
    step = 1e-6
    want = (loss(dg.tensor(values + step * along)) - loss(dg.tensor(values - step * along))).item() / (
        2 * step
    )
    assert float((x.grad.numpy() * along).sum()) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: F.ctc_loss(dg.ones((3, 2, 4)), dg.ones((2, 2)), [3, 3], [1, 1]), "no integer tensor"),
        (lambda: F.ctc_loss(dg.ones((3, 2, 4)), dg.tensor([[1], [1]]), [3], [1, 1]), "lengths"),
        (
            lambda: F.ctc_loss(dg.ones((3, 2, 4)), dg.tensor([[1], [1]]), [3, 3], [1, 1], blank=4),
            "blank=4 is no class",
        ),
        (lambda: F.ctc_loss(dg.ones((3, 2, 4)), dg.tensor([1, 2, 3]), [3, 3], [1, 1]), "does not hold"),
        (lambda: F.huber_loss(dg.ones((2,)), dg.ones((2,)), delta=0.0), "delta=0.0 is not above 0"),
        (lambda: nn.HuberLoss("average"), "reduction='average'"),
    ],
)
def test_wrong_arguments_are_refused(call, match):
    with pytest.raises(dg.errors.DuogradError, match=match):
        call()


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("fn", [
    lambda x: F.multi_margin_loss(x, dg.tensor([0, 3]), reduction="none"),
    lambda x: F.multi_margin_loss(x, dg.tensor([0, -1]), reduction="none"),
    lambda x: F.multilabel_margin_loss(x, dg.tensor([[0, 2, -1], [1, 3, -1]]), reduction="none"),
], ids=["above", "below", "one of many"])  # fmt: skip
def test_a_target_that_is_no_class_gives_nan(fn, mode):
    found = dg.function(fn, mode=mode)(dg.ones((2, 3))).numpy()
    assert np.isfinite(found[0])
    assert np.isnan(found[1])
