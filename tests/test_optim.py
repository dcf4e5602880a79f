"""Optimisers and schedules: against PyTorch, in both modes, their checks and their state."""

import copy
import math
import pickle

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
    lr_scheduler,
)

SHAPES = ((4, 3), (5,), ())
CASES = {
    "sgd": (SGD, {"lr": 0.1}),
    "sgd_decay": (SGD, {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    "momentum": (SGD, {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "dampening": (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "adam": (Adam, {"lr": 0.01}),
    "adam_decay": (Adam, {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-3}),
    "adam_betas": (Adam, {"lr": 0.01, "betas": (0.5, 0.99), "maximize": True}),
    "adamw": (AdamW, {"lr": 0.01}),
    "adamw_decay": (AdamW, {"lr": 0.01, "weight_decay": 0.3}),
    "amsgrad": (Adam, {"lr": 0.01, "amsgrad": True, "betas": (0.9, 0.5)}),
    "rmsprop": (RMSprop, {"lr": 0.01}),
    "rmsprop_momentum": (RMSprop, {"lr": 0.01, "momentum": 0.9, "alpha": 0.9, "weight_decay": 0.1}),
    "rmsprop_centered": (
        RMSprop,
        {"lr": 0.01, "centered": True, "momentum": 0.5, "eps": 1e-2, "maximize": True},
    ),
    "adagrad": (Adagrad, {"lr": 0.1}),
    "adagrad_decay": (
        Adagrad,
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.3},
    ),
    "adadelta": (Adadelta, {"lr": 1.0}),
    "adadelta_decay": (Adadelta, {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1, "maximize": True}),
    "adamax": (Adamax, {"lr": 0.01, "weight_decay": 0.1}),
    "nadam": (NAdam, {"lr": 0.01, "weight_decay": 0.1}),
    "nadam_decoupled": (NAdam, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "rprop": (Rprop, {"lr": 0.01}),
    "rprop_settings": (
        Rprop,
        {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.02, 0.2), "maximize": True},
    ),
    "asgd": (ASGD, {"lr": 0.01}),
    "asgd_mean": (ASGD, {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "t0": 5, "weight_decay": 0.1}),
    "adafactor": (Adafactor, {"lr": 0.05}),
    "adafactor_settings": (
        Adafactor,
        {"lr": 0.3, "beta2_decay": -0.5, "eps": (1e-3, 0.1), "d": 1.5, "weight_decay": 0.1, "maximize": True},
    ),
    "radam": (RAdam, {"lr": 0.01, "weight_decay": 0.1}),
    "radam_decoupled": (
        RAdam,
        {"lr": 0.01, "betas": (0.9, 0.7), "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
}


@pytest.fixture
def torch():
    return pytest.importorskip(
        "torch", reason="PyTorch is not installed: optimisers are not compared with it"
    )


def _arrays(dtype="float32"):
    return [np.random.randn(*s).astype(dtype) if s else np.asarray(1.5, dtype) for s in SHAPES]


# ---------------------------------------------------------------- against PyTorch


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_agree_with_torch(torch, case, dtype):
    cls, settings = CASES[case]
    values = _arrays(dtype)
    ours, theirs = [nn.Parameter(v) for v in values], [torch.nn.Parameter(torch.tensor(v)) for v in values]
    a, b = cls(ours, **settings), getattr(torch.optim, cls.__name__)(theirs, **settings)
    for k in range(20):
        for p, q, g in zip(ours, theirs, _arrays(dtype)):
            p.grad, q.grad = dg.tensor(g), torch.tensor(g)
        a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = settings["lr"] / (1 + k)
        a.step(), b.step()
    # Twenty updates, each rounded a few times in another order.
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    if cls in (NAdam, ASGD):
        tolerance = max(
            tolerance, 1e-8
        )  # PyTorch keeps the product of the momenta, or eta and mu, in float32
    if cls is Adafactor:
        tolerance *= 10  # norms in another order
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), tolerance, tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lion_is_its_formula(dtype):
    values = _arrays(dtype)
    ps, ms = [v.astype(float) for v in values], [np.zeros(v.shape) for v in values]
    ours = [nn.Parameter(v) for v in values]
    opt = Lion(ours, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)
    for _ in range(20):
        grads = _arrays(dtype)
        for p, g in zip(ours, grads):
            p.grad = dg.tensor(g)
        opt.step()
        ps = [p * (1 - 0.01 * 0.1) - 0.01 * np.sign(0.8 * m + 0.2 * g) for p, m, g in zip(ps, ms, grads)]
        ms = [0.95 * m + 0.05 * g for m, g in zip(ms, grads)]
    for p, q in zip(ours, ps):
        np.testing.assert_allclose(p.detach().numpy(), q, 1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
@pytest.mark.parametrize(
    "settings", [{}, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3}]
)
def test_muon_is_its_formula_and_torch_in_bfloat16(torch, settings, shape):
    start = np.random.randn(*shape)
    p, q = nn.Parameter(start), torch.nn.Parameter(torch.tensor(start))
    ours = Muon([p], lr=0.1, momentum=0.8, weight_decay=0.2, **settings)
    theirs = torch.optim.Muon([q], lr=0.1, momentum=0.8, weight_decay=0.2, **settings)
    r, m = start.copy(), np.zeros(shape)
    for _ in range(6):
        g = np.random.randn(*shape)
        p.grad, q.grad = dg.tensor(g), torch.tensor(g)
        ours.step(), theirs.step()
        m += 0.2 * (g - m)
        x = m if "nesterov" in settings else g + 0.8 * (m - g)
        x = (x.T if shape[0] > shape[1] else x) / np.linalg.norm(x)
        for _ in range(settings.get("ns_steps", 5)):
            products = x @ x.T
            x = 3.4445 * x + (-4.775 * products + 2.0315 * products @ products) @ x
        x = x.T if shape[0] > shape[1] else x
        ratio = 0.2 * max(shape) ** 0.5 if settings else max(1, shape[0] / shape[1]) ** 0.5
        r = r * (1 - 0.1 * 0.2) - 0.1 * ratio * x
        np.testing.assert_allclose(p.detach().numpy(), r, 1e-10)
    np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), atol=0.05)


@pytest.mark.parametrize("settings", [{}, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw"}])
def test_muon_in_a_graph_is_muon(settings):
    def run(mode):
        dg.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
        opt = Muon(net.parameters(), lr=0.1, **settings)

        @dg.function(mode=mode)
        def step(x):
            opt.zero_grad()
            loss = (net(x) ** 2).sum()
            loss.backward()
            opt.step()
            return loss

        losses = []
        for k in range(5):
            opt.param_groups[0]["lr"] = 0.1 / (k + 1)
            losses.append(step(dg.ones((4, 6))).item())
        return losses, [t.tolist() for t in (*net.parameters(), *_tensors(opt))]

    assert run("eager") == run("graph")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda p: Muon([p]), r"\[Muon\] optimises matrices, got float32\[3\]"),
        (lambda p: Muon([p[None] * 1], adjust_lr_fn="adam"), "adjust_lr_fn='adam'"),
        (
            lambda p: Muon([dg.ones((2, 2))], ns_coefficients=(1.0, 2.0)),
            r"ns_coefficients=\(1.0, 2.0\) are not 3 numbers",
        ),
        (lambda p: Rprop([p], etas=(1.2, 0.5)), "etas=.* do not lie around 1"),
        (lambda p: Rprop([p], step_sizes=(1.0, 0.5)), "step_sizes=.* are no range"),
        (lambda p: Adafactor([p], eps=(None, -1.0)), "eps=.* has a negative number"),
        (lambda p: Adafactor([p], beta2_decay=0.8), "beta2_decay=0.8 is above 0"),
        (lambda p: Adafactor([p], d=0.5), "d=0.5 is below 1"),
        (lambda p: ASGD([p], alpha=-1.0), "alpha=-1.0 is negative"),
    ],
)
def test_settings_outside_their_range_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make(dg.ones((3,)))


def test_a_mean_of_asgd_and_factors_of_adafactor_are_saved():
    for cls, names in ((ASGD, {"step", "eta", "ax"}), (Adafactor, {"step", "row_var", "col_var"})):
        p, q = nn.Parameter(np.ones((3, 2), "float32")), nn.Parameter(np.ones((3, 2), "float32"))
        a, b = cls([p], lr=0.1), cls([q], lr=0.1)
        for opt, x, count in ((a, p, 3), (b, q, 0)):
            for _ in range(count):
                x.grad = dg.ones((3, 2)) * 0.5
                opt.step()
        assert set(a.state[p]) == names
        b.load_state_dict(a.state_dict())
        q.data = p
        for opt, x in ((a, p), (b, q)):
            x.grad = dg.ones((3, 2)) * 2
            opt.step()
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


@pytest.mark.parametrize("cls", [ASGD, Adadelta, Adafactor, Adagrad, Adamax, Lion, NAdam, RAdam, RMSprop])
def test_graph_steps_equal_eager_steps(cls):
    start, x = np.random.randn(4, 3).astype("float32"), dg.randn(5, 4)
    results = []
    for graph in (False, True):
        p = nn.Parameter(start)
        opt = cls([p], lr=0.01, weight_decay=0.1)

        def step(x, p=p, opt=opt):
            opt.zero_grad()
            (dg.tanh(x @ p) ** 2).sum().backward()
            opt.step()

        run = dg.function(step) if graph else step
        for k in range(8):
            opt.param_groups[0]["lr"] = 0.01 / (1 + k)
            run(x)
        results.append([p.detach().numpy(), *(t.numpy() for t in opt.state[p].values())])
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


def test_groups_have_their_own_settings(torch, close):
    values, grads = _arrays(), _arrays()
    ours, theirs = [nn.Parameter(v) for v in values], [torch.nn.Parameter(torch.tensor(v)) for v in values]
    a, b = (
        cls([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.5, "weight_decay": 0.1}], lr=0.01)
        for cls, ps in ((SGD, ours), (torch.optim.SGD, theirs))
    )
    for p, q, g in zip(ours, theirs, grads):
        p.grad, q.grad = dg.tensor(g), torch.tensor(g)
    a.step(), b.step()
    for p, q in zip(ours, theirs):
        close(p.detach(), q.detach().numpy())


SCHEDULES = {
    "step": ("StepLR", {"step_size": 3, "gamma": 0.5}),
    "exponential": ("ExponentialLR", {"gamma": 0.9}),
    "cosine": ("CosineAnnealingLR", {"T_max": 4, "eta_min": 0.01}),
    "lambda": ("LambdaLR", {"lr_lambda": lambda epoch: 1 / (1 + epoch)}),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedule_agrees_with_torch(torch, case):
    name, settings = SCHEDULES[case]
    p, q = nn.Parameter(dg.zeros((1,))), torch.nn.Parameter(torch.zeros(1))
    a, b = SGD([{"params": [p], "lr": 0.3}]), torch.optim.SGD([{"params": [q], "lr": 0.3}])
    ours, theirs = (
        getattr(lr_scheduler, name)(a, **settings),
        getattr(torch.optim.lr_scheduler, name)(b, **settings),
    )
    for _ in range(14):
        assert a.param_groups[0]["lr"] == pytest.approx(b.param_groups[0]["lr"], rel=1e-12)
        assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr(), rel=1e-12)
        b.step(), ours.step(), theirs.step()


def test_a_schedule_goes_on_from_its_state():
    def start():
        opt = SGD([nn.Parameter(dg.zeros((1,)))], lr=0.3)
        return opt, lr_scheduler.StepLR(opt, 2)

    opt, schedule = start()
    for _ in range(3):
        schedule.step()
    again, other = start()
    again.load_state_dict(opt.state_dict())
    other.load_state_dict(schedule.state_dict())
    schedule.step(), other.step()
    assert again.param_groups[0]["lr"] == opt.param_groups[0]["lr"] == pytest.approx(0.003)
    with pytest.raises(dg.errors.CheckpointError, match="this schedule"):
        lr_scheduler.ExponentialLR(opt, 0.9).load_state_dict(schedule.state_dict())


# ---------------------------------------------------------------- both modes


def _train(cls, settings, mode, steps=6):
    dg.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    opt, loss_of = cls(net.parameters(), **settings), nn.CrossEntropyLoss()
    schedule = lr_scheduler.StepLR(opt, 2, 0.5)

    @dg.function(mode=mode)
    def step(x, y):
        opt.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        opt.step()
        return loss

    random, losses = np.random.default_rng(0), []
    for _ in range(steps):
        x, y = random.standard_normal((5, 6)).astype(np.float32), random.integers(0, 3, 5)
        losses.append(step(dg.tensor(x), dg.tensor(y)).item())
        schedule.step()
    return losses, [t.tolist() for t in (*net.parameters(), *_tensors(opt))], step


def _tensors(opt):
    return [t for row in opt.state_dict()["state"].values() for t in row.values()]


@pytest.mark.parametrize("case", CASES)
def test_a_training_step_is_the_same_in_both_modes(case):
    eager = _train(*CASES[case], "eager")
    graph = _train(*CASES[case], "graph")
    assert eager[0] == graph[0]
    assert eager[1] == graph[1]


def test_settings_changed_between_calls_are_seen_and_trace_nothing():
    def run(mode):
        dg.manual_seed(0)
        p = nn.Parameter(dg.randn(4))
        opt = AdamW([p], lr=0.1)

        @dg.function(mode=mode)
        def step():
            opt.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            opt.step()
            return loss

        losses = []
        for settings in (
            {},
            {"lr": 0.5},
            {"betas": (0.1, 0.5)},
            {"weight_decay": 0.9, "eps": 0.1},
            {"lr": 1},
        ):
            opt.param_groups[0].update(settings)
            losses.append(step().item())
        return losses, step

    eager, (graph, step) = run("eager")[0], run("graph")
    assert eager == graph
    assert len(step.variants) == 1


S = lr_scheduler
#: a schedule, and how many variants of a step with it there may be
INSIDE = {
    "lambda": (lambda o: S.LambdaLR(o, lambda n: min((n + 1) ** -0.5, (n + 1) * 10**-1.5)), 3),
    "multiplicative": (lambda o: S.MultiplicativeLR(o, lambda n: 0.95), 2),
    "step": (lambda o: S.StepLR(o, 10), 5),
    "milestones": (lambda o: S.MultiStepLR(o, [20, 30, 30, 50]), 6),
    "constant": (lambda o: S.ConstantLR(o, total_iters=10), 4),
    "linear": (lambda o: S.LinearLR(o, total_iters=20), 3),
    "polynomial": (lambda o: S.PolynomialLR(o, 40, 0.9), 3),
    "exponential": (lambda o: S.ExponentialLR(o, 0.97), 2),
    "cosine": (lambda o: S.CosineAnnealingLR(o, 30, 1e-3), 3),
    "restarts": (lambda o: S.CosineAnnealingWarmRestarts(o, 10), 2),
    "longer_restarts": (lambda o: S.CosineAnnealingWarmRestarts(o, 10, 2), 5),
    "one_cycle": (lambda o: S.OneCycleLR(o, 0.1, total_steps=110), 3),
    "three_phases": (
        lambda o: S.OneCycleLR(o, 0.1, 110, three_phase=True, anneal_strategy="linear"),
        4,
    ),
    "cyclic": (lambda o: S.CyclicLR(o, 0.01, 0.1, 8), 3),
    "cyclic_exp": (lambda o: S.CyclicLR(o, 0.01, 0.1, 8, mode="exp_range", gamma=0.99), 3),
    "sequential": (
        lambda o: S.SequentialLR(
            o,
            [S.LinearLR(o, total_iters=10), S.CosineAnnealingLR(o, 40), S.ExponentialLR(o, 0.9)],
            [10, 50],
        ),
        8,
    ),
    "chained": (
        lambda o: S.ChainedScheduler([S.LinearLR(o, total_iters=10), S.ExponentialLR(o, 0.98)]),
        3,
    ),
    "plateau": (lambda o: S.ReduceLROnPlateau(o, patience=3), 7),
    "by_hand": (lambda o: None, 2),
}


@pytest.mark.parametrize("cls", [SGD, AdamW])
@pytest.mark.parametrize("case", INSIDE)
def test_a_schedule_inside_a_step_is_not_traced_at_every_call(case, cls):
    make, most = INSIDE[case]

    def run(mode):
        p, q = nn.Parameter(dg.tensor([1.0, -2.0])), nn.Parameter(dg.tensor([0.5]))
        more = {"momentum": 0.9} if cls is SGD else {}
        opt = cls([{"params": [p]}, {"params": [q], "lr": 0.05}], lr=0.1, **more)
        schedule = make(opt)

        @dg.function(mode=mode)
        def step():
            opt.zero_grad()
            loss = (p * p * q).sum() + q.sum() ** 2
            loss.backward()
            opt.step()
            if schedule is None:
                for group in opt.param_groups:
                    group["lr"] *= 0.9
            elif case == "plateau":
                schedule.step(3.0 + schedule.last_epoch // 20 * 0.1)
            else:
                schedule.step()
            return loss

        seen = []
        for _ in range(100):
            loss = step().item()
            settings = [
                {k: v for k, v in g.items() if isinstance(v, (float, tuple))} for g in opt.param_groups
            ]
            seen.append((loss, settings, {} if schedule is None else repr(schedule.state_dict())))
        return seen, p.tolist(), q.tolist(), step

    eager, graph = run("eager"), run("graph")
    assert repr(eager[:3]) == repr(graph[:3])
    assert len(graph[3].variants) <= most


def test_a_group_added_after_tracing_is_trained():
    p, q = nn.Parameter(dg.ones((2,))), nn.Parameter(dg.ones((2,)))
    opt = SGD([p], lr=0.5)

    @dg.function
    def step():
        opt.zero_grad()
        (p * q).sum().backward()
        opt.step()

    step()
    opt.add_param_group({"params": [q]})
    step()
    assert q.tolist() == [0.75, 0.75]


# ---------------------------------------------------------------- use


def test_parameters_without_gradient_are_left_alone():
    p, q = nn.Parameter(dg.ones((2,))), nn.Parameter(dg.ones((2,)))
    opt = Adam([p, q], lr=0.1)
    p.grad = dg.ones((2,))
    opt.step()
    assert q.tolist() == [1.0, 1.0]
    assert p.tolist() != [1.0, 1.0]
    assert opt.state[q]["exp_avg"].tolist() == [0.0, 0.0]


def test_a_step_without_gradients_does_not_count():
    p = nn.Parameter(dg.ones((2,)))
    opt = Adam([p])
    opt.step()
    assert opt.state[p]["step"].item() == 0


def test_step_calls_the_closure_with_gradients():
    p = nn.Parameter(dg.ones((2,)))
    opt = SGD([p], lr=0.5)

    def closure():
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with dg.no_grad():
        loss = opt.step(closure)
    assert loss.item() == 2.0
    assert p.tolist() == [0.0, 0.0]


def test_zero_grad_does_not_touch_shared_memory():
    a, b = nn.Parameter(dg.ones((2,))), nn.Parameter(dg.ones((2,)))
    (a + b).sum().backward()
    SGD([a]).zero_grad(set_to_none=False)
    assert a.grad.tolist() == [0.0, 0.0]
    assert b.grad.tolist() == [1.0, 1.0]


def test_group_added_later_is_trained():
    p, q = nn.Parameter(dg.ones((1,))), nn.Parameter(dg.ones((1,)))
    opt = SGD([p], lr=1.0, momentum=0.5)
    opt.add_param_group({"params": q, "lr": 0.5})
    p.grad = q.grad = dg.ones((1,))
    opt.step()
    assert (p.item(), q.item()) == (0.0, 0.5)
    assert "Parameter Group 1" in repr(opt)


def test_named_parameters_are_taken():
    opt = SGD(nn.Linear(2, 2).named_parameters())
    assert [p.shape for p in opt.param_groups[0]["params"]] == [(2, 2), (2,)]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda p: SGD([]), "empty list"),
        (lambda p: SGD([{"params": []}]), "without parameters"),
        (lambda p: SGD(p), "takes a list"),
        (lambda p: SGD([1.0]), "got a float"),
        (lambda p: SGD([p, p]), "given twice"),
        (lambda p: SGD([p * 2]), "no leaf"),
        (lambda p: SGD([dg.zeros((2,), dtype="int64")]), "only floats"),
        (lambda p: SGD([p], lr=-0.1), "lr=-0.1 is negative"),
        (lambda p: SGD([p], lr=math.nan), "lr=nan is not a number"),
        (lambda p: SGD([p], lr="fast"), "lr='fast' is a text"),
        (lambda p: SGD([p], momentum=-1), "momentum=-1"),
        (lambda p: SGD([p], nesterov=True), "nesterov needs momentum"),
        (lambda p: Adam([p], betas=(0.9, 1.0)), "betas="),
        (lambda p: Adam([p], eps=-1.0), "eps=-1.0"),
        (lambda p: SGD([{"params": [p], "beta": 1}]), "no setting 'beta'"),
        (lambda p: SGD([p]).param_groups[0].update(lr=-1), "lr=-1.0 is negative"),
        (lambda p: SGD([p]).param_groups[0].update(momentum=0.9), "momentum cannot change from 0.0"),
        (lambda p: Adam([p]).param_groups[0].update(maximize=True), "maximize cannot change"),
        (lambda p: Adam([p]).param_groups[0].update(params=[]), "cannot be replaced"),
        (lambda p: lr_scheduler.StepLR(SGD([p]), 0), "step_size=0"),
        (lambda p: lr_scheduler.StepLR(p, 1), "give optimizer as an Optimizer"),
        (lambda p: lr_scheduler.LambdaLR(SGD([p]), []), "0 functions for 1 groups"),
    ],
)
def test_wrong_settings_are_named(make, match):
    with pytest.raises(dg.errors.DuogradError, match=match) as error:
        make(nn.Parameter(dg.ones((2,))))
    assert "test_optim.py" in error.value.line


# ---------------------------------------------------------------- state


def _stepped(cls, settings, steps):
    params = [nn.Parameter(np.ones(s, np.float32)) for s in SHAPES]
    opt = cls(params, **settings)
    _go_on(opt, steps, seed=0)
    return opt


def _go_on(opt, steps, seed):
    random = np.random.default_rng(seed)
    for _ in range(steps):
        for p in opt.param_groups[0]["params"]:
            p.grad = dg.tensor(random.standard_normal(p.shape).astype(np.float32))
        opt.step()


def _values(opt):
    return [p.tolist() for p in opt.param_groups[0]["params"]]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("case", ["dampening", "adam"])
def test_copies_go_on_equally_and_apart(case, clone):
    opt = _stepped(*CASES[case], 3)
    twin = clone(opt)
    _go_on(opt, 2, seed=1)
    assert _values(twin) != _values(opt)
    _go_on(twin, 2, seed=1)
    assert _values(twin) == _values(opt)
    with pytest.raises(dg.errors.ArgumentError, match="negative"):
        twin.param_groups[0]["lr"] = -1


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_state_goes_on_equally(case):
    opt = _stepped(*CASES[case], 3)
    twin = _stepped(*CASES[case], 0)
    with dg.no_grad():
        for p, q in zip(twin.param_groups[0]["params"], opt.param_groups[0]["params"]):
            p.copy_(q)
    twin.load_state_dict(opt.state_dict())
    _go_on(opt, 2, seed=1), _go_on(twin, 2, seed=1)
    assert _values(twin) == _values(opt)


def test_a_state_that_does_not_fit_changes_nothing():
    opt = _stepped(Adam, {}, 3)
    state = opt.state_dict()
    state["state"][0] = {"exp_avg": dg.zeros((9,)), "other": dg.zeros(())}
    state["param_groups"][0] |= {"lr": -3.0, "eps": 0.5}
    before = [t.tolist() for t in _tensors(opt)]
    with pytest.raises(dg.errors.CheckpointError) as error:
        opt.load_state_dict(state)
    for text in (
        "group 0: lr=-3.0 is negative", "parameter 0: exp_avg is float32[9] in the state, float32[4, 3] here",
        "parameter 0: exp_avg_sq is missing", "parameter 0: other is unexpected",
    ):  # fmt: skip
        assert text in str(error.value)
    assert [t.tolist() for t in _tensors(opt)] == before
    assert opt.param_groups[0]["eps"] == 1e-8


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (lambda: SGD([nn.Parameter(dg.ones(s)) for s in SHAPES], momentum=0.9), "momentum cannot change"),
        (lambda: SGD([nn.Parameter(dg.ones((2,)))]), "1 parameters in the state, 3 here"),
        (lambda: SGD([{"params": nn.Parameter(dg.ones(s))} for s in SHAPES]), "3 groups in the state, 1 in"),
    ],
)
def test_a_state_of_another_optimizer_is_refused(other, match):
    with pytest.raises(dg.errors.CheckpointError, match=match):
        _stepped(SGD, {}, 0).load_state_dict(other().state_dict())
    with pytest.raises(dg.errors.CheckpointError, match="state_dict"):
        _stepped(SGD, {}, 0).load_state_dict({"lr": 1})


# ---------------------------------------------------------------- L-BFGS


def _rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2 + (x[2] - 0.5) ** 4


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_agrees_with_torch(torch, search, mode):
    settings = {
        "lr": 0.002 if search is None else 1.0,
        "max_iter": 6,
        "history_size": 4,
        "line_search_fn": search,
    }
    start = np.array([-1.2, 1.0, 2.0])
    ours, theirs = nn.Parameter(start), torch.nn.Parameter(torch.tensor(start))
    a, b = dg.optim.LBFGS([ours], **settings), torch.optim.LBFGS([theirs], **settings)

    @dg.function(mode=mode)
    def closure():
        a.zero_grad()
        loss = _rosenbrock(ours)
        loss.backward()
        return loss

    def reference():
        b.zero_grad()
        loss = _rosenbrock(theirs)
        loss.backward()
        return loss

    for _ in range(4):
        np.testing.assert_allclose(float(a.step(closure)), b.step(reference).item(), 1e-6)
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), 1e-6)


def test_lbfgs_finds_a_minimum_and_goes_on_from_its_state(tmp_path):
    made = []
    for _ in range(2):
        ps = [nn.Parameter(np.array([-1.2, 1.0])), nn.Parameter(np.array([2.0]))]
        made.append((ps, dg.optim.LBFGS(ps, max_iter=8, line_search_fn="strong_wolfe")))

    def run(ps, opt):
        def closure():
            opt.zero_grad()
            loss = _rosenbrock([ps[0][0], ps[0][1], ps[1][0]])
            loss.backward()
            return loss

        return float(opt.step(closure))

    (p, a), (q, b) = made
    run(p, a)
    dg.save({"opt": a, "p": p[0], "q": p[1]}, tmp_path / "x")
    state = dg.load(tmp_path / "x")
    b.load_state_dict(state["opt"])
    q[0].data, q[1].data = state["p"], state["q"]
    for _ in range(6):
        assert run(p, a) == run(q, b)
    assert run(p, a) < 1e-5


def test_a_function_around_lbfgs_is_left_to_python():
    stories = []
    for mode in ("eager", "graph"):
        p = nn.Parameter(np.array([2.0, -3.0]))
        opt = dg.optim.LBFGS([p], max_iter=3)

        @dg.function(mode=mode)
        def fit(target, p=p, opt=opt):
            def closure():
                opt.zero_grad()
                loss = ((p - target) ** 4).sum()
                loss.backward()
                return loss

            return opt.step(closure)

        stories.append([(fit(dg.ones(2, dtype=dg.float64)).item(), p.tolist()) for _ in range(3)])
    assert stories[0] == stories[1]
    assert "runs LBFGS.step" in str(fit.explain())


def test_lbfgs_is_checked():
    p = nn.Parameter(np.ones(3))
    with pytest.raises(dg.errors.ArgumentError, match="line_search_fn"):
        dg.optim.LBFGS([p], line_search_fn="armijo")
    with pytest.raises(dg.errors.ArgumentError, match="one group"):
        dg.optim.LBFGS([{"params": [p]}, {"params": [nn.Parameter(np.ones(2))]}])
    opt = dg.optim.LBFGS([p])
    with pytest.raises(dg.errors.ArgumentTypeError, match="closure"):
        opt.step()
    with pytest.raises(dg.errors.TraceError, match="closure"):
        dg.vmap(lambda x: opt.step(lambda: (p * p).sum()) * x)(dg.ones(2))
    with pytest.raises(dg.errors.CheckpointError, match="another optimizer"):
        opt.load_state_dict(dg.optim.SGD([p], lr=0.1).state_dict())
