"""Gradients through a graph call: rules of the user's own, results that are not used, leaves made inside."""

import contextlib
import gc
import weakref

import duograd as dg
import pytest
from ways_back import W, X, leaf, noted, taken, through


def own_rule(pull):
    @dg.custom_gradient
    def doubled(x):
        return x * 1, pull

    return doubled


def rule_with_effects(w, x, seen):
    return own_rule(noted(seen))(w * x).sum()


def rule_with_random_numbers(w, x, seen):
    return own_rule(lambda g: g * dg.rand(g.shape))(w * x).sum()


def checkpoint_with_effects(w, x, seen):
    def block(t):
        seen.append(len(seen))
        return t.tanh() * w

    return dg.checkpoint(block, x * w).sum()


def backward_inside(mode):
    w, seen = leaf(), []
    w.register_hook(noted(seen))
    f = dg.function(lambda x: (w * x).sum().backward(), mode=mode)
    for _ in range(4):
        f(dg.tensor(X))
    return taken(w), seen


def argument_with_a_history(mode):
    w = leaf()
    f = dg.function(lambda x: (x * x).sum().backward(), mode=mode)
    for k in range(5):
        f(w if k in (0, 1, 3) else w * 2)
    return taken(w)


def whether_it_is_a_leaf(mode):
    w = leaf()
    f = dg.function(lambda x: x * (2 if x.is_leaf else 3), mode=mode)
    return [f(x).detach().numpy().tolist() for x in (w, w * 1, w, w * 1)]


def whether_its_gradient_is_kept(mode):
    w = leaf()
    f = dg.function(lambda x: x * (2 if x.retains_grad else 3), mode=mode)
    found = []
    for k in range(6):
        x = w * 1 if k < 4 else w
        if k % 2:
            x.retain_grad()
        found.append(f(x).detach().numpy().tolist())
    return found


def argument_with_a_history_changed(mode):
    w = leaf()

    def fn(x):
        x[:1] += 1
        return x * 2

    f, found = dg.function(fn, mode=mode), []
    for _ in range(3):
        w.grad, x = None, w * 3
        f(x).sum().backward()
        found.append((taken(w), x.detach().numpy().tolist()))
    return found


def argument_loses_its_history(mode):
    w = leaf()

    def fn(x):
        x.fill_(2)
        return x * 3

    f, found = dg.function(fn, mode=mode), []
    for _ in range(4):
        x = w * 3
        y = f(x)
        found.append((x.requires_grad, y.requires_grad, x.is_leaf))
    return found


def optimiser_made_by_the_first_call(mode):
    w, kept = leaf(), {}

    def fn(x):
        if "opt" not in kept:
            kept["opt"] = dg.optim.Adam([w], lr=0.1)
        kept["opt"].zero_grad()
        ((w - x) ** 2).sum().backward()
        kept["opt"].step()

    f = dg.function(fn, mode=mode)
    for _ in range(4):
        f(dg.tensor(X))
    assert mode == "eager" or f.variants
    return w.detach().numpy().tolist(), str(kept["opt"].state_dict())


def one_result_of_two(mode):
    w = leaf([0.0, 2.0])
    f = dg.function(lambda x: ((w * x).sum(), w.log()), mode=mode)
    f(dg.tensor(X))[0].backward()
    return taken(w)


def another_result_each_time(mode):
    w, v = leaf(), leaf()
    f = dg.function(lambda x: (w * x, v * x, (w * v).tanh()), mode=mode)
    found = []
    for used in ((0,), (1,), (2, 0), (0, 1, 2), (1,), (2,)):
        w.grad = v.grad = None
        ys = f(dg.tensor(X))
        sum(ys[k].sum() for k in used).backward()
        found.append((taken(w), taken(v)))
    return found


def one_result_of_two_after_a_history(mode):
    w, kept = leaf(), []

    def fn(x):
        y = own_rule(lambda g: g * 3)(x * 2)
        kept.append(y * 3)
        return y * 2

    f = dg.function(fn, mode=mode)
    for _ in range(2):
        f(w * 1).sum().backward()
    return taken(w)


def values_read_between(results, reads=1):
    """What a way back needs of segments before a value was read: copies of views of what nothing holds any more."""

    def fn(w, x):
        copied = (w * x[:, None]).T.reshape(4)
        y = (copied * copied).reshape(2, 2)
        if x.sum().item() < 0:
            y = y * 2
        for k in range(1, reads):
            with dg.no_grad():
                size = int((y.detach() * k).max().item())
            y = (y + min(size, 3)).T.reshape(4).exp().reshape(2, 2)
        return [y * w, y.sum(), y.detach() * w][:results]

    def build(mode):
        w, found = leaf([0.5, 0.25]), []
        f = dg.function(lambda x: fn(w, x), mode=mode)
        for k, sign in enumerate((1, -1, 1, -1, -1, 1)):
            w.grad = None
            ys = f(dg.tensor(X) * (sign * 0.25))
            for y in ys if k % 3 == 2 else ys[k % results :][:1]:
                y.sum().backward(retain_graph=True)
            with dg.no_grad():
                found.append((taken(w), [y.requires_grad for y in f(dg.tensor(X) * sign)]))
        assert mode == "eager" or f.variants
        return found

    return build


def mapped(mode):
    f = dg.function(lambda x: x * x, mode=mode)
    g = dg.function(lambda x: (x**3).sum(), mode=mode)
    rows = dg.tensor([W, X])
    made = dg.jacobian(f)(dg.tensor(X)), dg.vmap(dg.grad(g))(rows), dg.hessian(g)(dg.tensor(W))
    return [y.detach().numpy().tolist() for y in made]


def gradient_kept_and_left(mode):
    w, kept = leaf(), []

    def fn(x):
        w.grad = None
        (w * x).sum().backward()
        kept.append(w.grad)

    f = dg.function(fn, mode=mode)
    for k in range(5):
        f(dg.tensor([float(k), 1.0]))
    return [g.numpy().tolist() for g in kept], kept[-1] is w.grad


def rule_that_raises(mode):
    def pull(g):
        raise ValueError("no way back")

    w, f = leaf(), None
    f = dg.function(lambda x: own_rule(pull)(w * x).sum(), mode=mode)
    y = f(dg.tensor(X))
    with pytest.raises(ValueError, match="no way back"):
        y.backward()
    return y.item()


def rule_that_changes_a_tensor(mode):
    w, total = leaf(), dg.zeros((2,))

    def pull(g):
        total.copy_(total + g)
        return g

    f = dg.function(lambda x: own_rule(pull)(w * x).sum(), mode=mode)
    for _ in range(3):
        f(dg.tensor(X)).backward()
    return total.numpy().tolist(), taken(w)


def leaf_made_inside(mode):
    w = leaf()

    def fn(x):
        z = x.detach().requires_grad_()
        (z * z).sum().backward()
        return z.grad, z

    f = dg.function(fn, mode=mode)
    for _ in range(3):
        g, z = f(w)
    return taken(z), z.requires_grad, z.is_leaf, z.grad is g, taken(w)


def gradient_asked_for_inside(mode):
    w = dg.tensor(W)

    def fn(x):
        x.requires_grad_()
        return (x * x).sum()

    f = dg.function(fn, mode=mode)
    for _ in range(3):
        f(w).backward()
    return w.requires_grad, taken(w)


def gradient_given_up_inside(mode):
    w = leaf()

    def fn(x):
        x.requires_grad_(False)
        return x * 2

    f = dg.function(fn, mode=mode)
    return [f(w).requires_grad for _ in range(3)], w.requires_grad


def rule_of_ours_that_reads(w, x, seen):
    return dg.matrix_exp(w * x[:, None]).sum()


CASES = {
    **{fn.__name__: through(fn) for fn in (
        rule_with_effects, rule_with_random_numbers, checkpoint_with_effects, rule_of_ours_that_reads,
    )},
    **{fn.__name__: fn for fn in (
        backward_inside, argument_with_a_history, whether_it_is_a_leaf, whether_its_gradient_is_kept,
        argument_with_a_history_changed,
        argument_loses_its_history, optimiser_made_by_the_first_call, one_result_of_two, another_result_each_time,
        one_result_of_two_after_a_history, mapped, gradient_kept_and_left, rule_that_raises,
        rule_that_changes_a_tensor, leaf_made_inside, gradient_asked_for_inside, gradient_given_up_inside,
    )},
    **{
        f"values_read_between-{results}-{reads}": values_read_between(results, reads)
        for results in (1, 2, 3) for reads in (1, 3)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients_and_effects_are_those_of_eager_mode(name):
    found = []
    for mode in ("eager", "graph"):
        dg.manual_seed(0)
        found.append(CASES[name](mode))
    assert found[0] == found[1]


def test_what_a_result_holds_of_the_call_is_left_to_python():
    def fn(x):
        y, n = x * 2, 0

        def more():
            nonlocal n
            n += 1
            return y + n

        return more, (t * 2 for t in (x, y))

    found = []
    for mode in ("eager", "graph"):
        f, row = dg.function(fn, mode=mode), []
        for _ in range(3):
            more, rest = f(dg.tensor(X))
            row += [more().numpy().tolist(), more().numpy().tolist(), [t.numpy().tolist() for t in rest]]
        found.append(row)
    assert found[0] == found[1]


def test_what_is_printed_before_a_call_out_is_printed_once(capsys):
    out = dg.function(lambda t: t * 3, mode="eager")

    def fn(x):
        dg.print("{}", x.sum())
        return x * 2 if x.sum() > 0 else out(x)

    f = dg.function(fn)
    for value in (1.0, 2.0, -3.0, -4.0):
        f(dg.tensor([value]))
    assert capsys.readouterr().out.split() == ["1.0", "2.0", "-3.0", "-4.0"]


def test_lines_before_an_error_are_printed_in_their_order():
    found = []
    for mode in ("eager", "graph"):
        lines = []

        def fn(x, lines=lines):
            dg.print("{}", x, to=lines.append)
            if x > 2:
                dg.print("large", to=lines.append)
                raise ValueError("large")
            dg.print("small", to=lines.append)

        f = dg.function(fn, mode=mode)
        for k in range(5):
            with pytest.raises(ValueError, match="large") if k > 2 else contextlib.nullcontext():
                f(dg.tensor(float(k)))
        found.append(lines)
    assert found[0] == found[1]


def test_a_gradient_that_an_argument_has_already_is_added_to():
    def fn(x):
        (x * x).sum().backward()
        return x + 0

    made = dg.function(fn)
    for k, before in enumerate((None, 5.0, 7.0, None, 2.0, 2.0, None, None)):  # entries, too
        xs = [leaf([1.0, k]) for _ in range(2)]
        for x in xs:
            x.grad = None if before is None else dg.tensor([before, before])
        fn(xs[0])
        made(xs[1])
        assert taken(xs[0]) == taken(xs[1])
    assert len(made.variants) == 2


@pytest.mark.usefixtures("own_garbage")
def test_arguments_do_not_outlive_their_call():
    w = leaf()

    @dg.function
    def fn(x):
        (x * w).sum().backward()
        return x * w, x * 3

    x = leaf(X)
    kept = weakref.ref(x)
    fn(x)[0].sum().backward()
    w.grad = x = None
    gc.collect()
    assert kept() is None


def test_what_a_way_back_reads_of_a_gradient_is_that_of_the_call():
    w = leaf()

    @dg.function
    def fn(x):
        return (w.grad * x * x).sum()

    for _ in range(2):
        w.grad, x = dg.tensor([3.0, 5.0]), leaf([1.0, 1.0])
        y = fn(x)
        w.grad = None
        y.backward()
        assert taken(x) == [6.0, 10.0]


def grads_kept(mode, fn, calls=5):
    """What calls leave in all gradients that anybody has kept."""
    w, kept, found = leaf(), [], []
    f = dg.function(lambda x: fn(w, x), mode=mode)
    for k in range(calls):
        g = f(dg.tensor([float(k), 1.0]))
        kept.append(g)
        found.append(([None if g is None else g.detach().numpy().tolist() for g in kept], g is w.grad))
    assert mode == "eager" or f.variants
    return found


def zeroed_in_place(w, x):
    if w.grad is not None:
        w.grad.zero_()
    (w * x).sum().backward()
    return w.grad


def scaled_in_place(w, x):
    if w.grad is None:
        (w * x).sum().backward()
    w.grad *= 0.5
    w.grad[0] += x[0]
    return w.grad


def handed_out(w, x):
    if w.grad is None:
        (w * x).sum().backward()
    return w.grad


@pytest.mark.parametrize("fn", [zeroed_in_place, scaled_in_place, handed_out])
def test_a_gradient_that_is_changed_in_place_stays_the_same_object(fn):
    assert grads_kept("eager", fn) == grads_kept("graph", fn)


def test_a_gradient_given_as_an_argument_and_changed_there():
    found = []
    for mode in ("eager", "graph"):
        w = leaf()

        def fn(x, w=w):
            x.mul_(2)
            return w.grad * 1

        f, row = dg.function(fn, mode=mode), []
        for k in range(6):
            w.grad = dg.tensor([float(k), 1.0])
            row.append(f(w.grad if k in (2, 3) else dg.ones((2,))).numpy().tolist())
        found.append(row)
    assert found[0] == found[1]


def _by_checkpoint(x, kept):
    return dg.checkpoint(lambda t, kept=kept: (kept.append(1), t * 2)[1], x)


def _by_own_gradient(x, kept):
    def back(g, kept=kept):
        kept.append(1)
        return g * 3

    return dg.custom_gradient(lambda t: (t * 2, back))(x)


def _by_hook(x, kept):
    y = x * 2
    y.register_hook(lambda g, *, kept=kept: (kept.append(1), g * 3)[1])
    return y


def _by_hook_of_a_leaf(x, kept):
    (x * x).sum().backward()
    return x.grad * 1


@pytest.mark.parametrize("body", [_by_checkpoint, _by_own_gradient, _by_hook, _by_hook_of_a_leaf])
def test_what_code_on_the_way_back_changes_through_its_default_arguments_counts(body):
    """The framework calls it, not code that is watched: such changes were lost, or made twice."""
    found = []
    for mode in ("eager", "graph"):
        kept, x = [], dg.tensor([1.0, 2.0]).requires_grad_()
        if body is _by_hook_of_a_leaf:
            x.register_hook(lambda g, kept=kept: (kept.append(1), g * 3)[1])
        step = dg.function(lambda x, kept=kept: body(x, kept), mode=mode)
        for _ in range(4):
            y = step(x)
            if y.requires_grad:
                y.sum().backward()
            found.append((mode, len(kept), x.grad.tolist()))
    assert [row[1:] for row in found[:4]] == [row[1:] for row in found[4:]]


def _scaled(number):
    """A rule with a number of its own, and what sets it."""
    scale = number

    @dg.custom_gradient
    def rule(x):
        return x * scale, lambda g: g * scale

    def become(n):
        nonlocal scale
        scale = n

    return rule, become


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_each_function_of_one_code_that_the_framework_calls_has_variables_of_its_own(changed):
    rules = [_scaled(number) for number in (2, 3, 5)]
    (a, _), (b, _), (c, _) = rules
    step = dg.function(lambda x: dg.grad(lambda t: (a(t) * b(t) * c(t)).sum())(x))
    x = dg.tensor([1.0, 2.0])
    assert step(x).tolist() == [90, 360]
    rules[changed][1](7)
    factor = 7 / (2, 3, 5)[changed]
    assert step(x).tolist() == step.eager(x).tolist() == pytest.approx([90 * factor, 360 * factor])


def test_functions_that_the_framework_calls_are_not_looked_for_among_all_objects(monkeypatch):
    """That takes 80 ms where PyTorch is loaded."""
    import gc

    rule, become = _scaled(2)
    monkeypatch.setattr(
        gc, "get_referrers", lambda *_: pytest.fail("every object of the process was looked at")
    )
    step = dg.function(lambda x: dg.checkpoint(lambda t: rule(t) * t, x).sum())
    x = dg.tensor([1.0, 2.0]).requires_grad_()
    for number, value in ((2, 10.0), (3, 15.0)):
        become(number)
        y = step(x)
        y.backward()
        assert y.item() == value


def test_generators_of_the_framework_are_not_looked_for_among_all_objects(monkeypatch):
    """`for p in model.parameters()` in a step that is traced."""
    import gc

    net = dg.nn.Sequential(dg.nn.Linear(3, 4), dg.nn.BatchNorm1d(4))

    def step(x):
        y = net(x).sum()
        y.backward()
        with dg.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad
                p.grad = None
            for b in net.buffers():
                b.zero_()
        return y

    x = dg.rand(5, 3)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    want = [step(x).item() for _ in range(2)]
    net.load_state_dict(before)
    monkeypatch.setattr(
        gc, "get_referrers", lambda *_: pytest.fail("every object of the process was looked at")
    )
    fn = dg.function(step)
    assert [fn(x).item() for _ in range(2)] == want
