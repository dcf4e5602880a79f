"""Another batch size has the kernels of the first: what is compiled depends on structure alone."""

from types import SimpleNamespace

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cpu import device
from duograd.core.backend import get_backend
from duograd.graph import growing, segment
from duograd.graph.compile import plan_graph
from duograd.nn import functional as F

#: sums over them are short and long, of few rows and of many; products have few blocks and many
BATCHES = (2, 3, 5, 8, 16, 33)
#: zeros of a sum by several threads into the lines of a table, which one thread writes on its way
ZEROS = "# fill"
nn = dg.nn


class Encoder(nn.Module):
    """Attention and a wide feed-forward part, whose second product has a long sum and few columns."""

    def __init__(self):
        super().__init__()
        self.attention, self.first = nn.MultiheadAttention(64, 4, batch_first=True), nn.LayerNorm(64)
        self.wide, self.narrow, self.last = nn.Linear(64, 1024), nn.Linear(1024, 64), nn.LayerNorm(64)

    def forward(self, x):
        attended = self.attention(x, x, x)
        x = self.first(x + (attended[0] if isinstance(attended, tuple) else attended))
        return self.last(x + self.narrow(F.gelu(self.wide(x))))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(64, 64, batch_first=True), nn.Linear(64, 64)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


class Words(nn.Module):
    """Tokens with places added, and a classifier over all of them."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(40, 64), nn.Embedding(32, 64)
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 40)

    def forward(self, x):
        y = self.words(x) + self.places(dg.arange(x.shape[1]))
        return self.head(self.norm(y)).reshape((-1, 40))


class Narrow(nn.Module):
    """A model whose products are in 16 bits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        with dg.autocast(dtype=dg.bfloat16):
            return self.model(x).to(dg.float32)


def images():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * 64, 10),
    )  # fmt: skip


def stages():
    """Convolutions at the end of a residual network: what is packed for them depends on how many pixels there are."""
    return nn.Sequential(
        nn.Conv2d(64, 256, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.Flatten(),
    )  # fmt: skip


def dense():
    return nn.Sequential(nn.Linear(70, 2048), nn.Tanh(), nn.Linear(2048, 10))


def normal(*shape):
    return lambda n: dg.tensor(np.ones((n, *shape), np.float32))


def labels(*shape):
    return lambda n: dg.tensor(np.zeros((n, *shape), np.int64))


def flat(n):
    return dg.tensor(np.zeros(n * 32, np.int64))


MODELS = {
    "regression": (lambda: nn.Linear(10, 1), normal(10), normal(1), F.mse_loss),
    "dense": (dense, normal(70), labels(), F.cross_entropy),
    "images": (images, normal(3, 16, 16), labels(), F.cross_entropy),
    "stages": (stages, normal(64, 8, 8), labels(), F.cross_entropy),
    "encoder": (Encoder, normal(32, 64), normal(32, 64), F.mse_loss),
    "recurrent": (Recurrent, normal(32, 64), normal(32, 64), F.mse_loss),
    "dense in 16 bits": (lambda: Narrow(dense()), normal(70), labels(), F.cross_entropy),
    "encoder in 16 bits": (lambda: Narrow(Encoder()), normal(32, 64), normal(32, 64), F.mse_loss),
    "words": (Words, labels(32), flat, F.cross_entropy),
}


def train_step(model, loss_fn):
    optimizer = dg.optim.Adam(model.parameters(), lr=1e-3)

    @dg.function
    def step(x, y):
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.fixture
def planned(monkeypatch):
    """Sources of the kernels of plans, which are not compiled."""
    found = set()

    def only_plan(graph, on):
        made = plan_graph(graph, get_backend(on))
        found.update(device._sources([made.program, *(r.program for r in made.prepared)]))
        return made._replace(executable=SimpleNamespace(run=lambda dynamic: None))

    monkeypatch.setattr(segment, "compile_graph", only_plan)
    monkeypatch.setattr(growing, "SEEN", 1 << 30)  # a plan for each size
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_batch_size_has_the_same_kernels(name, planned):
    make, x, y, loss_fn = MODELS[name]
    step = train_step(make(), loss_fn)
    step.warmup(x(4), y(4))
    kernels = {}
    for n in BATCHES:
        planned.clear()
        step.warmup(x(n), y(n))
        kernels[n] = set(planned)
    assert kernels[2]
    for n in BATCHES:
        others = {s.partition("\n")[0] for s in kernels[n] ^ kernels[2]} - {ZEROS}
        assert not others, f"batch {n}"


@pytest.mark.parametrize("name", ["encoder", "recurrent", "encoder in 16 bits"])
def test_results_of_short_and_long_sums_are_those_of_eager_mode(name):
    make, x, y, loss_fn = MODELS[name]
    model = make()

    def gradients(x, y):
        loss = loss_fn(model(x), y)
        return loss, *dg.grad(lambda x: loss_fn(model(x), y), argnums=(0,))(x)

    rng = np.random.default_rng(0)
    graph = dg.function(gradients)
    compiled = get_backend("cpu").kernel_stats
    for k, n in enumerate((2, 33)):
        args = [dg.tensor(rng.standard_normal(t.shape).astype(np.float32)) for t in (x(n), y(n))]
        before = compiled()["compiled"] + compiled()["loaded"]
        results = graph(*args)
        assert not k or compiled()["compiled"] + compiled()["loaded"] == before
        for a, b in zip(results, gradients(*args), strict=True):
            assert np.isfinite(a.detach().numpy()).all()
            assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()


@pytest.mark.parametrize("shape", [(1, 10), (1, 1, 64), (1, 1)])
def test_one_row_is_not_a_sum_over_all(shape):
    """A batch of one row keeps its fused softmax."""
    x = dg.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    fn = dg.function(lambda x: dg.softmax(x * 2))
    assert fn(x).numpy().tobytes() == dg.softmax(x * 2).numpy().tobytes()
    (variant,) = fn.variants
    assert len(variant.root.runner.compiled.program.launches) == 1
