"""Packed and padded sequences and projected LSTMs against PyTorch's, values and gradients."""

from __future__ import annotations

import duograd as dg
import numpy as np
import pytest
import torch
from duograd import nn
from duograd.nn.utils import rnn

theirs = torch.nn.utils.rnn
RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 3, 2)).astype(np.float32)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [(4, 3, 1), (2, 4, 3)])
def test_packing_and_padding_equal_torch(batch_first, lengths):
    x = X.transpose(1, 0, 2) if batch_first else X
    settings = {"batch_first": batch_first, "enforce_sorted": lengths[0] == 4}
    a = dg.tensor(x, requires_grad=True)
    b = torch.tensor(x, requires_grad=True)
    ours, want = (
        rnn.pack_padded_sequence(a, lengths, **settings),
        theirs.pack_padded_sequence(b, lengths, **settings),
    )
    for y, z in zip(ours, want, strict=True):
        assert (y is None) == (z is None)
        if y is not None:
            np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())
    padded = rnn.pad_packed_sequence(ours, batch_first, 7.0, total_length=5)
    padded_b = theirs.pad_packed_sequence(want, batch_first, 7.0, total_length=5)
    for y, z in zip(padded, padded_b, strict=True):
        np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())
    (padded[0] ** 2).sum().backward()
    (padded_b[0] ** 2).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy())


def test_lists_of_sequences_come_back():
    rows = [dg.tensor(X[:n, 0]) for n in (4, 2, 3)]
    want = theirs.pad_sequence([torch.tensor(X[:n, 0]) for n in (4, 2, 3)], True, -1.0)
    np.testing.assert_array_equal(rnn.pad_sequence(rows, True, -1.0).numpy(), want.numpy())
    for y, z in zip(rnn.unpack_sequence(rnn.pack_sequence(rows, enforce_sorted=False)), rows, strict=True):
        np.testing.assert_array_equal(y.numpy(), z.numpy())


def test_misuse_of_packing():
    x = dg.tensor(X)
    with pytest.raises(ValueError, match=r"\[pack_padded_sequence\] lengths=\[1, 4, 2\] do not descend"):
        rnn.pack_padded_sequence(x, [1, 4, 2])
    with pytest.raises(ValueError, match="do not fit input"):
        rnn.pack_padded_sequence(x, [5, 4, 2])


@pytest.mark.parametrize("proj_size", [0, 2])
def test_an_lstm_over_packed_sequences_equals_torch(proj_size):
    settings = {"num_layers": 2, "bidirectional": True, "proj_size": proj_size}
    ours, want = nn.LSTM(2, 3, **settings), torch.nn.LSTM(2, 3, **settings)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in want.named_parameters()]
    ours.load_state_dict({k: dg.tensor(v.numpy()) for k, v in want.state_dict().items()})
    lengths = (2, 4, 3)
    y, states = ours(rnn.pack_padded_sequence(dg.tensor(X), lengths, enforce_sorted=False))
    z, their_states = want(theirs.pack_padded_sequence(torch.tensor(X), lengths, enforce_sorted=False))
    made, wanted = (y.data, *states), (z.data, *their_states)
    for a, b in zip(made, wanted, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-5)
    sum((a * a).sum() for a in made).backward()
    sum((b * b).sum() for b in wanted).backward()
    for a, b in zip(ours.parameters(), want.parameters(), strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-4)


def test_padding_says_what_it_cannot_pad():
    for given, match in (
        ([], "no sequences"),
        ([dg.ones((2, 3)), dg.ones((2, 4))], "beside"),
        ([dg.tensor(1.0)], "beside"),
    ):
        with pytest.raises(dg.errors.DuogradError, match=match):
            rnn.pad_sequence(given)
