"""Recurrent layers and cells against PyTorch: outputs, states and all gradients; rows of different lengths."""

import duograd as dg
import numpy as np
import pytest
import torch
from duograd import nn

KINDS = {"RNN": [{}, {"nonlinearity": "relu"}], "LSTM": [{}], "GRU": [{}]}
CASES = [
    (kind, {**options, **more}, lengths)
    for kind, rows in KINDS.items()
    for options in rows
    for more in (
        {},
        {"bias": False},
        {"bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"num_layers": 3},
    )
    for lengths in (None, (5, 3, 1, 4, 2), (2, 2, 5, 1, 1))
]
STEPS, ROWS, INPUT, HIDDEN = 5, 5, 3, 4


def pair(kind, options, dtype):
    ours = getattr(nn, kind)(INPUT, HIDDEN, **options).to(dtype)
    theirs = getattr(torch.nn, kind)(INPUT, HIDDEN, **options).to(getattr(torch, dtype))
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    with dg.no_grad():
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.copy_(dg.tensor(q.detach().numpy()))
    return ours, theirs


def agree(got, want, dtype):
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def random(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def run_torch(layer, x, state, lengths, batch_first):
    if lengths is None:
        return layer(x, state)
    lengths = torch.tensor(lengths)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    y, state = layer(packed, state)
    return torch.nn.utils.rnn.pad_packed_sequence(y, batch_first, total_length=STEPS)[0], state


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}-{c[2]}")
def test_layer_equals_torch(case, dtype):
    kind, options, lengths = case
    ours, theirs = pair(kind, options, dtype)
    first = options.get("batch_first", False)
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    x = random(*((ROWS, STEPS) if first else (STEPS, ROWS)), INPUT, dtype=dtype)
    states = [random(count, ROWS, HIDDEN, seed=k + 1, dtype=dtype) for k in range(2 if kind == "LSTM" else 1)]
    a = [dg.tensor(v, requires_grad=True) for v in (x, *states)]
    b = [torch.tensor(v, requires_grad=True) for v in (x, *states)]
    got = ours(
        a[0], tuple(a[1:]) if kind == "LSTM" else a[1], None if lengths is None else dg.tensor(lengths)
    )
    want = run_torch(theirs, b[0], tuple(b[1:]) if kind == "LSTM" else b[1], lengths, first)
    flat = lambda made: [made[0], *(made[1] if kind == "LSTM" else [made[1]])]
    totals = [0.0, 0.0]
    for k, (p, q) in enumerate(zip(flat(got), flat(want), strict=True)):
        agree(p.detach().numpy(), q.detach().numpy(), dtype)
        weight = random(*p.shape, seed=9 + k, dtype=dtype)
        totals = [totals[0] + (p * dg.tensor(weight)).sum(), totals[1] + (q * torch.tensor(weight)).sum()]
    for total in totals:
        total.backward()
    for p, q in zip([*a, *ours.parameters()], [*b, *theirs.parameters()], strict=True):
        agree(p.grad.numpy(), q.grad.numpy(), dtype)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("with_state", [False, True])
def test_cell_equals_torch(kind, with_state):
    ours, theirs = pair(kind, {}, "float32")
    x = random(ROWS, INPUT)
    h = [random(ROWS, HIDDEN, seed=k) for k in (1, 2)]
    state = lambda make: (
        None if not with_state else (make(h[0]), make(h[1])) if kind == "LSTMCell" else make(h[0])
    )
    got, want = ours(dg.tensor(x), state(dg.tensor)), theirs(torch.tensor(x), state(torch.tensor))
    for p, q in zip(got if kind == "LSTMCell" else [got], want if kind == "LSTMCell" else [want]):
        agree(p.detach().numpy(), q.detach().numpy(), "float32")


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("lengths", [None, (40, 7, 23)])
def test_larger_layer_equals_torch_and_any_number_of_threads(kind, lengths):
    ours = getattr(nn, kind)(20, 70)
    theirs = getattr(torch.nn, kind)(20, 70)
    with dg.no_grad():
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.copy_(dg.tensor(q.detach().numpy()))
    rows = 3 if lengths else 37
    x = random(40, rows, 20)
    want = run_torch_plain(theirs, x, lengths)
    from duograd.backends.cpu import pool

    threads, results = pool.get_num_threads(), []
    rows_lengths = None if lengths is None else dg.tensor(lengths)

    def step(x):
        y, _ = ours(x, None, rows_lengths)
        ours.zero_grad()
        y.sum().backward()
        return y.detach(), x.grad

    for n in (1, 2, 3):
        pool.set_num_threads(n)
        try:
            # A new function has a new program, made for this number of threads.
            made = dg.function(step)(dg.tensor(x, requires_grad=True))
            results.append([v.numpy().copy() for v in (*made, *(p.grad for p in ours.parameters()))])
        finally:
            pool.set_num_threads(threads)
    agree(results[0][0], want, "float32")
    for other in results[1:]:
        for p, q in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_rows_numbers_do_not_depend_on_the_batch(kind):
    """Blocks of any height, of one panel or two."""
    layer, x = getattr(nn, kind)(20, 70), random(4, 37, 20)
    whole = layer(dg.tensor(x))[0].detach().numpy()
    for rows in (*range(2, 15), 36):
        np.testing.assert_array_equal(layer(dg.tensor(x[:, :rows]))[0].detach().numpy(), whole[:, :rows])
    single = layer(dg.tensor(x[:, :1]))[0].detach().numpy()  # whose input's product is one with a vector
    agree(single, whole[:, :1], "float32")


def run_torch_plain(layer, x, lengths):
    x = torch.tensor(x)
    if lengths is None:
        return layer(x)[0].detach().numpy()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    return torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0])[0].detach().numpy()


@pytest.mark.parametrize("kind", list(KINDS))
def test_training_step_is_the_same_in_a_graph(kind):
    def run(graph):
        dg.manual_seed(0)
        layer = getattr(nn, kind)(INPUT, HIDDEN, num_layers=2, dropout=0.3)
        optimizer = dg.optim.Adam(layer.parameters())

        def step(x, lengths):
            optimizer.zero_grad()
            loss = (layer(x, None, lengths)[0] ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        call = dg.function(step) if graph else step
        lengths = dg.tensor([5, 2, 3])
        return [call(dg.tensor(random(STEPS, 3, INPUT, seed=k)), lengths).item() for k in range(3)]

    assert run(False) == run(True)


def test_a_sequence_without_a_batch():
    ours, theirs = pair("LSTM", {"bidirectional": True}, "float32")
    x = random(STEPS, INPUT)
    (y, (h, c)), (v, (p, q)) = ours(dg.tensor(x)), theirs(torch.tensor(x))
    for a, b in ((y, v), (h, p), (c, q)):
        agree(a.detach().numpy(), b.detach().numpy(), "float32")


def test_wrong_state_is_refused():
    with pytest.raises(dg.errors.ShapeError, match="layers"):
        nn.GRU(3, 4)(dg.ones((5, 2, 3)), dg.ones((2, 2, 4)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_length_beyond_the_last_step_is_that_of_all_steps(kind):
    layer, x = pair(kind, {"bidirectional": True}, "float32")[0], dg.tensor(random(STEPS, 2, INPUT))
    found = []
    for lengths in ((STEPS, STEPS), (STEPS, 10**6)):
        layer.zero_grad()
        y, _ = layer(x, lengths=dg.tensor(lengths))
        (y * y).sum().backward()
        found.append([y.detach().numpy(), *(p.grad.numpy() for p in layer.parameters())])
    for got, want in zip(*found):
        np.testing.assert_array_equal(got, want)


def test_padding_keeps_the_dtype_of_packed_integers():
    packed = dg.nn.utils.rnn.pack_sequence([dg.tensor([1, 2, 3]), dg.tensor([4])])
    padded, _ = dg.nn.utils.rnn.pad_packed_sequence(packed)
    assert padded.dtype is dg.int64
    assert padded.numpy().tolist() == [[1, 4], [2, 0], [3, 0]]
