"""Averages of weights: as PyTorch's, the same bits in both modes, part of a step's graph."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn

S = dg.optim.swa_utils


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: results are not compared with it")


def built(lib):
    n = lib.nn
    return n.Sequential(n.Linear(4, 6), n.BatchNorm1d(6), n.Tanh(), n.Linear(6, 2))


def pair(torch):
    theirs, ours = built(torch), built(dg)
    ours.load_state_dict({k: dg.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return theirs, ours


KINDS = {
    "plain": lambda s: {},
    "plain lists": lambda s: {"multi_avg_fn": s.get_swa_multi_avg_fn()},
    "exponential": lambda s: {"avg_fn": s.get_ema_avg_fn(0.8)},
    "exponential lists": lambda s: {"multi_avg_fn": s.get_ema_multi_avg_fn(0.8)},
    "own": lambda s: {"avg_fn": lambda a, p, n: a + (p - a) / (2 + n)},
    "own lists": lambda s: {
        "multi_avg_fn": lambda a, p, n: [x.mul_(0.5).add_(y * 0.5) for x, y in zip(a, p)]
    },
}

#: torch's own function for lists does not take batch norm's counter, ours does; the test's own does not either
NO_INTEGERS = ("plain lists", "own lists")


@pytest.mark.parametrize(
    ("kind", "use_buffers"), [(k, b) for k in KINDS for b in (False, True) if not (b and k in NO_INTEGERS)]
)
def test_averages_are_those_of_torch(kind, use_buffers, torch):
    theirs, ours = pair(torch)
    peer = torch.optim.swa_utils
    a = peer.AveragedModel(theirs, use_buffers=use_buffers, **KINDS[kind](peer))
    b = S.AveragedModel(ours, use_buffers=use_buffers, **KINDS[kind](S))
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = rng.normal(size=(5, 4)).astype("float32")
        theirs(torch.tensor(x)), ours(dg.tensor(x))
        for p, q in zip(theirs.parameters(), ours.parameters()):
            step = rng.normal(size=p.shape).astype("float32")
            p.data.add_(torch.tensor(step))
            q.data.add_(dg.tensor(step))
        a.update_parameters(theirs)
        b.update_parameters(ours)
    want, got = a.state_dict(), b.state_dict()
    assert set(want) == set(got)
    for k in want:
        np.testing.assert_allclose(got[k].numpy(), want[k].numpy(), rtol=2e-6, atol=1e-6, err_msg=k)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_with_an_average_is_one_graph_with_the_bits_of_eager_mode(kind):
    def run(mode):
        dg.manual_seed(0)
        model = built(dg)
        average = S.AveragedModel(model, **KINDS[kind](S))
        optimizer = dg.optim.Adam(model.parameters(), 0.05)
        x, y = dg.randn(20, 4), dg.randn(20, 2)

        @dg.function(mode=mode)
        def step(x, y):
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update_parameters(model)
            return loss

        losses = [step(x[s], y[s]) for _ in range(3) for s in (slice(0, 8), slice(8, 16), slice(16, 20))]
        found = [t.numpy() for t in (*average.state_dict().values(), *model.state_dict().values())]
        return [*found, *(t.detach().numpy() for t in losses)], step

    want, _ = run("eager")
    got, step = run("graph")
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [v.paths for v in step.variants] == [1, 1]  # one for each batch size


def test_the_first_update_copies_and_a_saved_average_goes_on():
    model = built(dg)
    average = S.AveragedModel(model, multi_avg_fn=S.get_ema_multi_avg_fn(0.5))
    with dg.no_grad():
        model[0].weight.fill_(2.0)
        average.update_parameters(model)
        assert average.module[0].weight.tolist() == model[0].weight.tolist()
        again = S.AveragedModel(built(dg), multi_avg_fn=S.get_ema_multi_avg_fn(0.5))
        again.load_state_dict(average.state_dict())
        model[0].weight.fill_(4.0)
        again.update_parameters(model)
    assert again.module[0].weight[0, 0].item() == 3.0
    assert again.n_averaged.item() == 2
    x = dg.ones((3, 4))
    np.testing.assert_array_equal(again.eval()(x).detach().numpy(), again.module(x).detach().numpy())


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 1, 4])
def test_rates_are_those_of_torch(strategy, epochs, torch):
    def rates(lib, swa):
        params = [lib.nn.Linear(2, 2).weight, lib.nn.Linear(2, 2).weight]
        optimizer = lib.optim.SGD(
            [{"params": [params[0]], "lr": 0.4}, {"params": [params[1]], "lr": 0.1}], lr=1.0
        )
        before = lib.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        made, found = None, []
        for k in range(9):
            optimizer.step()
            if k < 3:
                before.step()
            else:
                made = made or swa.SWALR(optimizer, [0.05, 0.2], epochs, strategy)
                made.step()
            found.append([g["lr"] for g in optimizer.param_groups])
        return found

    np.testing.assert_allclose(rates(dg, S), rates(torch, torch.optim.swa_utils), rtol=1e-12)


def test_statistics_of_batches_are_those_of_torch(torch):
    theirs, ours = pair(torch)
    rows = np.random.default_rng(0).normal(size=(22, 4)).astype("float32")
    torch.optim.swa_utils.update_bn([(torch.tensor(rows[k : k + 8]),) for k in (0, 8, 16)], theirs)
    S.update_bn(dg.data.DataLoader(dg.data.TensorDataset(rows), batch_size=8), ours)
    for k, v in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[k].numpy(), v.numpy(), rtol=1e-5, atol=1e-6, err_msg=k)
    assert ours[1].momentum == 0.1


def test_errors_say_what_is_wrong():
    model = nn.Linear(2, 2)
    with pytest.raises(dg.errors.ArgumentError, match="both given"):
        S.AveragedModel(model, avg_fn=S.get_swa_avg_fn(), multi_avg_fn=S.get_swa_multi_avg_fn())
    with pytest.raises(dg.errors.ArgumentError, match="outside"):
        S.get_ema_multi_avg_fn(1.5)
    with pytest.raises(dg.errors.ShapeError, match="other parameters"):
        S.AveragedModel(model).update_parameters(nn.Linear(3, 2))
    with pytest.raises(dg.errors.ArgumentError, match="anneal_strategy"):
        S.SWALR(dg.optim.SGD(model.parameters(), 0.1), 0.05, anneal_strategy="exp")
    with pytest.raises(dg.errors.ArgumentError, match="rates for"):
        S.SWALR(dg.optim.SGD(model.parameters(), 0.1), [0.05, 0.1])
