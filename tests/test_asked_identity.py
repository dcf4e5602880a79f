"""Whether tensors are the same object, asked in every way, of an argument that is found elsewhere too: both modes."""

import collections
import operator

import duograd as dg
import pytest

#: where tensors a, b and x are held
HELD = {
    "list": lambda *row: list(row),
    "deque": lambda *row: collections.deque(row),
    "tuple": lambda *row: row,
    "values": lambda *row: dict(zip("abx", row)).values(),
    "user_list": lambda *row: collections.UserList(row),
}


def changed_in_place(c, x):
    y = next(iter(c))
    y *= 2
    return y is next(iter(c)), [v is y for v in c]


def removed(c, x):
    rest = [*c]
    rest.remove(x)
    return len(rest)


def matched(c, x):
    match [*c]:
        case [_, _, last] if last is x:
            return "the last"
    return "none"


ASKED = {
    "each_is": lambda c, x: [v is x for v in c],
    "is_not": lambda c, x: [v is not x for v in c],
    "any_is": lambda c, x: any(v is x for v in c),
    "the_last_is": lambda c, x: [*c][-1] is x,
    "place": lambda c, x: next((k for k, v in enumerate(c) if v is x), None),
    "unpacked": lambda c, x: (lambda p, q, r: (r is x, p is q))(*c),
    "largest_is": lambda c, x: max(c, key=lambda v: v.sum().item()) is x,
    "sorted_is": lambda c, x: sorted(c, key=lambda v: -v.sum().item())[0] is x,
    "operator_is": lambda c, x: operator.is_([*c][2], x),
    "mapped_is": lambda c, x: [*map(operator.is_, c, [x] * 3)],
    "ids": lambda c, x: id(x) in set(map(id, c)),
    "in": lambda c, x: x in [*c][2:],
    "index": lambda c, x: [*c][2:].index(x),
    "count": lambda c, x: [*c][2:].count(x),
    "removed": removed,
    "key": lambda c, x: {v: k for k, v in enumerate(c)}.get(x),
    "set": lambda c, x: (x in {*c}, len({*c, x})),
    "matched": matched,
    "changed_in_place": changed_in_place,
}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("asked", ASKED)
def test_an_argument_that_is_held_elsewhere(asked, held):
    def run(mode):
        a, b, x = dg.tensor([1.0, 2.0]), dg.tensor([1.0, 2.0]), dg.tensor([5.0, 6.0])
        holder = {"c": HELD[held](a, b, x)}
        ask = ASKED[asked]
        f = dg.function(lambda x: (ask(holder["c"], x), x * 2), mode=mode)
        found = []
        for k in range(6):
            given = x if k in (0, 1, 4) else dg.tensor([5.0, 6.0])
            if k == 3:
                holder["c"] = HELD[held](a, a, given)
            try:
                found.append(f(given)[0])
            except (dg.errors.DuogradError, ValueError) as e:
                found.append(type(e))
        return found

    assert run("graph") == run("eager")


def test_containers_compared_that_hold_the_argument():
    def run(mode):
        a, x = dg.tensor([1.0, 2.0]), dg.tensor([5.0, 6.0])
        rows = [[a, x], [a, x]]
        f = dg.function(lambda x: ([a, x] == rows[0], rows[0] != rows[1], [x] == [x], x * 2), mode=mode)
        return [f(x)[:3] for _ in range(3)]

    assert run("graph") == run("eager") == [(True, False, True)] * 3


def test_a_question_about_others_stays_in_the_graph():
    a, b = dg.tensor([1.0, 2.0]), dg.tensor([1.0, 2.0])
    rows = collections.deque([a, b])
    f = dg.function(lambda x: x * 2 if rows[0] is rows[1] else x * 3)
    for _ in range(3):
        assert f(dg.tensor([1.0])).item() == 3.0
    assert "Python" not in f.explain()
    assert f(a).tolist() == [3.0, 6.0]


def _gradients_asked(mode):
    a, b, held = dg.ones(2).requires_grad_(), dg.ones(2).requires_grad_(), [dg.zeros(2)]
    f = dg.function(
        lambda x: (x, a.grad is b.grad, a.grad is held[0], a.grad is a.grad, [g is b.grad for g in held]),
        mode=mode,
    )

    def give(t, g):
        t.grad = g

    give(a, dg.ones(2))
    give(b, dg.ones(2))
    for change in (
        lambda: None, lambda: None, lambda: None, lambda: None,
        lambda: give(b, a.grad), lambda: give(b, dg.ones(2)), lambda: held.__setitem__(0, a.grad),
        lambda: give(a, b.grad),
    ):  # fmt: skip
        change()
        yield f(dg.ones(2))[1:]


def test_gradients_are_asked_whether_they_are_one():
    assert [*_gradients_asked("graph")] == [*_gradients_asked("eager")]
