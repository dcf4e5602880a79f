"""Learning-rate schedules: against PyTorch step by step, their states, and that no graph is traced again."""

import warnings

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn.optim import SGD, Adam, lr_scheduler

STEPS = 40
CASES = {
    "multi_step": lambda m, o: m.MultiStepLR(o, [3, 9, 9, 20], gamma=0.5),
    "constant": lambda m, o: m.ConstantLR(o, factor=0.25, total_iters=4),
    "linear": lambda m, o: m.LinearLR(o, start_factor=0.1, end_factor=0.8, total_iters=7),
    "polynomial": lambda m, o: m.PolynomialLR(o, total_iters=15, power=2.0),
    "multiplicative": lambda m, o: m.MultiplicativeLR(o, lambda t: 0.9 if t % 2 else 1.05),
    "warm_restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, T_0=5, eta_min=0.01),
    "warm_restarts_longer": lambda m, o: m.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2),
    "one_cycle": lambda m, o: m.OneCycleLR(o, max_lr=1.0, total_steps=STEPS + 1),
    "one_cycle_linear": lambda m, o: m.OneCycleLR(
        o, max_lr=[1.0, 2.0], epochs=7, steps_per_epoch=6, anneal_strategy="linear", pct_start=0.4
    ),
    "one_cycle_three": lambda m, o: m.OneCycleLR(o, max_lr=1.0, total_steps=STEPS + 1, three_phase=True),
    "cyclic": lambda m, o: m.CyclicLR(o, base_lr=0.01, max_lr=0.5, step_size_up=4, step_size_down=7),
    "cyclic_2": lambda m, o: m.CyclicLR(o, 0.01, 0.5, step_size_up=4, mode="triangular2"),
    "cyclic_exp": lambda m, o: m.CyclicLR(o, 0.01, 0.5, step_size_up=4, mode="exp_range", gamma=0.95),
    "cyclic_own": lambda m, o: m.CyclicLR(o, 0.01, 0.5, step_size_up=4, scale_fn=lambda n: 1 / n),
    "sequential": lambda m, o: m.SequentialLR(
        o,
        [m.LinearLR(o, 0.1, total_iters=5), m.CosineAnnealingLR(o, T_max=10), m.StepLR(o, 3, 0.5)],
        milestones=[5, 17],
    ),
    "sequential_exponential": lambda m, o: m.SequentialLR(
        o, [m.ConstantLR(o, 0.1, total_iters=20), m.ExponentialLR(o, gamma=0.9)], milestones=[6]
    ),
    "chained": lambda m, o: m.ChainedScheduler(
        [m.ConstantLR(o, 0.1, total_iters=5), m.ExponentialLR(o, gamma=0.9)]
    ),
}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: schedules are not compared with it")


def _pair(torch, kind):
    settings = {"lr": 0.3, "momentum": 0.9} if kind == "SGD" else {"lr": 0.3}
    ours = [{"params": [nn.Parameter(np.ones(2, "float32"))]} for _ in range(2)]
    theirs = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(2)]
    ours[1]["lr"] = theirs[1]["lr"] = 0.05
    return getattr(dg.optim, kind)(ours, **settings), getattr(torch.optim, kind)(theirs, **settings)


def _rates(optimizer):
    return [(g["lr"], g["betas"][0] if "betas" in g else g["momentum"]) for g in optimizer.param_groups]


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("case", CASES)
def test_every_step_agrees_with_torch(torch, case, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about the order of calls
        a, b = _pair(torch, kind)
        ours, theirs = CASES[case](lr_scheduler, a), CASES[case](torch.optim.lr_scheduler, b)
        for _ in range(STEPS):
            np.testing.assert_allclose(_rates(a), _rates(b), rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-12, atol=1e-15)
            ours.step(), theirs.step()


@pytest.mark.parametrize(
    "settings",
    [
        {"patience": 2},
        {"mode": "max", "patience": 1, "cooldown": 2},
        {"threshold_mode": "abs", "threshold": 0.1},
    ],
    ids=str,
)
def test_a_plateau_agrees_with_torch(torch, settings):
    settings = {"factor": 0.5, "min_lr": [0.01, 0.02], "patience": 0, **settings}
    a, b = _pair(torch, "SGD")
    ours = lr_scheduler.ReduceLROnPlateau(a, **settings)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(b, **settings)
    for value in np.random.randn(STEPS).cumsum():
        ours.step(dg.tensor(value)), theirs.step(value)
        np.testing.assert_allclose(_rates(a), _rates(b), rtol=1e-12)
        assert (ours.best, ours.num_bad_epochs) == (theirs.best, theirs.num_bad_epochs)


def test_warm_restarts_take_fractions_of_epochs(torch):
    a, b = _pair(torch, "SGD")
    ours = lr_scheduler.CosineAnnealingWarmRestarts(a, T_0=2, T_mult=2)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(b, T_0=2, T_mult=2)
    for k in range(40):
        ours.step(k / 4), theirs.step(k / 4)
        np.testing.assert_allclose(_rates(a), _rates(b), rtol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("cyclic_own",)])
def test_a_saved_schedule_goes_on_where_it_was(case, tmp_path):
    made = []
    for _ in range(2):
        opt = Adam([{"params": [nn.Parameter(np.ones(2, "float32"))]} for _ in range(2)], lr=0.3)
        made.append((opt, CASES[case](lr_scheduler, opt)))
    (a, first), (b, second) = made
    for _ in range(8):
        first.step()
    dg.save({"opt": a.state_dict(), "schedule": first.state_dict()}, tmp_path / "x.safetensors")
    state = dg.load(tmp_path / "x.safetensors")
    b.load_state_dict(state["opt"])
    second.load_state_dict(state["schedule"])
    for _ in range(20):
        first.step(), second.step()
        assert _rates(a) == _rates(b)


def test_momentum_of_a_cycle_reaches_a_graph_without_a_new_trace():
    values = []
    for mode in ("eager", "graph"):
        p = nn.Parameter(np.ones(3, "float32"))
        opt = SGD([p], lr=0.1, momentum=0.9)
        schedule = lr_scheduler.OneCycleLR(opt, max_lr=0.5, total_steps=20)

        @dg.function(mode=mode)
        def step(p=p, opt=opt):
            opt.zero_grad()
            (p * p).sum().backward()
            opt.step()

        for _ in range(12):
            step()
            schedule.step()
        values.append(p.detach().numpy().copy())
    np.testing.assert_array_equal(*values)
    assert len(step.variants) == 1


def test_misuse_names_the_schedule():
    opt = SGD([nn.Parameter(np.ones(3, "float32"))], lr=0.1)
    other = SGD([nn.Parameter(np.ones(3, "float32"))], lr=0.1)
    wrong = {
        "no momentum": lambda: lr_scheduler.OneCycleLR(opt, 1.0, total_steps=3),
        "length": lambda: lr_scheduler.OneCycleLR(opt, 1.0, cycle_momentum=False),
        "groups": lambda: lr_scheduler.CyclicLR(opt, [0.1, 0.2], 1.0, cycle_momentum=False),
        "milestones": lambda: lr_scheduler.SequentialLR(opt, [lr_scheduler.StepLR(opt, 2)], [3]),
        "different optimizers": lambda: lr_scheduler.ChainedScheduler(
            [lr_scheduler.StepLR(opt, 2), lr_scheduler.StepLR(other, 2)]
        ),
        "factor": lambda: lr_scheduler.ReduceLROnPlateau(opt, factor=2.0),
        "below 1": lambda: lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=0),
    }
    for word, call in wrong.items():
        with pytest.raises(dg.errors.ArgumentError, match=word):
            call()
    schedule = lr_scheduler.OneCycleLR(opt, 1.0, total_steps=3, cycle_momentum=False)
    for _ in range(3):
        schedule.step()
    with pytest.raises(dg.errors.ArgumentError, match="past the last"):
        schedule.step()
