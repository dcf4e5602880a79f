"""Mixed precision: what autocast converts, gradients through it, both modes, and the scaled loss."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.core import autocast
from duograd.core.op import REGISTRY
from duograd.nn import functional as F

MODES = ("eager", "graph")


def test_the_lists_name_ops():
    assert not {*autocast.LOWER, *autocast.FULL} - set(REGISTRY)
    assert not autocast.LOWER & autocast.FULL


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("mode", MODES)
def test_products_run_in_16_bits_and_losses_in_32(mode, kind):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))

    @dg.function(mode=mode)
    def step(x, y):
        with dg.amp.autocast(dtype=kind):
            assert dg.amp.is_autocast_enabled()
            a = model[0](x)
            out = model(x)
            loss = F.cross_entropy(out, y)
            soft = out.softmax()
        assert not dg.amp.is_autocast_enabled()
        loss.backward()
        return a, out, loss, soft, x @ x

    a, out, loss, soft, after = step(dg.randn(4, 1, 8, 8), dg.tensor([0, 1, 2, 0]))
    assert [t.dtype.name for t in (a, out, loss, soft, after)] == [
        kind,
        kind,
        "float32",
        "float32",
        "float32",
    ]
    for p in model.parameters():
        assert p.dtype is p.grad.dtype is dg.float32


@pytest.mark.parametrize("inside", [False, True])
def test_both_modes_give_the_bits_of_casts_by_hand(inside):
    w, b, x = (dg.randn(*s).numpy() for s in ((5, 4), (5,), (3, 4)))
    found = []
    for mode in (*MODES, "by hand"):
        p, q = nn.Parameter(w), nn.Parameter(b)

        @dg.function(mode="eager" if mode == "by hand" else mode)
        def step(x, p=p, q=q, mode=mode):
            if mode == "by hand":
                y = F.linear(x.to("bfloat16"), p.to("bfloat16"), q.to("bfloat16"))
                loss = dg.exp(y.to("float32")).sum()
                loss.backward()
            else:
                with dg.autocast("cpu", dtype="bfloat16"):
                    loss = dg.exp(F.linear(x, p, q)).sum()
                    if inside:
                        loss.backward()
                if not inside:
                    loss.backward()
            return loss

        for _ in range(12):  # hot bodies too
            p.grad = q.grad = None
            loss = step(dg.tensor(x))
        found.append([t.detach().numpy() for t in (loss, p.grad, q.grad)])
    for other in found[1:]:
        for a, c in zip(found[0], other):
            np.testing.assert_array_equal(a, c)


def test_it_nests_and_decorates():
    x = dg.ones(2, 2)
    with dg.autocast(dtype="float16"):
        assert (x @ x).dtype is dg.float16
        with dg.autocast(enabled=False):
            assert (x @ x).dtype is dg.float32
        with dg.autocast():
            assert (x @ x).dtype is dg.bfloat16
        assert (x.double() @ x.double()).dtype is dg.float64

    @dg.autocast(dtype="bfloat16")
    def product(x):
        return x @ x

    assert product(x).dtype is dg.bfloat16
    assert (x @ x).dtype is dg.float32
    with pytest.raises(RuntimeError, match="inside"), dg.autocast():
        raise RuntimeError("inside")
    assert (x @ x).dtype is dg.float32
    with pytest.raises(dg.errors.ArgumentError, match="16 bits"):
        dg.autocast(dtype="float32")


def test_attention_and_recurrent_layers_take_it():
    encoder, lstm = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.LSTM(8, 4)
    x = dg.randn(2, 3, 8)
    plain = encoder(x), lstm(x)[0]
    with dg.autocast(dtype="bfloat16"):
        mixed = encoder(x), lstm(x)[0]
    for a, b in zip(plain, mixed):
        np.testing.assert_allclose(a.detach().numpy(), b.float().detach().numpy(), atol=0.06)


def test_vmap_and_grad_run_inside():
    w, x = dg.randn(3, 2), dg.randn(5, 3)
    with dg.autocast(dtype="bfloat16"):
        g = dg.vmap(lambda r: dg.grad(lambda r: (r @ w).sum())(r))(x)
    assert g.dtype is dg.float32
    np.testing.assert_allclose(g.numpy(), np.tile(w.numpy().sum(1), (5, 1)), atol=0.05)


@pytest.mark.parametrize("mode", MODES)
def test_a_scaled_loss_gives_the_same_step_and_leaves_overflows_out(mode):
    p = nn.Parameter(np.ones(3, "float32"))
    opt = dg.optim.SGD([p], lr=0.5)
    scaler = dg.amp.GradScaler(init_scale=8.0, growth_interval=2)

    @dg.function(mode=mode)
    def step(x):
        opt.zero_grad()
        scaler.scale((p * x).sum()).backward()
        scaler.unscale_(opt)
        norm = nn.utils.clip_grad_norm_([p], 100.0)
        scaler.step(opt)
        scaler.update()
        return norm

    x = dg.tensor([1.0, 0.0, 2.0])
    assert step(x).item() == pytest.approx(5**0.5)
    assert p.tolist() == [0.5, 1.0, 0.0]
    assert scaler.get_scale() == 8
    step(x)
    assert scaler.get_scale() == 16
    before = p.tolist()
    step(dg.tensor([1.0, np.inf, 2.0]))
    assert p.tolist() == before
    assert scaler.get_scale() == 8
    again = dg.amp.GradScaler()
    again.load_state_dict(scaler.state_dict())
    assert again.get_scale() == 8


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_an_overflow_of_one_optimiser_leaves_the_other_its_step(mode, split):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its scaler is not compared with")
    found = []
    for of in (dg, torch):
        p, q = (of.nn.Parameter(of.tensor([1.0, 2.0])) for _ in range(2))
        one, two = of.optim.SGD([p], lr=0.5), of.optim.SGD([q], lr=0.25)
        scaler = of.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)

        def back(a, b, scaler=scaler, one=one, two=two, p=p, q=q):
            one.zero_grad()
            two.zero_grad()
            scaler.scale((p * a).sum() + (q * b).sum()).backward()
            scaler.unscale_(two)

        def go(scaler=scaler, one=one, two=two):
            scaler.step(one)
            scaler.step(two)
            scaler.update()

        def whole(a, b, back=back, go=go):
            back(a, b)
            go()

        if of is dg:
            back, go, whole = (dg.function(f, mode=mode) for f in (back, go, whole))
        row = []
        for a, b in ((1.0, 2.0), (1.0, np.inf), (np.nan, 1.0), (np.inf, np.inf), (1.0, 1.0), (2.0, 1.0)):
            a, b = of.tensor([a, 0.0]), of.tensor([0.5, b])
            if split:
                back(a, b)
                go()
            else:
                whole(a, b)
            row.append((p.tolist(), q.tolist(), scaler.get_scale()))
        found.append(row)
    assert found[0] == found[1]


def test_a_scaler_is_checked():
    p = nn.Parameter(np.ones(3, "float32"))
    opt = dg.optim.SGD([p], lr=0.5)
    scaler = dg.amp.GradScaler()
    scaler.scale(p.sum()).backward()
    scaler.unscale_(opt)
    with pytest.raises(dg.errors.ArgumentError, match="twice for one step of SGD"):
        scaler.unscale_(opt)
    scaler.step(opt)
    with pytest.raises(dg.errors.ArgumentError, match="after step"):
        scaler.unscale_(opt)
    with pytest.raises(dg.errors.ArgumentError, match="step was called twice for SGD"):
        scaler.step(opt)
    scaler.update()
    opt.zero_grad()
    assert scaler.step(opt) is None  # no gradients: nothing to divide, nothing to look at
    scaler.update()
    scaler.update()
    assert scaler.state_dict()["growth_tracker"].item() == 1
    with pytest.raises(dg.errors.ArgumentError, match="range"):
        dg.amp.GradScaler(growth_factor=0.5)
    with pytest.raises(dg.errors.CheckpointError, match="the state has"):
        scaler.load_state_dict({"a": 1})
    off = dg.amp.GradScaler(enabled=False)
    loss = p.sum()
    assert off.scale(loss) is loss
    assert off.get_scale() == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_innermost_decides_whatever_stands_between(mode):
    class Layer(nn.Module):
        def __init__(self):
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            with dg.amp.autocast(enabled=False):
                full, off = self.inner(x), dg.amp.is_autocast_enabled()
            with dg.amp.autocast(dtype="float16"):
                half = self.inner(x)
            return full, half, self.inner(x), off, dg.amp.is_autocast_enabled()

    layer, w = Layer(), dg.randn(4, 4)

    @dg.function(mode=mode)
    def run(x):
        with dg.amp.autocast():
            found = [layer(x), nn.utils.functional_call(layer, {"inner.weight": w}, (x,))]
        return found, dg.amp.is_autocast_enabled()

    found, after = run(dg.randn(2, 4))
    for full, half, brain, off, inside in found:
        assert [t.dtype.name for t in (full, half, brain)] == ["float32", "float16", "bfloat16"]
        assert inside
        assert not off
    assert not after


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("taped", [False, True])
def test_what_is_written_in_place_is_not_converted(mode, taped):
    x, w = dg.randn(3, 4), dg.randn(4, 4).requires_grad_(taped)

    @dg.function(mode=mode)
    def run(x, w):
        y, h = dg.ones((3, 4)), dg.ones((3, 4)).to("float16") * w.sum().to("float16")
        with dg.amp.autocast():
            y.addmm_(x, w)
            h **= 2
        return y, h

    y, h = run(x, w)
    np.testing.assert_array_equal(y.detach().numpy(), dg.addmm(dg.ones((3, 4)), x, w).detach().numpy())
    assert h.dtype is dg.float16


def test_a_whole_step_with_its_update_is_one_variant():
    def run(mode):
        w = nn.Parameter(dg.tensor([1.0, -2.0]))
        opt, scaler = dg.optim.SGD([w], lr=0.01), dg.amp.GradScaler(growth_interval=3)

        @dg.function(mode=mode)
        def step(x):
            opt.zero_grad()
            loss = ((w * x) ** 2).sum()
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
            return loss

        seen = [(step(dg.ones((2,)) * (1e38 if k == 4 else 1)).item(), scaler.get_scale()) for k in range(9)]
        return repr(seen), w.tolist(), step

    eager, graph = run("eager"), run("graph")
    assert eager[:2] == graph[:2]
    assert len(graph[2].variants) == 1
