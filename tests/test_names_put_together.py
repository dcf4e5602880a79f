"""Attributes that are read and written by a name that is put together: f-strings, choices, what C code gives."""

import types

import duograd as dg
import pytest

BODIES = {
    "f-string": "return x * getattr(c, f'w{st.i}')",
    "conversion": "return x * getattr(c, f'w{st.i!s:>1}')",
    "sum": "return x * getattr(c, 'w' + str(st.i))",
    "sum in place": "n = 'w'; n += str(st.i)\nreturn x * getattr(c, n)",
    "percent": "return x * getattr(c, 'w%d' % st.i) * getattr(c, 'w%s' % (st.i,))",
    "format": "return x * getattr(c, 'w{}'.format(st.i))",
    "slice": "return x * getattr(c, 'xw0'[1:]) * getattr(c, 'w' + '0123'[st.i])",
    "choice": "return x * getattr(c, 'w0' if st.i == 0 else 'w1')",
    "in a tuple": "return x * getattr(c, ('w0', 'w1')[st.i - 0])",
    "in a loop": "return x * sum(getattr(c, f'w{k}') for k in range(2))",
    "has": "return x * 2 if hasattr(c, f'w{st.i + 2}') else -x",
    "absent": "return x * getattr(c, f'w{st.i + 2}', 0.5)",
    "number that changes": "st.i += 1\nreturn x * getattr(c, f'w{st.i % 2}') + st.i",
    "set": "setattr(c, f'n{st.i}', getattr(c, f'n{st.i}', 0) + 1)\nreturn x * getattr(c, f'n{st.i}')",
    "set tensors": "for k in range(2):\n    setattr(c, f'w{k}', getattr(c, f'w{k}') * x)\nreturn c.w0 + c.w1",
    "set by choice": "setattr(c, 'n' if st.i else 'm', x)\nreturn x * 2",
    "set while it changes": "st.i += 1\nsetattr(c, f'w{st.i % 2}', x * st.i)\nreturn x",
    "delete": "if hasattr(c, f'z{st.i}'):\n    delattr(c, f'z{st.i}')\nelse:\n    setattr(c, f'z{st.i}', 1)\nreturn x",
    "past the class": "object.__setattr__(c, f'n{st.i}', object.__getattribute__(c, f'w{st.i}'))\nreturn x",
    "bound": "c.__setattr__(f'n{st.i}', c.__getattribute__(f'w{st.i}'))\nreturn x * c.__getattribute__(f'n{st.i}')",
    "of a choice": "return getattr(x * 2 if st.i else x - 1, 'sum')() + getattr((x if st.i else -x), t_name)()",
    "what C code gives": "return x * getattr(c, max(['w0'], key=len))",
    "set, what C code gives": "setattr(c, ['w0'].pop(), 5.0 + st.i)\nreturn x * c.w0",
    "past the class, what C code gives": "object.__setattr__(c, ['w0'].pop(), 5.0 + st.i)\nreturn x * c.w0",
    "bound, what C code gives": "c.__setattr__(['w0'].pop(), 5.0 + st.i)\nreturn x * c.w0",
    "text of a class of its own": "return x * getattr(c, text + '0')",
}


class Text(str):
    def __add__(self, other):
        return "w1"


def story(body, mode):
    c, st = types.SimpleNamespace(w0=1.0, w1=dg.tensor([1.0, 2.0])), types.SimpleNamespace(i=0)
    space = {"c": c, "st": st, "text": Text("w"), "t_name": "mean", "__name__": "held_by_nobody"}
    exec("def f(x):\n" + "\n".join("    " + line for line in body.split("\n")), space)
    f, told = dg.function(space["f"], mode=mode), []

    def call():
        y = f(dg.tensor([1.0, -2.0]))
        told.append(
            (y.tolist(), [(k, getattr(v, "tolist", lambda v=v: v)()) for k, v in vars(c).items()], st.i)
        )

    for change in ({}, {"w0": 5.0}, {"w1": dg.tensor([3.0, 3.0])}, {"w0": 7.0, "w2": 9.0}):
        vars(c).update(change)
        call()
        call()
    st.i = 1
    call()
    del c.w2
    call()
    return told


@pytest.mark.parametrize("name", BODIES)
def test_a_name_that_is_put_together_is_a_name(name):
    assert story(BODIES[name], "graph") == story(BODIES[name], "eager")


def test_names_that_are_seen_stay_in_the_graph():
    c = types.SimpleNamespace(w0=1.0, w1=2.0)
    f = dg.function(lambda x: x * getattr(c, f"w{0}") * getattr(c, "w" + str(1)))
    for k in range(6):
        c.w0 = float(k)
        assert f(dg.ones(1)).item() == 2 * k
    assert len(f.variants) == 2


def test_a_name_of_a_choice_stays_in_the_graph():
    """What the choice was could not be looked at, so the function's Python ran."""
    name = "mean"
    f = dg.function(lambda x, k: 2 * getattr(x.abs() if k else (x - 1) ** 2, name)())
    for k in (True, False, True):
        assert f(dg.ones(2), k).item() == 2 * k
    assert "Python" not in f.explain()
