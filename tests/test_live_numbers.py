"""Python numbers that change from call to call: one variant works out what they give where they meet tensors."""

import functools
import math
import queue
import threading
import time

import duograd as dg
import numpy as np
import pytest
from changing_numbers import FLOATS, Record, State, check, facts

INF, NAN = math.inf, math.nan
SPECIAL = (0.5, NAN, 0.0, -0.0, INF, -INF, 1e-46, 1e300, 16777217.0, 0.1)
INTS = (1, 2, 3, -4, 0, 250, 2**31, -(2**40), 2**62, 5)
HUGE = (1, 2, 2**63 - 1, 2**63, 2**64, 2**70, 10**400, -(2**63), 3)


# ---------------------------------------------------------------- numbers that meet tensors


def elementwise(m, x, a):
    return x * a, a * x, x + a, a - x, x / a, a / x, a**x, x > a, dg.where(x > a, x, a), dg.maximum(x, a)


def dtypes(m, x, a):
    kinds = (dg.float64, dg.float16, dg.bfloat16, dg.int32, dg.complex64, dg.bool)
    return [y * a for y in (x.to(k) for k in kinds)] + [a + x.to(k) for k in kinds]


def in_place(m, x, a):
    y = x * 1
    y *= a
    y[0] = a
    y[1:] += a
    z = dg.zeros((2,))
    z.fill_(a)
    return y, z, dg.full((2,), a), dg.full_like(x, a), x.masked_fill(x > 0, a)


def formulas(m, x, a):
    b = (a * 0.9 + 1) / 3 - -abs(a)
    return x * b, b, a * a, 2 - a, (a, {"a": [a + 1]}), round(a * 3, 1), x * (b > a) if False else x - b


def nested(m, x, a):
    inner = dg.function(lambda t, k: t * k + k)
    late = lambda t, k=a: t * k
    return inner(x, a * 2), late(x), sum(late(x) for _ in range(2)), functools.partial(late, k=a + 1)(x)


def transforms(m, x, a):
    return (
        dg.vmap(lambda t: t * a + a)(x), dg.grad(lambda t: (t**2 * a).sum())(x),
        dg.cond(x.sum() > 2, lambda t: t * a, lambda t: t - a, x),
        dg.scan(lambda c, t: (c * a + t, c), x[0], x), dg.checkpoint(lambda t: t.tanh() * a, x),
    )  # fmt: skip


def gradients(m, x, a):
    m.w.grad = None
    ((m.w * x) ** 2 * a).sum().backward()
    with dg.no_grad():
        m.w -= 0.01 * a * m.w.grad
    return m.w.grad * a


@pytest.mark.parametrize("numbers", [FLOATS, SPECIAL, INTS], ids=("floats", "special", "ints"))
@pytest.mark.parametrize(
    "body", [elementwise, in_place, nested, transforms, gradients], ids=lambda f: f.__name__
)
def test_a_number_that_meets_tensors_is_traced_twice(body, numbers):
    check(
        body, numbers, None if numbers is INTS and body is nested else 2
    )  # twice 2 ** 62 is more than 64 bits


@pytest.mark.parametrize("numbers", [FLOATS, SPECIAL], ids=("floats", "special"))
@pytest.mark.parametrize("body", [dtypes, formulas], ids=lambda f: f.__name__)
def test_dtypes_and_formulas_of_floats(body, numbers):
    check(body, numbers, 2)


def test_ops_of_numbers_alone():
    check(
        lambda m, x, a: (dg.exp(a), dg.add(a, 1), dg.maximum(a, 0.5) * x), [*FLOATS, NAN, INF, -0.0, 1e30], 2
    )
    check(lambda m, x, a: (dg.add(a, 1), dg.multiply(a, 0.5) * x), (1, 2, 3, 4), 2)


def test_formulas_of_integers():
    check(
        lambda m, x, a: (x * (a + 1), a * a, -a, a // 2, a / 3, a % 7, x * 0.9**a, ~a, a << 2),
        (1, 2, 3, 4, 50),
        2,
    )
    check(formulas, INTS)


@pytest.mark.parametrize("numbers", [INTS, HUGE], ids=("ints", "huge"))
def test_integers_that_fit_a_dtype_or_do_not(numbers):
    check(lambda m, x, a: x.to(dg.uint8) + a, numbers)
    check(lambda m, x, a: (x.to(dg.int32) * a, (x > 0) * a), numbers)
    check(lambda m, x, a: (x * a, x.to(dg.float64) - a, x.to(dg.complex64) * a), numbers)
    check(lambda m, x, a: (dg.exp(a), a * a, a + 1), numbers)


def test_a_step_that_becomes_another_type_is_another_variant():
    check(lambda m, x, a: (x * 2**a, 2**a), (1, 2, -1, 3, -2, 5), 3)
    check(lambda m, x, a: ((-8.0) ** a, x * abs((-8.0) ** a)), (0.5, 2.0, -1.5, 4.0))
    check(lambda m, x, a: x if a is None else x * a, (1, 1.0, 2, 2.0, True, None, 3, 3.5, False, 4, 4.5), 7)


def test_a_bool_is_guarded():
    check(lambda m, x, a: x * a, (True, False, True, False), 2)


# ---------------------------------------------------------------- arguments in containers, shapes, ways back


def test_numbers_in_containers_of_arguments():
    def body(x, config, row, *, scale, more=(1, 2)):
        row[0] += config["lr"]
        return x * config["lr"] + row[0] * scale - more[1], config["names"], row

    seen = {}
    for mode in ("eager", "graph"):
        f, seen[mode] = dg.function(body, mode=mode), []
        for k in range(6):
            config, row = {"lr": 0.1 * k, "names": ["a"], "flag": True}, [k, Record(k)]
            out = f(dg.ones((3,)), config, row, scale=k + 1, more=(0, k * 2))
            seen[mode] += [facts(out[0]), facts(out[2][0]), out[2] is row, row[1].n]
    assert seen["eager"] == seen["graph"]
    assert len(f.variants) == 2
    text = f.explain(guards=True)
    assert "config['lr'] is any float" in text
    assert "scale is any int" in text
    assert "more[1] is any int" in text


def test_a_container_that_is_argument_and_state():
    seen = {}
    for mode in ("eager", "graph"):
        m = State()

        def body(x, d, row, m=m):
            d["n"] += 1
            m.table["lr"] *= 0.5
            row[0] += d["n"]
            m.row.append(row[0])
            return x * d["n"] * m.table["lr"] - row[0], d is m.table, row is m.row

        f, seen[mode] = dg.function(body, mode=mode), []
        for k in range(8):
            d, row = (m.table, m.row) if k % 4 < 3 else ({"n": k, "lr": 0.1}, [k])
            seen[mode] += [facts(f(dg.ones((2,)), d, row)), facts([d, row]), m.seen()]
    assert seen["eager"] == seen["graph"]


def test_a_new_shape_is_traced_once_when_a_number_is_known_to_change():
    f = dg.function(lambda x, lr: x * lr)
    for n in range(1, 6):
        for k in range(4):
            assert facts(f(dg.ones((n,)), 0.3 * k)) == facts(dg.ones((n,)) * (0.3 * k))
    assert len(f.variants) == 5  # the last is for any size


def test_a_trace_that_meets_no_number_that_changes_has_no_live_numbers():
    m = State()
    f = dg.function(lambda x: x * m.t if x.shape == (1,) else x * 2)
    for k in range(3):
        m.t = k
        assert f(dg.ones((1,))).item() == k
    for _ in range(2):
        assert f(dg.ones((2,))).tolist() == [2, 2]
    assert [v.live is None for v in f.variants] == [True, False, True]


def test_looking_inside_a_function_with_live_numbers(tmp_path):
    m = State()

    @dg.function
    def f(x, a):
        m.t += 1
        return x * a * m.t if a > 0 else x

    for a in (0.5, 1.5, 2.5):
        f(dg.ones((8,)), a)
    before = m.t
    text = f.explain(guards=True)
    assert "a is any float" in text
    assert "m.t is any int" in text
    assert "a > 0" in text
    assert "$(a * " not in text
    assert "multiply" in f.show(html=tmp_path / "page.html")
    assert f.profile(dg.ones((8,)), 3.5, seconds=0.01) is not None
    dg.compare(f, dg.ones((8,)), 4.5)
    assert m.t == before
    assert f(dg.ones((8,)), 5.5)[0].item() == 5.5 * (before + 1)
    assert f.warmup(dg.ones((8,)), 6.5) is False
    assert f.warmup(dg.ones((8,)), -6.5) is True
    assert len(f.variants) == 3


def test_functions_compiled_in_the_background_guard_numbers_by_value():
    f = dg.function(lambda x, a: x * a, compile="background")
    for a in (0.5, 1.5, 2.5, 0.5):
        assert f(dg.ones((1,)), a).item() == a
        f.wait()
    assert len(f.variants) == 3


def test_gradients_through_a_call_take_the_numbers_of_that_call():
    def body(x, a):
        return (x * x * a).sum(), (x * (a + 1)).sum(), x.exp() * a

    grads = {}
    for mode in ("eager", "graph"):
        f, grads[mode] = dg.function(body, mode=mode), []
        for part in ((0, 1, 2), (0,), (1,), (2,)):
            x = dg.tensor([1.0, 2.0]).requires_grad_()
            calls = [f(x, a) for a in (0.5, 1.5, 2.5, 3.5)]
            for out in calls:
                x.grad = None
                sum(out[k].sum() for k in part).backward(retain_graph=True)
                grads[mode].append(facts(x.grad))
                g = dg.autograd.grad(
                    sum(out[k].sum() for k in part), x, create_graph=True, retain_graph=True
                )[0]
                grads[mode].append(facts(dg.autograd.grad((g * g + x).sum(), x)[0]))
    assert grads["eager"] == grads["graph"]
    assert len(f.variants) == 2


def test_a_gradient_of_a_gradient_finds_state_as_it_was():
    seen = {}
    for mode in ("eager", "graph"):
        m = State()

        def body(x, m=m):
            m.t += 1
            m.lr *= 0.5
            return (x**3 * m.t * m.lr).sum()

        f, seen[mode], x = dg.function(body, mode=mode), [], dg.tensor([1.0, 2.0]).requires_grad_()
        for y in [f(x) for _ in range(5)]:
            (g,) = dg.autograd.grad(y, x, create_graph=True)
            seen[mode] += [facts(g), facts(dg.autograd.grad(g.sum(), x)[0]), m.t, m.lr]
    assert seen["eager"] == seen["graph"]


def test_a_rule_that_branches_on_a_number():
    def body(x, n):
        def rule(g):
            return g * n if n > 2 else g - n

        return dg.custom_gradient(lambda t: (t * n, rule))(x).sum(), (x * n).sum()

    seen = {}
    for mode in ("eager", "graph"):
        f, seen[mode] = dg.function(body, mode=mode), []
        for n in (1, 2, 3, 4, 2, 7, 1):
            x = dg.tensor([1.0, 2.0]).requires_grad_()
            out = f(x, n)
            out[n % 2].backward()
            seen[mode].append(facts(x.grad))
    assert seen["eager"] == seen["graph"]


# ---------------------------------------------------------------- what does not know live numbers


def test_what_is_kept_where_no_trace_sees_it_is_a_plain_number():
    kept = queue.SimpleQueue()

    @functools.lru_cache
    def cached(n):
        return n * 2

    @dg.function
    def f(x, n):
        kept.put(n)
        return x * cached(n) + cached(n * 3)

    for n in range(5):
        assert f(dg.ones((1,)), n).item() == n * 2 + n * 6
    assert [cached(n) for n in range(5)] == [0, 2, 4, 6, 8]
    while not kept.empty():
        assert type(kept.get()) is int


def test_another_thread_sees_plain_numbers_while_a_function_is_traced():
    m, found, ended = State(), [], []

    def look():
        while not ended:
            found.append((type(m.lr + 1), m.lr > 0, float(m.lr)))
            time.sleep(0.001)

    @dg.function
    def f(x):
        time.sleep(0.05)
        return x * m.lr

    thread = threading.Thread(target=look)
    thread.start()
    for k in range(1, 5):
        m.lr = 0.5 * k
        assert f(dg.ones((1,))).item() == 0.5 * k
    ended.append(True)
    thread.join()
    assert all(kind is float and above for kind, above, _ in found)
    assert {value for *_, value in found} >= {0.5, 1.0}
    assert type(m.lr) is float


def test_a_number_that_another_thread_met_during_one_trace_is_live_in_the_next():
    m, look = State(), [True]

    def meet():
        while look:
            m.lr * 2

    @dg.function
    def f(x):
        if look:
            time.sleep(0.1)
        return x * m.lr

    thread = threading.Thread(target=meet)
    thread.start()
    for k in range(1, 9):
        m.lr = 0.5 * k
        if k == 3:
            look.clear()
            thread.join()
        assert f(dg.ones((1,))).item() == 0.5 * k
    assert len(f.variants) == 3


def test_a_function_that_runs_in_python_gets_plain_numbers():
    seen = []

    @dg.function(mode="eager")
    def host(x, n):
        seen.append(type(n))
        return x * n

    f = dg.function(lambda x, n: host(x, n) + n)
    assert [f(dg.ones((1,)), n).item() for n in range(6)] == [2 * n for n in range(6)]
    assert set(seen) == {int}


def test_optimiser_and_schedule_inside():
    seen = {}
    for mode in ("eager", "graph"):
        w = dg.tensor([1.0, -2.0]).requires_grad_()
        opt = dg.optim.Adam([w], lr=0.1)
        plan = dg.optim.lr_scheduler.ExponentialLR(opt, gamma=0.9)

        def step(x, w=w, opt=opt, plan=plan):
            opt.zero_grad()
            loss = ((w * x) ** 2).sum()
            loss.backward()
            opt.step()
            plan.step()
            return loss

        step = dg.function(step, mode=mode)
        seen[mode] = (
            [facts(step(dg.ones((2,)))) for _ in range(8)],
            facts(w.detach()),
            opt.param_groups[0]["lr"],
        )
    assert seen["eager"] == seen["graph"]


def test_random_seeds_from_a_number():
    seen = {}
    for mode in ("eager", "graph"):

        @dg.function(mode=mode)
        def f(x, seed):
            dg.manual_seed(seed)
            return x + dg.rand((2,)), dg.Generator(seed + 1).get_state()

        seen[mode] = [facts(f(dg.ones((2,)), k)) for k in range(5)]
    assert seen["eager"] == seen["graph"]


def test_checked_calls(monkeypatch):
    monkeypatch.setenv("DUOGRAD_CHECK", "1")
    m = State()

    @dg.function
    def f(x, a):
        m.t += 1
        return x * a * m.t

    assert [f(dg.ones((1,)), 0.5 * k).item() for k in range(5)] == [0.0, 1.0, 3.0, 6.0, 10.0]
    assert len(f.variants) == 2


def test_an_exported_function_keeps_the_number_it_was_exported_with():
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    f = dg.function(lambda x, a: x * a + 1)
    for a in (2.0, 3.0, 4.0):
        f(dg.ones((2,)), a)
    model = dg.onnx.export(lambda x: f(x, 5.0), (dg.ones((2,)),))
    model = onnx.load_from_string(model) if isinstance(model, bytes) else getattr(model, "proto", model)
    (got,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: np.ones(2, np.float32)})
    assert got.tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    "body", [lambda x, k: x[k:], lambda x, k: x[k:] * x[: x.shape[0] - k], lambda x, k: x[k]]
)
def test_the_gradient_of_a_part_by_a_live_number_is_taken_after_later_calls(body):
    """The way back of a view that is handed out looked for the call's numbers, and was not given them."""

    def found(mode):
        f, made = dg.function(body, mode=mode), []
        for k in range(8):
            x = dg.arange(9.0).requires_grad_()
            made.append((x, f(x, k)))
        for _, y in reversed(made):
            y.square().sum().backward()
        return [x.grad.tolist() for x, _ in made]

    assert found("graph") == found("eager")


@pytest.mark.parametrize("walk", [
    lambda y, z, w: y.sum().backward(),
    lambda y, z, w: z.square().sum().backward(),
    lambda y, z, w: (y.sum() + z.sum() + w.sum()).backward(),
    lambda y, z, w: (y.mT * 2).square().sum().backward(),
    lambda y, z, w: (z.sum().backward(retain_graph=True), y.square().sum().backward()),
])  # fmt: skip
def test_other_ways_back_where_a_live_number_is_a_size(walk):
    """From some of the results, or of gradients that lie otherwise: they met the numbers of a trace that had ended."""

    def body(x, k):
        part = x[k:]
        return part * 2, dg.max(part, axis=(0, 1), keepdims=True), part[..., :2].exp() @ x[:2, :2]

    def found(mode):
        f, made = dg.function(body, mode=mode), []
        for k in range(8):
            x = (dg.arange(27.0) * 0.1).reshape(9, 3).requires_grad_()
            made.append((x, f(x, k)))
        for _, results in reversed(made):
            walk(*results)
        return [x.grad.tolist() for x, _ in made]

    assert found("graph") == found("eager")


def test_a_way_back_apart_from_sizes_that_are_live_is_a_graph():
    """What is changed after the call, and not needed, is no obstacle then."""
    f = dg.function(lambda x, k: (x * 3, x[k:] * 2, x * 4))
    for k in range(8):
        x = dg.arange(9.0).requires_grad_()
        y, _, _ = f(x, k)
        with dg.no_grad():
            x += 1
        y.sum().backward()
        assert x.grad.tolist() == [3.0] * 9


MADE = {
    "a float": (lambda t: dg.tensor(t), (0.1, 3.7, 1e300, math.inf, -0.0, 7.5)),
    "an int": (lambda t: dg.tensor(t), (1, 2, 3, 2**40, 2**54 + 1, -4)),
    "a row": (lambda t: dg.tensor([t, 2.5, t * 2]), (0.1, 3.7, 1e30, 7.5)),
    "equal elements": (lambda t: dg.tensor([t] * 3), (1, 5, 2**54 + 1, 9)),
    "nested": (lambda t: dg.asarray([[t, 1], [2, t + 1]]), (1, 5, 7, 9)),
    "with a dtype": (lambda t: dg.tensor(t, dtype=dg.float64), (1, 5, 7, 9)),
    "that learns": (lambda t: dg.tensor(t, requires_grad=True), (0.5, 1.5, 0.1, 0.2)),
    "of an index": (lambda t: dg.arange(20)[dg.tensor([t])], (1, 5, 7, 9)),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("name", MADE)
def test_tensors_of_numbers_that_change_are_traced_twice(name):
    fn, numbers = MADE[name]
    traced = dg.function(fn)
    for n in numbers:
        a, b = fn(n), traced(n)
        assert (a.type, a.requires_grad, a.is_leaf) == (b.type, b.requires_grad, b.is_leaf)
        assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
    assert len(traced.variants) == 2, traced.explain()


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", [dg.float32, dg.float16, dg.int64, dg.int32])
def test_numbers_that_a_dtype_rounds_have_the_bits_of_eager_mode(dtype):
    traced = dg.function(lambda t: dg.tensor([t, t], dtype=dtype))
    for n in (1, 3, 5, 2049, 2**24 + 1) + ((2**54 + 3, 2**60 + 1) if dtype.is_float else ()):
        want = np.array([n, n]).astype(dtype.np)
        assert traced(n).numpy().tobytes() == want.tobytes()


class Sampler(dg.nn.Module):
    table = dg.linspace(0, 1, 20)

    @dg.no_grad()
    def sample(self, x, t, i):
        mean = x * 2 + self.table.gather(-1, t)
        return mean if i == 0 else mean * i


@pytest.mark.parametrize("how", [dg.no_grad(), dg.enable_grad(), dg.autocast("cpu", dtype=dg.bfloat16)])
def test_numbers_that_change_are_given_to_decorated_functions(how):
    """They were values, for the framework's code between is not followed: a sampling loop was traced at each step."""
    sampler = Sampler()

    @how
    def scaled(x, k):
        return x * k

    def step(x, i):
        return scaled(sampler.sample(x, dg.full((3,), i, dtype=dg.int64), i), i + 0.5)

    traced = dg.function(step)
    for i in range(9, -1, -1):
        assert traced(dg.ones(3), i).tolist() == step(dg.ones(3), i).tolist()
    assert len(traced.variants) == 3, traced.explain()  # the first number, any, none
