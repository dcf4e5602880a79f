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
