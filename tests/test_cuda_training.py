"""Train steps on a CUDA device, in the emulation and on a GPU that is there: both modes, beside the CPU.

Nothing here is proven before it ran on a GPU.
"""

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.bench import gpu as first_run
from duograd.interop.demo import training_step
from duograd.tests.device_programs import MACHINES, device_of


@pytest.fixture(scope="module", params=MACHINES)
def device(request):
    with device_of(request.param) as name:
        yield name


def _digits():
    """The demo's network, small."""
    layers = (
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.4), nn.Linear(4 * 16, 10))


def _letters():
    return nn.Sequential(nn.Embedding(50, 4), nn.LayerNorm(4), nn.Flatten(), nn.Linear(8 * 4, 50))


def test_train_steps_have_equal_modes_and_are_near_the_cpus(device, capsys, monkeypatch):
    """The step `train` of a first run: convolutions, pooling, dropout, embedding, layer norm, cross entropy, Adam."""
    for name, make in (("digits", _digits), ("letters", _letters)):
        monkeypatch.setitem(first_run.TRAININGS, name, (make, first_run.TRAININGS[name][1]))
    assert first_run.main(["--device", device, "--steps", "train", "--batch", "2"]) == 0
    text = capsys.readouterr().out
    assert "ok   train    digits: modes equal" in text
    assert "ok   train    letters: modes equal" in text


def test_dropout_and_permutations_have_the_cpus_bits(device):
    def draw(home):
        dg.manual_seed(5)
        x = dg.ones((7, 9), device=home)
        made = [
            dg.nn.functional.dropout(x, 0.4),
            dg.randperm(20, device=home),
            dg.rand(5, dtype="float64", device=home),
        ]
        return [np.asarray(y.to("cpu").numpy()) for y in made]

    for got, want in zip(draw(device), draw("cpu"), strict=True):
        assert got.tobytes() == want.tobytes()


def test_indexing_is_numpys(device):
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    there = dg.tensor(x).to(device)
    np.testing.assert_array_equal(np.asarray(there[there > 10]), x[x > 10])
    rows = dg.tensor([3, 0, -1]).to(device)
    np.testing.assert_array_equal(np.asarray(there[rows]), x[[3, 0, -1]])
    there[rows, 1] = -1.0
    x[[3, 0, -1], 1] = -1.0
    np.testing.assert_array_equal(np.asarray(there), x)
    with pytest.raises(dg.errors.DuogradError, match="outside"):
        there[dg.tensor([4]).to(device)]


def test_a_graph_of_convolutions_takes_other_batches(device, close):
    dg.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 2))
    opt = dg.optim.SGD(model.parameters(), lr=0.1)
    model.to(device)
    step = dg.function(training_step(model, opt))
    twin = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 2))
    twin.load_state_dict({k: v.to("cpu") for k, v in model.state_dict().items()})
    same = training_step(twin, dg.optim.SGD(twin.parameters(), lr=0.1))
    for batch in (3, 1, 5):
        x, y = np.random.default_rng(batch).normal(size=(batch, 2, 5, 5)).astype("f4"), np.arange(batch) % 2
        got, want = step(dg.tensor(x).to(device), dg.tensor(y).to(device)), same(dg.tensor(x), dg.tensor(y))
        close(np.asarray(got.detach().to("cpu").numpy()), want.detach().numpy(), 4)


@pytest.mark.parametrize("half", [dg.bfloat16, dg.float16], ids=str)
def test_casts_before_kernels_are_in_the_copies_that_these_read(device, half):
    """Float32 copies of 16-bit floats are rounded as they are made, with the bits of eager mode."""
    rng = np.random.default_rng(2)
    shapes = (2, 3, 6, 6), (4, 3, 3, 3), (2 * 36, 5)
    x, w, v = (dg.tensor(rng.standard_normal(s).astype(np.float32)).to(device) for s in shapes)

    def f(x, w, v):
        with dg.autocast(dtype=half):
            y = dg.conv(x, w, padding=((1, 1), (1, 1)))
        return y.to(dg.float32), x[:, :2].reshape(2, -1).to(half) @ v.to(half)

    graph = dg.function(f)
    for got, want in zip(graph(x, w, v), f(x, w, v), strict=True):
        assert got.dtype is want.dtype
        np.testing.assert_array_equal(*(np.asarray(t.to(dg.float32).to("cpu").numpy()) for t in (got, want)))
    compiled = graph.variants[-1].root.runner.compiled
    alone = [
        g.nodes[0].inputs[0].type.shape for g in compiled.groups if [n.op.name for n in g.nodes] == ["cast"]
    ]
    assert tuple(v.shape) not in alone
    assert tuple(w.shape) not in alone
