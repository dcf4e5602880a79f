"""Python constructs that break graph compilers: every row of one table gives the same in both modes, or is an error."""

import duograd as dg
import numpy as np
import pytest
from duograd.bench.constructs import PAGE, Duograd, plain
from duograd.tests.constructs import REFUSED, ROWS


def _text(x):
    if isinstance(x, np.ndarray):
        return x.dtype.name, x.shape, x.tobytes()
    if isinstance(x, (list, tuple)):
        return [_text(v) for v in x]
    return repr(x)


@pytest.mark.parametrize("name", ROWS)
def test_graph_equals_eager(name):
    eager = plain(ROWS[name](Duograd(lambda f: f)))
    if name in REFUSED:
        with pytest.raises(dg.errors.TraceError) as e:
            ROWS[name](Duograd(dg.function))
        assert REFUSED[name] in str(e.value)
        assert f"{ROWS[name].__module__.rpartition('.')[2]}.py:" in e.value.line
        assert e.value.fix
        return
    graph = plain(ROWS[name](Duograd(dg.function)))
    assert _text(graph) == _text(eager)


def test_state_that_is_replaced_is_traced_once():
    class Cell:
        def __init__(self):
            self.h = dg.zeros((2,))

    cell, table = Cell(), {"h": dg.zeros((2,))}

    @dg.function
    def step(x):
        cell.h = dg.sin(cell.h + x)
        table["h"] = table["h"] * 0.5 + cell.h
        return table["h"] * 2

    x = dg.tensor([1.0, 2.0])
    h = t = np.zeros(2, np.float32)
    for _ in range(6):
        y = step(x)
        h = np.sin(h + x.numpy())
        t = t * np.float32(0.5) + h
        np.testing.assert_allclose(y.numpy(), t * 2, rtol=1e-6)
    assert len(step.variants) == 1
    assert "cell.h holds a tensor float32[2]" in step.explain(guards=True)


def test_state_with_a_history_is_differentiated_through_time():
    w = dg.tensor([0.5, -0.3], requires_grad=True)
    got = []
    for wrap in (lambda f: f, dg.function):
        state = {"h": dg.ones((2,)) * w}

        def step(x, state=state):
            state["h"] = dg.tanh(state["h"] * w + x)
            return state["h"]

        run = wrap(step)
        w.grad = None
        for _ in range(4):
            y = run(dg.tensor([1.0, 2.0]))
        y.sum().backward()
        got.append((y.detach().numpy(), w.grad.numpy()))
    np.testing.assert_array_equal(got[0][0], got[1][0])
    np.testing.assert_array_equal(got[0][1], got[1][1])


def test_arguments_that_are_changed():
    @dg.function
    def f(rows, table, x):
        rows[0].append(x)
        rows.append([table["n"]])
        table["n"] += 1
        table["y"] = x * table["n"]
        return x

    x = dg.tensor([1.0, 2.0])
    rows, table = [[]], {"n": 0}
    first = rows[0]
    for _ in range(2):
        f(rows, table, x)
    assert rows[0] is first
    assert len(first) == 2
    assert rows[1:] == [[0], [1]]
    assert table["n"] == 2
    np.testing.assert_array_equal(table["y"].numpy(), [2.0, 4.0])


def test_print_comes_at_every_call_in_order():
    lines = []

    @dg.function
    def f(x):
        dg.print("{} of {:.1f}", x * 2, x.sum(), to=lines.append)
        if x.sum() > 0:
            dg.print("positive", to=lines.append)
        return x

    for x in ([1.0, 2.0], [-1.0, -2.0], [3.0, 4.0]):
        f(dg.tensor(x))
    assert lines == ["[2. 4.] of 3.0", "positive", "[-2. -4.] of -3.0", "[6. 8.] of 7.0", "positive"]


@pytest.mark.parametrize("text", ["{} {}", "{:q}", "{:d}", "{1:.2f}", "{name}", "{0.colour}", "x", "{}"])
def test_a_text_that_does_not_fit_says_so_in_both_modes(text):
    said = []
    for mode in ("eager", "graph"):
        with pytest.raises(
            dg.errors.ArgumentError, match=r"\[print\] .* does not fit float32\[\], m=float32"
        ) as e:
            dg.function(lambda x: dg.print(text, x.sum(), m=x), mode=mode)(dg.ones(2))
        assert "test_graph_constructs.py:" in str(e.value)
        said.append(str(e.value))
    assert said[0] == said[1]


def test_print_takes_values_by_name():
    lines = []

    @dg.function
    def f(x):
        dg.print(
            "{n}: {} {total:.2f} {rows[0]} {x!r}", 3, n="f", total=x.sum(), rows=[x[0]], x=x, to=lines.append
        )

    for mode in ("eager", "graph", "graph"):
        with dg.mode(mode):
            f(dg.ones(2))
    assert lines == ["f: 3 2.00 1.0 array([1., 1.], dtype=float32)"] * 3


def test_recursion_without_end_names_the_line():
    def down(x):
        return down(x + 1)

    with pytest.raises(dg.errors.EndlessRecursionError, match="calls itself") as e:
        dg.function(lambda x: down(x))(dg.tensor([1.0]))
    assert __file__ in e.value.line
    assert dg.function(lambda x: x + 1)(dg.tensor([1.0])).item() == 2.0


def test_page_lists_every_row():
    page = PAGE.read_text()
    for name, row in ROWS.items():
        line = next(text for text in page.splitlines() if f"(`{name}`)" in text)
        assert row.__doc__ in line.replace("\\|", "|")
        assert line.split(" | ")[1] == ("error: TraceError" if name in REFUSED else "right")
