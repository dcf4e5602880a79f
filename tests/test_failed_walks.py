"""A walk after one that failed, or that freed part of the tape, names the op that eager mode names."""

import random

import duograd as dg
import pytest

LEAVES = [1.0, 2.0, 3.0], [0.5, 0.2, 0.1]

#: functions of two tensors; which of a, b and the results are changed; the results that are walked from
CASES = {
    "freed behind what was changed": (lambda a, b: ((y := dg.maximum(a, b)), dg.sigmoid(y)), [0, 1], [0, 0, 1, 1]),
    "changed before the freed part": (lambda a, b: ((z := (y := b + b) * a).sum() * z, y), [1], [1, 0, 1, 0]),
    "two results of one value": (lambda a, b: (dg.exp(y := dg.tanh(b / a)), dg.tanh(y), b / a), [0, "b"], [1, 2, 1, 0]),
    "a product of what was freed": (lambda a, b: (b * (y := a / b), dg.sigmoid(b * y), y), [2], [2, 0, 1, 1]),
}  # fmt: skip
UNARY = ["sin", "exp", "tanh", "cos", "sigmoid"]


def _story(f, changed, walks):
    """What walks give after a call, as numbers or words."""
    w, v = (dg.tensor(x, requires_grad=True) for x in LEAVES)
    a, b = w * 1.0, v * 1.0
    results = f(a, b)
    roots = [y.sum() for y in results]
    told = []
    with dg.no_grad():
        for k in changed:
            held = {"a": a, "b": b}[k] if isinstance(k, str) else results[k]
            held += 1.0
    for k in walks:
        root, keep = k if isinstance(k, tuple) else (k, False)
        try:
            roots[root].backward(retain_graph=keep)
            told.append([None if x.grad is None else x.grad.tolist() for x in (w, v)])
        except dg.errors.AutogradError as e:
            told.append(e.message)
    return told


@pytest.mark.parametrize("name", CASES)
def test_the_second_error_names_the_op_that_eager_mode_names(name):
    body, changed, walks = CASES[name]
    want = _story(body, changed, walks)
    assert any("changed in place" in words for words in want if isinstance(words, str))
    assert _story(dg.function(body), changed, walks) == want


def _drawn(seed):
    """A function of two tensors, and what is done with its results."""
    draw = random.Random(seed)
    steps = [
        (draw.choice([*UNARY, "multiply", "divide", "maximum", "softmax"]), draw.random(), draw.random())
        for _ in range(draw.randint(2, 7))
    ]
    count = min(len(steps), draw.randint(1, 3))
    places = draw.sample(range(len(steps)), count)

    def body(a, b):
        row = [a, b]
        for name, x, y in steps:
            first, second = row[int(x * len(row))], row[int(y * len(row))]
            if name in UNARY:
                row.append(getattr(dg, name)(first))
            elif name == "softmax":
                row.append(dg.softmax(first, axis=0))
            else:
                row.append(getattr(dg, name)(first, second * second + 1.0))
        return tuple(row[2 + k] for k in places)

    changed = draw.sample(["a", "b", *range(count)], draw.randint(1, 2))
    return body, changed, [(draw.randrange(count), draw.random() < 0.3) for _ in range(draw.randint(2, 4))]


@pytest.mark.parametrize("seed", range(0, 200, 20))
def test_random_walks_over_a_changed_tape(seed):
    for k in range(seed, seed + 20):
        body, changed, walks = _drawn(k)
        assert _story(dg.function(body), changed, walks) == _story(body, changed, walks), k


def view_changed(x):
    v = x[:2]
    v += v * v
    return v


def view_of_a_view_changed(x):
    v = x[1:]
    w = v[:1]
    w *= x[0].exp()
    return w, v * v


def two_views_changed(x):
    v, w = x[:2], x[1:]
    v *= w
    w *= v.sin()
    return v.exp(), v, w


def changed_after_it_was_read(x):
    y = dg.silu(x)
    x -= y
    return y


def read_and_changed_through_a_view(x):
    y = x * x
    x[0] *= 3
    return y, x


def changed_by_what_was_changed(x):
    h = x.exp()
    y = dg.silu(h)
    h += 1
    x *= h
    return x, y


CHANGES = (
    view_changed, view_of_a_view_changed, two_views_changed, changed_after_it_was_read, read_and_changed_through_a_view,
    changed_by_what_was_changed,
)  # fmt: skip


def _walked(f, row, first, view=False):
    """What walks from the results to the argument that the call has changed (perhaps a view) and to what it comes from
    give."""
    told = []
    for _ in range(5):
        w = dg.tensor([1.0, 2.0, 0.5], requires_grad=True)
        x = w * 1
        base = x[:]
        results = f(base if view else x)
        results = results if isinstance(results, tuple) else (results,)
        roots = [*results, x, base]
        for k, keeps in row:
            aims = [x, *results, w] if first else [w, *results]
            root = roots[k % len(roots)].sum()
            try:
                grads = dg.autograd.grad(root, aims, retain_graph=keeps, allow_unused=True)
                told.append([None if g is None else g.tolist() for g in grads])
            except dg.errors.AutogradError as e:
                told.append(e.message)
    return told


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("fn", CHANGES, ids=lambda f: f.__name__)
def test_walks_to_an_argument_that_the_call_has_changed(fn, first, view):
    for row in (
        [(0, False), (0, True)],
        [(1, True), (0, False), (1, False)],
        [(2, False), (0, False)],
        [(3, True)],
    ):
        f = dg.function(fn)
        assert _walked(f, row, first, view) == _walked(fn, row, first, view), row
        assert f.variants or view


def one_spent(w, x):
    loss = (w * x).sum()
    loss.backward()
    return (loss,)


def several_spent(w, x):
    h = (w * x).exp()
    loss = (h * h).sum()
    loss.backward()
    return loss, h, h[:1]


def one_of_two_spent(w, x):
    h = (w * x).exp()
    loss = (h * h).sum()
    loss.backward()
    return loss, w.sin(), h


@pytest.mark.parametrize("fn", [one_spent, several_spent, one_of_two_spent], ids=lambda f: f.__name__)
def test_walks_from_results_whose_tape_the_call_has_used_up(fn):
    found = []
    for f in (fn, graph := dg.function(fn)):
        told = []
        for _ in range(6):
            w = dg.tensor([1.0, 2.0], requires_grad=True)
            row = f(w, dg.tensor([3.0, 0.1]))
            for y in row:
                for aims in ([w], [*row], [w, *row]):
                    try:
                        grads = dg.autograd.grad(y.sum(), aims, allow_unused=True)
                        told.append([None if g is None else g.tolist() for g in grads])
                    except dg.errors.AutogradError as e:
                        told.append(e.message)
        found.append(told)
    assert found[0] == found[1]
    assert graph.variants


def _drawn_change(seed):
    """A function of two tensors that changes some of what it reads and makes, and walks: from which of the results and
    the arguments (perhaps two), whether the tape is kept, and what to."""
    draw = random.Random(seed)
    kinds = ["unary", "unary", "product", "product", "view", "sum", "sum", "scaling"]
    steps = [
        (draw.choice(kinds), getattr(dg, draw.choice(UNARY)), *(draw.random() for _ in range(2)))
        for _ in range(draw.randint(2, 7))
    ]
    places = [draw.random() for _ in range(draw.randint(1, 3))]

    def body(a, b):
        row = [a, b]
        for kind, op, x, y in steps:
            p, q = row[int(x * len(row))], row[int(y * len(row))]
            if kind == "unary":
                p = op(p)
            elif kind == "product":
                p = p * (q if q.shape == p.shape else q.sum())
            elif kind == "view":
                p = p[:2] if y < 0.5 else p[-1:]
            elif kind == "sum":
                p += 1.5
            else:
                p *= op(q.sum())
            row.append(p)
        return tuple([row[int(x * len(row))] for x in places])

    aims = ["all", "arguments", "leaves", "result"]
    count = draw.randint(1, 4)
    row = [
        (draw.sample(range(5), 2), draw.random() < 0.4, draw.random() < 0.3, draw.choice(aims))
        for _ in range(count)
    ]
    return body, row


def _told(f, row):
    told = []
    for _ in range(2):
        w, v = (dg.tensor(x, requires_grad=True) for x in LEAVES)
        a, b = w * 1, v * 1
        results = f(a, b)
        ends = [*results, a, b]
        told.append([y.tolist() for y in ends])
        for (i, j), two, keep, aim in row:
            i, j = i % len(ends), j % len(ends)
            root = ends[i].sum() + ends[j].sum() if two else ends[i].sum()
            aims = {
                "all": [a, b, *results, w, v],
                "arguments": [a, b],
                "leaves": [w, v],
                "result": [ends[j], w],
            }[aim]
            try:
                grads = dg.autograd.grad(root, aims, retain_graph=keep, allow_unused=True)
                told.append([None if g is None else g.tolist() for g in grads])
            except dg.errors.AutogradError as e:
                told.append((e.op, e.message))
    return told


@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_random_walks_over_what_the_call_has_changed(seed):
    for k in range(seed, seed + 10):
        body, row = _drawn_change(k)
        assert _told(dg.function(body), row) == _told(body, row), k


def test_a_walk_that_ends_at_results_needs_no_tape_behind_them():
    def fn(a, b):
        a += 1.5
        b += 1.5
        return a * b

    for f in (fn, dg.function(fn)):
        for _ in range(3):
            w, v = (dg.tensor(x, requires_grad=True) for x in LEAVES)
            a, b = w * 1, v * 1
            f(a, b).sum().backward()
            g, nothing = dg.autograd.grad((b + b).sum(), [b, w], allow_unused=True)
            assert g.tolist() == [2.0, 2.0, 2.0]
            assert nothing is None


def test_a_view_that_a_call_changes_leaves_others_in_graphs():
    def fn(h):
        h *= 2
        return h * h

    f = dg.function(fn)
    found = []
    for g in (fn, f):
        for make in (lambda x: x * 1, lambda x: x[:], lambda x: x * 1, lambda x: x.reshape(-1)[:2]):
            v = dg.tensor([0.3, 0.2, 0.7], requires_grad=True)
            base = v * 3
            h = make(base)
            y = g(h)
            grads = dg.autograd.grad(y.sum(), [h, base, v], allow_unused=True)
            found.append([None if x is None else x.tolist() for x in grads])
    assert found[:4] == found[4:]
    assert f.variants


def test_a_walk_to_one_result_of_an_op_comes_to_it_from_another():
    """Nodes lead to nodes: what stands before another output of the target's op takes part, and may be used up."""

    def parts(x):
        u, s, vh = dg.linalg.svd(x, full_matrices=False)
        return s, u.var(), vh

    words = {}
    for mode in ("eager", "graph"):
        f, words[mode] = dg.function(parts, mode=mode), []
        for _ in range(3):
            x = dg.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 0.5]], requires_grad=True)
            s, spread, vh = f(x)
            assert dg.autograd.grad(spread, vh, retain_graph=True, allow_unused=True)[0] is None
            dg.autograd.grad(s.sum() + spread, x, retain_graph=False)
            with pytest.raises(dg.errors.AutogradError) as error:
                dg.autograd.grad(spread, vh, allow_unused=True)
            words[mode].append(str(error.value).splitlines()[0])
    assert words["eager"] == words["graph"]


def _in_both(function, walk, x):
    """What a walk gives, three times, in either mode."""
    found = {}
    for mode in ("eager", "graph"):
        f = dg.function(function, mode=mode)
        found[mode] = [walk(f(x.detach().requires_grad_(x.requires_grad))) for _ in range(3)]
    return found


def test_hooks_of_results_behind_the_target_do_not_run():
    def steps(x):
        v = dg.stack([x, x], axis=0)
        w = x * v
        return v, w, w[:, 1:]

    def walk(out):
        log = []
        out[0].register_hook(lambda g: log.append(1))
        dg.autograd.grad(out[2].sum(), out[1], retain_graph=True)
        dg.autograd.grad(out[1].sum(), out[1], retain_graph=True)
        assert log == []
        dg.autograd.grad(out[2].sum(), out[0])
        return log

    found = _in_both(steps, walk, dg.tensor([1.0, 2.0], requires_grad=True))
    assert found["graph"] == found["eager"] == [[1]] * 3
