"""Functions that read another value of a tensor at every call: they are not traced for ever, and raise nothing."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn

F = nn.functional


def training(kind, mode, calls):
    """A training step that hands its loss out as a number."""
    dg.manual_seed(0)
    model, seen = nn.Linear(4, 3), []
    optimizer = dg.optim.Adam(model.parameters(), 0.05)
    x, y = dg.randn(20, 4), dg.randint(0, 3, (20,))

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if kind == "kept":
            seen.append(loss.item())
            return None
        if kind == "written":
            return f"{loss.item():.6f}"
        return loss.item() if kind == "returned" else loss.detach()[None][loss.detach()[None] > 0].sum()

    fn = dg.function(step, mode=mode)
    for k in range(calls):
        rows = 20 if k % 2 else 12
        seen.append(fn(x[:rows], y[:rows]))
    seen = [s.numpy() if isinstance(s, dg.Tensor) else s for s in seen]
    return seen, model.weight.detach().numpy(), fn


@pytest.mark.parametrize("kind", ["returned", "kept"])
def test_a_loss_that_is_handed_out_at_every_step_is_traced_twice(kind):
    want, weight, _ = training(kind, "eager", 80)
    got, other, fn = training(kind, "graph", 80)
    assert got == want
    np.testing.assert_array_equal(other, weight)
    assert "Python runs" not in fn.explain()
    assert [v.paths for v in fn.variants] == [2, 2]  # of each batch size


def test_a_loss_that_is_written_at_every_step_leaves_the_step_to_python():
    want, weight, _ = training("written", "eager", 80)
    got, other, fn = training("written", "graph", 80)
    assert got == want
    np.testing.assert_array_equal(other, weight)
    assert "is another one at each call" in fn.explain()
    assert not fn.variants  # their graphs are of no use any more


def test_sizes_that_are_others_at_every_call_are_any():
    fn = dg.function(lambda x, at: (x[x > at] * 2).sum())
    x = dg.linspace(0, 1, 101)
    for k in range(90):
        at = dg.tensor(k / 100)
        np.testing.assert_array_equal(fn(x, at).numpy(), fn.eager(x, at).numpy())
    assert "Python runs" not in fn.explain()
    assert fn.variants[0].paths <= 6


W = dg.linspace(-1, 1, 35).reshape(5, 7).requires_grad_()


def _learned(x, m, other):
    W.grad = None
    loss = ((x[m] @ W).tanh() ** 2).sum() + (x[other] @ W).sum()
    loss.backward()
    return loss, W.grad, (x[m] @ W).mean(0)


def _assigned(x, m, other):
    x = x * 1
    x[m] = x[m] * 2
    x[other] = 0
    return (x,)


def _kept(x, m, other):
    rows = x[m]
    kept = rows[rows[:, 0] > 0] if len(rows) > 3 else rows
    return rows, rows.shape[0], len(rows) * kept.sum()


#: what is done with rows that masks choose; how many paths at most
CHOSEN = {
    "two masks": (
        lambda x, m, other: (x[m].sum(0), (x * 2)[other].sum(), dg.cat([x[m], x[other]]).mean(0)),
        9,
    ),
    "a masked loss": (_learned, 9),
    "what is set": (_assigned, 9),
    "rows and how many": (lambda x, m, other: (x[m], len(x[m]), x[m].shape[0] * x[m]), 6),
    "a mask of what a mask chose": (_kept, 40),
    "places": (lambda x, m, other: (dg.nonzero(m)[0] * 2, x[dg.nonzero(m)[0]].softmax(1)), 6),
    "attention": (lambda x, m, other: ((x[m] @ x[m].T).softmax(-1) @ x[m],), 6),
    "dropout": (lambda x, m, other: (dg.dropout(x[m], 0.5).sum(0), dg.rand(2)), 8),
    "a branch on how many": (lambda x, m, other: (x[m] * 2 if len(x[m]) > 20 else x[m],), 8),
    "a branch on a value": (lambda x, m, other: (x[m] * 2 if x[m].sum() > 0 else x[m],), 9),
    "a slice of so many": (lambda x, m, other: (x[: int(m.sum())].sum(0), int(m.sum())), 6),
    "a loop over them": (lambda x, m, other: dg.scan(lambda c, r: (c + r, c * 2), dg.zeros(5), x[m]), 6),
    "a gather among them": (lambda x, m, other: (dg.cat([x[m], x])[dg.nonzero(other)[0]].sum(0),), 9),
    "the last of them": (
        lambda x, m, other: (x[m][-1] if len(x[m]) else x[0], x[m][len(x[m]) // 2 :].sum(0)),
        8,
    ),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_rows_that_a_mask_chooses_are_any_number(name):
    """Each number of them was a path, and after 24 the function ran in Python."""
    body, most = CHOSEN[name]
    runs = []
    for mode in ("eager", "graph"):
        rng, fn, rows = np.random.default_rng(0), dg.function(body, mode=mode), []
        dg.manual_seed(0)
        for k in range(30):
            x = dg.tensor(rng.normal(size=(60, 5)).astype("float32"))
            m, other = (dg.tensor(rng.random(60) < rng.random() * (k != 7)) for _ in range(2))
            found = fn(x, m, other)
            rows.append([y.detach().numpy().tobytes() if isinstance(y, dg.Tensor) else y for y in found])
        runs.append(rows)
    assert runs[0] == runs[1]
    assert "Python runs" not in fn.explain()
    assert fn.variants[0].paths <= most, fn.variants[0].paths


def test_an_index_among_rows_that_a_mask_chose_is_refused_by_their_number():
    fn = dg.function(lambda x, m, i: x[m][i])
    x = dg.randn(20, 3)
    for n in (4, 6, 8, 9, 11, 12):
        m = dg.arange(20) < n
        assert fn(x, m, dg.tensor([n - 1])).tolist() == x[n - 1 : n].tolist()
        with pytest.raises(
            dg.errors.IndexingError, match=rf"index {n} is outside axis 0 of x: float32.{n}, 3"
        ):
            fn(x, m, dg.tensor([n]))


@pytest.mark.parametrize(
    "read",
    [
        lambda y: y.numpy(),
        lambda y: y.tolist(),
        lambda y: (y > y.mean()).numpy(),
        lambda y: y.argsort().tolist(),
    ],
)
def test_an_array_that_is_read_is_traced_twice(read):
    """It was at 25 calls."""
    fn = dg.function(lambda x: read(x * 2))
    dg.manual_seed(0)
    for _ in range(6):
        x = dg.randn(20)
        np.testing.assert_array_equal(fn(x), fn.eager(x))
    assert "is another one at each call (2 were traced)" in fn.explain()


def test_an_array_that_changes_now_and_then_stays_in_the_graph():
    w = [dg.ones(20)]
    fn = dg.function(lambda x: x * float(np.median((w[0] * 2).numpy())))
    for k in range(40):
        if k % 4 == 0:
            w[0] = dg.full((20,), k)
        assert fn(dg.ones(2)).tolist() == [2.0 * (k // 4 * 4)] * 2
    assert "Python runs" not in fn.explain()


def test_a_value_of_few_outcomes_stays_in_the_graph():
    fn = dg.function(lambda x: x * len(range(int(x.sum()))))
    for k in range(200):
        assert fn(dg.full((2,), k % 20)).numpy()[0] == k % 20 * 2 * (k % 20)
    assert "Python runs" not in fn.explain()
    assert fn.variants[0].paths == 20


def test_more_outcomes_than_are_traced_leave_the_function_to_python():
    fn = dg.function(lambda x: x * len(range(int(x.sum()))))
    for k in range(100):
        for n in (k, k, 0):  # known values in between
            assert fn(dg.full((2,), n)).numpy()[0] == n * 2 * n
    assert "is another one at each call (64 were traced)" in fn.explain()
