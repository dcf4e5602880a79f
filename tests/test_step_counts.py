"""Optimisers count the steps of each parameter: frozen, unused and late ones, in both modes, as PyTorch does."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn


@pytest.fixture
def torch():
    return pytest.importorskip(
        "torch", reason="PyTorch is not installed: counts of steps are not compared with it"
    )


CASES = {
    "adam": ("Adam", {"lr": 0.1}),
    "amsgrad": ("Adam", {"lr": 0.1, "amsgrad": True}),
    "adamw": ("AdamW", {"lr": 0.1, "weight_decay": 0.1}),
    "adamax": ("Adamax", {"lr": 0.1}),
    "nadam": ("NAdam", {"lr": 0.1}),
    "radam": ("RAdam", {"lr": 0.1, "betas": (0.8, 0.9)}),
    "adagrad": ("Adagrad", {"lr": 0.1, "lr_decay": 0.5}),
    "sgd": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
}
#: which parameters have a gradient, step by step
PATTERNS = {
    "late": [(0,), (0,), (0, 1), (0, 1, 2), (0, 1, 2)],
    "in turns": [(0, 1), (2,), (0, 1), (2,), (0, 1), (0, 1, 2)],
    "all": [(0, 1, 2)] * 3,
    "apart": [(0, 1, 2), (1,), (0,), (), (2, 0), (0, 1, 2)],
}


def start():
    return [np.linspace(0.5, 1.5, 4, dtype=np.float32) * (k + 1) for k in range(3)]


def theirs(torch, name, settings, pattern):
    params = [torch.nn.Parameter(torch.tensor(x)) for x in start()]
    optimizer = getattr(torch.optim, name)(params, **settings)
    for chosen in pattern:
        optimizer.zero_grad()
        if chosen:
            sum((params[k] ** 3).sum() for k in chosen).backward()
        optimizer.step()
    return params, optimizer


def ours(mode, name, settings, pattern, freeze=False):
    params = [nn.Parameter(dg.tensor(x)) for x in start()]
    if freeze:
        for k in {0, 1, 2} - set(pattern[0]):
            params[k].requires_grad_(False)
    optimizer = getattr(dg.optim, name)(params, **settings)

    @dg.function(mode=mode)
    def step(chosen):
        optimizer.zero_grad()
        if chosen:
            sum((params[k] ** 3).sum() for k in chosen).backward()
        optimizer.step()

    for chosen in pattern:
        if freeze:
            for k, p in enumerate(params):
                p.requires_grad_(k in chosen)
        step(chosen)
    return params, optimizer, step


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("case", CASES)
def test_each_parameter_counts_its_own_steps(case, pattern, torch):
    name, settings = CASES[case]
    want, peer = theirs(torch, name, settings, PATTERNS[pattern])
    found = []
    for mode in ("eager", "graph"):
        for freeze in (False, True):
            params, optimizer, _ = ours(mode, name, settings, PATTERNS[pattern], freeze)
            for p, q in zip(params, want):
                np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=2e-5, atol=1e-6)
            steps = [optimizer.state[p]["step"].item() for p in params]
            if name != "SGD":
                assert steps == [float(peer.state[q]["step"]) if peer.state[q] else 0.0 for q in want]
            state = optimizer.state_dict()["state"]
            found.append(
                ([p.tolist() for p in params], [[t.tolist() for t in row.values()] for row in state.values()])
            )
    assert all(x == found[0] for x in found)


def test_parameters_that_step_together_have_one_update_and_one_trace():
    params, optimizer, step = ours("graph", "Adam", {}, PATTERNS["all"])
    assert len(step.variants) == 1
    assert len({id(optimizer.state[p]["step"]) for p in params}) == 1


def test_turns_are_told_apart_once():
    _, _, step = ours("graph", "Adam", {}, [(0, 1), (2,)] * 6)
    assert len(step.variants) == 3  # the first call tells them apart


def test_a_frozen_part_is_apart_from_the_start():
    _, _, step = ours("graph", "Adam", {}, [(0, 1)] * 4, freeze=True)
    assert len(step.variants) == 1


def test_a_group_added_late_starts_at_one(torch):
    for mode in ("eager", "graph"):
        params = [nn.Parameter(dg.tensor(x)) for x in start()]
        mates = [torch.nn.Parameter(torch.tensor(x)) for x in start()]
        optimizer, peer = dg.optim.Adam(params[:2], lr=0.1), torch.optim.Adam(mates[:2], lr=0.1)

        @dg.function(mode=mode)
        def step(params=params, optimizer=optimizer):
            optimizer.zero_grad()
            sum((p**3).sum() for p in params).backward()
            optimizer.step()

        for n in range(4):
            if n == 2:
                optimizer.add_param_group({"params": params[2:]})
                peer.add_param_group({"params": mates[2:]})
            step()
            peer.zero_grad()
            sum((p**3).sum() for p in mates).backward()
            peer.step()
        for p, q in zip(params, mates):
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=2e-5, atol=1e-6)


def go_on(params, optimizer, steps=2):
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p**3).sum() for p in params).backward()
        optimizer.step()
    return [p.tolist() for p in params]


def again(params, name, settings):
    made = [nn.Parameter(p.detach().clone()) for p in params]
    return made, getattr(dg.optim, name)(made, **settings)


@pytest.mark.parametrize("case", CASES)
def test_a_state_with_unequal_counts_comes_back(case, tmp_path):
    name, settings = CASES[case]
    params, optimizer, _ = ours("eager", name, settings, PATTERNS["apart"])
    dg.save(optimizer.state_dict(), tmp_path / "state")
    copies = [again(params, name, settings) for _ in range(2)]
    copies[0][1].load_state_dict(optimizer.state_dict())
    copies[1][1].load_state_dict(dg.load(tmp_path / "state"))
    want = go_on(params, optimizer)
    assert all(go_on(*copy) == want for copy in copies)


@pytest.mark.parametrize("case", CASES)
def test_a_state_of_before_that_counts_for_the_group_comes_back(case):
    name, settings = CASES[case]
    params, optimizer, _ = ours("eager", name, settings, PATTERNS["all"])
    state = optimizer.state_dict()
    for row in state["state"].values():
        for key in ("step", "mu_product"):
            if key in row:
                state["param_groups"][0][key] = row.pop(key)
    made, other = again(params, name, settings)
    other.load_state_dict(state)
    assert go_on(made, other) == go_on(params, optimizer)


def test_a_state_of_torch_is_taken(torch):
    for case in ("adam", "nadam", "adamax"):
        name, settings = CASES[case]
        mates, peer = theirs(torch, name, settings, PATTERNS["all"])
        state = peer.state_dict()
        rows = {k: {n: dg.tensor(t.numpy()) for n, t in row.items()} for k, row in state["state"].items()}
        settings_of = {
            k: v for k, v in state["param_groups"][0].items() if k in ("lr", "betas", "eps", "params")
        }
        made = [nn.Parameter(dg.tensor(q.detach().numpy())) for q in mates]
        optimizer = getattr(dg.optim, name)(made, **settings)
        optimizer.load_state_dict({"state": rows, "param_groups": [settings_of]})
        go_on(made, optimizer)
        for _ in range(2):
            peer.zero_grad()
            sum((p**3).sum() for p in mates).backward()
            peer.step()
        for p, q in zip(made, mates):
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=2e-5, atol=1e-6)


def test_a_state_without_counts_is_refused_and_changes_nothing():
    params, optimizer, _ = ours("eager", "Adam", {}, PATTERNS["all"])
    state = optimizer.state_dict()
    for row in state["state"].values():
        del row["step"]
    before = [p.tolist() for p in params], optimizer.state[params[0]]["step"].item()
    with pytest.raises(dg.errors.CheckpointError, match="parameter 2: step is missing"):
        optimizer.load_state_dict(state)
    assert before == ([p.tolist() for p in params], optimizer.state[params[0]]["step"].item())


def test_a_loaded_state_of_equal_counts_keeps_the_graph():
    params, optimizer, step = ours("graph", "Adam", {}, PATTERNS["all"])
    kept = {k: {n: t.clone() for n, t in row.items()} for k, row in optimizer.state_dict()["state"].items()}
    step((0, 1, 2))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": kept})
    step((0, 1, 2))
    assert len(step.variants) == 1
    assert optimizer.state[params[0]]["step"].item() == 4
