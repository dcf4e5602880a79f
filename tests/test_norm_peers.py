"""Normalisations against PyTorch: values, gradients and running statistics, in both modes."""

import duograd as dg
import numpy as np
import pytest
import torch
from duograd import nn

SHAPES = {1: [(5, 6), (3, 6, 4)], 2: [(3, 6, 5, 2)], 3: [(2, 6, 3, 2, 2)]}
BATCH = [
    (f"BatchNorm{d}d", (6,), options, shape)
    for d, shapes in SHAPES.items()
    for shape in shapes
    for options in ({}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}, {"eps": 0.1})
]
INSTANCE = [
    (f"InstanceNorm{d}d", (6,), options, shape)
    for d, shapes in {1: [(2, 6, 5), (6, 5)], 2: [(2, 6, 3, 4), (6, 3, 4)], 3: [(2, 6, 2, 3, 2)]}.items()
    for shape in shapes
    for options in ({}, {"affine": True}, {"affine": True, "track_running_stats": True})
]
OTHERS = [
    ("GroupNorm", (2, 6), {}, (3, 6, 4)),
    ("GroupNorm", (6, 6), {"affine": False}, (3, 6, 4, 2)),
    ("GroupNorm", (1, 6), {"eps": 0.1}, (3, 6)),
    ("LayerNorm", (6,), {}, (3, 6)),
    ("LayerNorm", ((4, 6),), {"bias": False}, (3, 4, 6)),
    ("LayerNorm", (6,), {"elementwise_affine": False}, (2, 3, 6)),
    ("RMSNorm", (6,), {}, (3, 6)),
    ("RMSNorm", ((4, 6),), {"eps": 0.1}, (3, 4, 6)),
    ("RMSNorm", (6,), {"elementwise_affine": False}, (2, 3, 6)),
    ("LocalResponseNorm", (3,), {}, (2, 6, 4)),
    ("LocalResponseNorm", (2,), {"alpha": 0.5, "beta": 0.5, "k": 2.0}, (2, 6, 4, 3)),
    ("LocalResponseNorm", (5,), {"alpha": 1.0}, (2, 3, 4)),
]


def pair(name, args, options, dtype):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    ours, theirs = ours.to(dtype), theirs.to(getattr(torch, dtype))
    rng = np.random.default_rng(0)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with dg.no_grad(), torch.no_grad():
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            value = rng.standard_normal(p.shape).astype(dtype)
            p.copy_(dg.tensor(value))
            q.copy_(torch.tensor(value))
    return ours, theirs


def agree(got, want, dtype, scale=1.0):
    tolerance = scale * (2e-5 if dtype == "float32" else 1e-12)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", BATCH + INSTANCE + OTHERS, ids=lambda c: f"{c[0]}-{c[2]}-{c[3]}")
def test_norm_equals_torch(case, dtype):
    name, args, options, shape = case
    ours, theirs = pair(name, args, options, dtype)
    rng = np.random.default_rng(1)
    for step in range(3):
        if step == 2:
            ours.eval()
            theirs.eval()
        x, g = (rng.standard_normal(shape).astype(dtype) * 2 + 1 for _ in range(2))
        a, b = dg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        got, want = ours(a), theirs(b)
        agree(got.detach().numpy(), want.detach().numpy(), dtype)
        ours.zero_grad()
        theirs.zero_grad()
        got.backward(dg.tensor(g))
        want.backward(torch.tensor(g))
        agree(a.grad.numpy(), b.grad.numpy(), dtype, 5)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            agree(p.grad.numpy(), q.grad.numpy(), dtype, 20)
        for p, q in zip(ours.buffers(), theirs.buffers(), strict=True):
            agree(p.numpy(), q.numpy(), dtype)


@pytest.mark.parametrize("p", [1, 2, 3.0, np.inf])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_normalize_equals_torch(p, dim):
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    x[0, 0] = 0
    x[:, 1] = 0
    a, b = dg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got = nn.functional.normalize(a, p=p, dim=dim)
    want = torch.nn.functional.normalize(b, p=p, dim=dim)
    agree(got.detach().numpy(), want.detach().numpy(), "float32")
    g = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    got.backward(dg.tensor(g))
    assert np.isfinite(a.grad.numpy()).all()
    nonzero = x != 0
    if p not in (1, np.inf):
        want.backward(torch.tensor(g))
        agree(a.grad.numpy()[nonzero], b.grad.numpy()[nonzero], "float32", 5)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_training_with_batch_norm_is_one_graph(momentum):
    def run(graph):
        dg.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=momentum), nn.ReLU(), nn.Linear(6, 2)
        )
        optimizer = dg.optim.SGD(model.parameters(), lr=0.1)

        def step(x, y):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        call = dg.function(step) if graph else step
        rng = np.random.default_rng(0)
        data = [
            [dg.tensor(rng.standard_normal(s).astype(np.float32)) for s in ((8, 4), (8, 2))] for _ in range(4)
        ]
        losses = [call(x, y).item() for x, y in data]
        return losses, {k: v.numpy() for k, v in model.state_dict().items()}

    (eager, state), (graph, traced) = run(False), run(True)
    assert eager == graph
    for name, value in state.items():
        np.testing.assert_array_equal(value, traced[name])


def test_one_value_by_channel_is_refused():
    with pytest.raises(dg.errors.ArgumentError, match="more than one value"):
        nn.BatchNorm1d(3)(dg.ones((1, 3)))
