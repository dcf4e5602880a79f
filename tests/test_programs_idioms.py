"""Programs with idioms of their authors': both modes give and leave the same after every call."""

import bisect
import collections
import contextlib
import copy
import dataclasses
import enum
import functools
import itertools
import math
import operator
import threading
import weakref

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn import functional as F


def _drawn(rng, *shape):
    return dg.tensor(rng.normal(size=shape).astype("float32"))


def _plain(x):
    """Something a program made or changed, in a form that compares bit for bit."""
    if isinstance(x, dg.Tensor):
        return str(x.dtype), x.shape, x.detach().numpy().tobytes(), x.requires_grad
    if isinstance(x, np.ndarray):
        return str(x.dtype), x.shape, x.tobytes()
    if isinstance(x, nn.Module):
        grads = [p.grad if p.grad is None else _plain(p.grad) for p in x.parameters()]
        return x.training, _plain(dict(x.state_dict())), grads
    if isinstance(x, dg.optim.Optimizer):
        return _plain(x.state_dict())
    if isinstance(x, dict):
        return [(_plain(k), _plain(v)) for k, v in x.items()]
    if isinstance(x, list | tuple | collections.deque):
        return type(x).__name__, [_plain(v) for v in x]
    if dataclasses.is_dataclass(x):
        return [_plain(getattr(x, f.name)) for f in dataclasses.fields(x)]
    return type(x).__name__, repr(x)


def _trained(net, opt):
    """A step of a regression."""

    def step(x, y):
        loss = F.mse_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.detach()

    return step


def _adaptive_ode(function):
    """A neural ODE whose step size follows an error, and which gives up by an exception."""
    rng = np.random.default_rng(1)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    opt = dg.optim.Adam(net.parameters(), 0.01)
    said = {"taken": 0, "refused": 0}

    class StiffError(RuntimeError):
        pass

    def solve(y, tolerance):
        t, h, turns = 0.0, 0.3, 0
        while t < 1 - 1e-9:
            h, turns = min(h, 1 - t), turns + 1
            if turns > 6:
                raise StiffError(f"at {t:.2f}")
            a = net(y)
            b = net(y + h * a)
            error = (h * (b - a) / 2).abs().max().item()
            if error <= tolerance:
                y, t = y + h * (a + b) / 2, t + h
                said["taken"] += 1
            else:
                said["refused"] += 1
            h *= min(2.0, max(0.3, 0.9 * math.sqrt(tolerance / max(error, 1e-12))))
        return y

    def step(y, goal, tolerance):
        try:
            loss = F.mse_loss(solve(y, tolerance), goal)
        except StiffError as e:
            said["last"] = str(e)
            return None
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.item()

    fn = function(step)
    for k in range(8):
        yield fn(_drawn(rng, 3, 2), _drawn(rng, 3, 2), 0.05 if k % 4 else 1e-4), said, net, opt


def _quantised(function):
    """Straight-through rounding, with observers that keep bounds in Python and are found through a registry."""
    rng = np.random.default_rng(3)
    registry = weakref.WeakValueDictionary()

    class Observer:
        def __init__(self, name, bits):
            self.low, self.high, self.frozen, self.most = math.inf, -math.inf, False, 2 ** (bits - 1) - 1
            registry[name] = self

        @property
        def scale(self):
            return max(abs(self.low), abs(self.high), 1e-6) / self.most

        def __call__(self, x):
            if not self.frozen:
                self.low, self.high = min(self.low, x.min().item()), max(self.high, x.max().item())
            return rounded(x, self.scale, self.most)

    @dg.custom_gradient
    def rounded(x, scale, most):
        inside = (x / scale).abs() <= most
        return (x / scale).round().clip(-most, most) * scale, lambda g: g * inside.to(g.dtype)

    class Quantised(nn.Linear):
        def __init__(self, n, m, name):
            super().__init__(n, m)
            self.of_weight, self.of_input = Observer(name + ".w", 4), Observer(name + ".x", 8)

        def forward(self, x):
            return F.linear(self.of_input(x), self.of_weight(self.weight), self.bias)

    net = nn.Sequential(Quantised(4, 8, "a"), nn.ReLU(), Quantised(8, 2, "b"))
    opt = dg.optim.SGD(net.parameters(), lr=0.1)

    fn = function(_trained(net, opt))
    for k in range(10):
        if k == 7:
            for o in registry.values():
                o.frozen = True
        yield (
            fn(_drawn(rng, 5, 4) * (1 + k / 5), _drawn(rng, 5, 2)),
            net,
            opt,
            [(n, o.low, o.high) for n, o in sorted(registry.items())],
        )


def _events(function):
    """A training loop of handlers with priorities; one of them ends a phase by an exception."""
    rng = np.random.default_rng(2)

    class Stop(Exception):
        pass

    handlers, depth = collections.defaultdict(list), [0]
    net, state = nn.Linear(3, 1), {"step": 0, "best": None, "since": 0, "rates": []}
    norms = {}
    opt = dg.optim.SGD(net.parameters(), lr=0.1)

    def on(event, prio=0):
        def put(f):
            bisect.insort(handlers[event], (prio, len(handlers[event]), f))
            return f

        return put

    def emit(event, loss):
        depth[0] += 1
        try:
            for _, _, f in handlers[event]:
                if f(loss) is False:
                    break
        finally:
            depth[0] -= 1

    @on("backward")
    def measure(loss):
        for n, p in net.named_parameters():
            norms.setdefault(n, collections.deque(maxlen=3)).append(p.grad.square().sum())

    @on("end", prio=-1)
    def plateau(loss):
        if state["best"] is None or loss < state["best"]:
            state.update(best=loss, since=0)
        else:
            state["since"] += 1
            if state["since"] >= 3:
                raise Stop("no gain")

    @on("end", prio=5)
    def rate(loss):
        for g in opt.param_groups:
            g["lr"] = 0.1 / math.sqrt(1 + state["step"])
            state["rates"].append(g["lr"])

    def step(x, y):
        state["step"] += 1
        loss = F.l1_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        emit("backward", loss.detach())
        opt.step()
        try:
            emit("end", loss.detach())
        except Stop as e:
            state["since"] = 0
            return loss.detach(), str(e)
        return loss.detach(), None

    fn = function(step)
    for k in range(14):
        if k == 8:
            on("backward", prio=-9)(lambda loss: False if loss > 0.5 else None)
        yield fn(_drawn(rng, 4, 3), _drawn(rng, 4, 1)), net, opt, state, norms, depth


def _transactions(function):
    """A step that is taken back where it made the loss worse, by a context manager which swallows the error."""
    rng = np.random.default_rng(4)
    net, taken = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), []
    opt = dg.optim.SGD(net.parameters(), lr=1.0)

    class Kept:
        def __init__(self):
            self.states = []

        def __enter__(self):
            self.states.append({k: v.clone() for k, v in net.state_dict().items()})

        def __exit__(self, kind, *_):
            state = self.states.pop()
            if kind is not None:
                net.load_state_dict(state)
            return kind is not None and issubclass(kind, ArithmeticError)

    kept = Kept()

    def step(x, y):
        loss = after = None
        with kept:
            loss = F.mse_loss(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            with dg.no_grad():
                after = F.mse_loss(net(x), y)
            if after > loss:
                raise FloatingPointError("worse")
            loss = after
        taken.append(after is loss)
        return loss.detach()

    fn = function(step)
    for _ in range(8):
        yield fn(_drawn(rng, 4, 3), _drawn(rng, 4, 3)), net, opt, taken, kept.states


def _settings(function):
    """Frozen settings with enums and flags that choose, and count what was run."""
    rng = np.random.default_rng(5)

    class Act(enum.Enum):
        RELU = "relu"
        SINE = "sine"

        def __call__(self, x):
            return {Act.RELU: F.relu, Act.SINE: dg.sin}[self](x)

    class Parts(enum.Flag):
        NORM = enum.auto()
        SKIP = enum.auto()

    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        act: Act = Act.RELU
        parts: Parts = Parts.NORM
        scale: float = 1.0

    net, seen = nn.Linear(4, 4), {}
    opt = dg.optim.SGD(net.parameters(), lr=0.01)

    def step(x, config):
        h = config.act(net(x))
        if Parts.NORM in config.parts:
            h = F.layer_norm(h, (4,))
        match config:
            case Config(parts=p) if p & Parts.SKIP:
                h = h + x
            case Config(act=Act.SINE):
                h = h * config.scale
        loss = h.square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        seen[config] = seen.get(config, 0) + 1
        return loss.detach(), f"{config.act.name}|{config.parts!r}"

    fn = function(step)
    for k in range(10):
        config = dataclasses.replace(
            Config(), act=list(Act)[k % 2], parts=Parts(1 + k % 3), scale=1 + k % 5 / 7
        )
        yield fn(_drawn(rng, 3, 4), config), net, opt, seen


def _line_search(function):
    """L-BFGS by hand: two loops over a deque of pairs, and a while loop that shortens the step."""
    rng = np.random.default_rng(7)
    w, pairs, lengths, before = dg.zeros(4), collections.deque(maxlen=3), [], None
    a, b = _drawn(rng, 6, 4), _drawn(rng, 6)

    def cost(p):
        return (a @ p - b).square().mean() + 0.01 * (p**4).sum()

    def step():
        nonlocal before
        value, g = dg.value_and_grad(cost)(w)
        if before is not None:
            s, y = w - before[0], g - before[1]
            if (curve := s @ y) > 1e-8:
                pairs.append((s, y, 1 / curve))
        q, gains = g, []
        for s, y, rho in reversed(pairs):
            gains.append(rho * (s @ q))
            q = q - gains[-1] * y
        for (s, y, rho), gain in zip(pairs, reversed(gains), strict=True):
            q = q + s * (gain - rho * (y @ q))
        t = 1.0
        while cost(w - t * q) > value - 1e-4 * t * (g @ q) and t > 1e-4:
            t *= 0.5
        before = w.clone(), g
        w.sub_(t * q)
        lengths.append(t)
        return value, t

    fn = function(step)
    for _ in range(8):
        yield fn(), w, pairs, lengths, before


def _experts(function):
    """Rows go to the two best of three experts, whose loads are counted in Python."""
    rng = np.random.default_rng(6)

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.of = nn.ModuleDict(
                {k: nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)) for k in "abc"}
            )
            self.gate, self.load = nn.Linear(4, 3, bias=False), collections.Counter()
            self.register_buffer("usage", dg.zeros(3))

        def forward(self, x):
            top, which = self.gate(x).softmax(-1).topk(2, -1)
            out = dg.zeros_like(x)
            for k, (name, expert) in enumerate(self.of.items()):
                rows, slots = (which == k).nonzero()
                if len(rows) == 0:
                    continue
                self.load[name] += len(rows)
                out = out.index_add(0, rows, expert(x[rows]) * top[rows, slots][:, None])
            self.usage.mul_(0.9).add_(0.1 * F.one_hot(which, 3).float().mean((0, 1)))
            return out

    net = Experts()
    opt = dg.optim.AdamW(net.parameters(), lr=1e-2)

    fn = function(_trained(net, opt))
    for _ in range(10):
        yield fn(_drawn(rng, 5, 4), _drawn(rng, 5, 4)), net, opt, net.load


def _best_kept(function):
    """The best model is a copy that the step makes; now and then training goes back to it."""
    rng = np.random.default_rng(8)
    net, best, losses = nn.Linear(3, 1), {"loss": math.inf, "net": None, "opt": None}, []
    opt = dg.optim.Adam(net.parameters(), lr=0.2)

    def step(x, y):
        loss = F.mse_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
        if losses[-1] < best["loss"]:
            best.update(loss=losses[-1], net=copy.deepcopy(net), opt=copy.deepcopy(opt.state_dict()))
        elif len(losses) % 3 == 0:
            net.load_state_dict(best["net"].state_dict())
            opt.load_state_dict(best["opt"])
        return loss.detach()

    fn = function(step)
    for _ in range(8):
        yield fn(_drawn(rng, 6, 3), _drawn(rng, 6, 1)), net, opt, losses, best


def _served(function):
    """Several threads ask one function, which counts what it served under a lock."""
    rng = np.random.default_rng(9)
    net, lock, served = nn.Linear(4, 4), threading.Lock(), collections.Counter()

    def infer(x, turns):
        h = functools.reduce(lambda h, _: F.relu(net(h)) + x, range(turns), net(x))
        with lock:
            served[turns] += 1
        return h.mean(0)

    fn = function(infer)
    for _ in range(4):
        xs, found = [_drawn(rng, 3, 4) for _ in range(4)], {}
        work = lambda k, xs=xs, found=found: operator.setitem(found, k, fn(xs[k], k % 2 + 1))
        threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        yield [found[k] for k in range(4)], sorted(served.items()), lock.locked()


def _averaged(function):
    """An average of a model that is swapped in by `with`; teacher and pupil change places."""
    rng = np.random.default_rng(10)
    pupil, teacher, turns = nn.Linear(3, 4), nn.Linear(3, 4), itertools.count(1)
    opt = dg.optim.SGD([*pupil.parameters(), *teacher.parameters()], lr=0.1)
    average = {n: p.detach().clone() for n, p in pupil.named_parameters()}
    calls = 0

    @contextlib.contextmanager
    def averaged(net):
        own = {n: p.detach().clone() for n, p in net.named_parameters()}
        with dg.no_grad():
            for n, p in net.named_parameters():
                p.copy_(average[n])
        try:
            yield net
        finally:
            with dg.no_grad():
                for n, p in net.named_parameters():
                    p.copy_(own[n])

    def step(x, heat):
        nonlocal pupil, teacher, calls
        calls += 1
        with averaged(pupil) as net, dg.no_grad():
            soft, old = (teacher(x) / heat).softmax(-1), net(x)
        loss = F.kl_div((pupil(x) / heat).log_softmax(-1), soft, reduction="batchmean") * heat**2
        loss = loss + 0.1 * F.mse_loss(pupil(x), old)
        opt.zero_grad()
        loss.backward()
        opt.step()
        for n, p in pupil.named_parameters():
            average[n] = 0.8 * average[n] + 0.2 * p.detach()
        if calls % 4 == 0:
            pupil, teacher = teacher, pupil
        return loss.detach()

    fn = function(step)
    for _ in range(11):
        yield fn(_drawn(rng, 5, 3), 2.0 + next(turns) / 10), pupil, teacher, average, calls


PROGRAMS = [
    _adaptive_ode, _quantised, _events, _transactions, _settings, _line_search, _experts, _best_kept, _served,
    _averaged,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__.strip("_"))
def test_both_modes_give_and_leave_the_same(program):
    said = {}
    for mode in ("eager", "graph"):
        dg.manual_seed(7)
        said[mode] = [_plain(x) for x in program(functools.partial(dg.function, mode=mode))]
        said[mode].append(dg.rand(2).tolist())
    for k, (eager, graph) in enumerate(zip(said["eager"], said["graph"], strict=True)):
        assert eager == graph, f"call {k}"
