"""What a function says, by `print` and logging, is said at every call, as without compiling."""

import contextlib
import io
import logging
import pdb
import pprint
import sys
import threading

import duograd as dg
import pytest


def in_both_modes(build, calls, capsys):
    """What is printed, call by call, and what comes back. build: makes the function."""
    told = []
    for mode in ("eager", "graph"):
        f = dg.function(build(), mode=mode)
        rows = []
        for args in calls:
            try:
                rows.append(repr(f(*args)))
            except ValueError as e:
                rows.append(str(e).splitlines()[0])
            rows.append(capsys.readouterr().out)
        told.append(rows)
    assert told[0] == told[1]
    return f, told[0]


def test_python_values_are_printed_at_every_call(capsys):
    def build():
        config = {"sizes": [1, 2]}
        turn = [0]

        def f(x, name):
            print("calling", name, tuple(x.shape), sep="|")
            sys.stdout.write("and ")
            pprint.pprint(config)
            print(turn, end="\n", flush=True)
            turn[0] = 1 - turn[0]
            config["sizes"][1] = turn[0]
            return x * len(config["sizes"])

        return f

    x = dg.ones(2)
    _, told = in_both_modes(build, [(x, "a"), (x, "a"), (x, "b"), (x, "a"), (dg.ones(3), "a")], capsys)
    assert told[3] == "calling|a|(2,)\nand {'sizes': [1, 1]}\n[1]\n"


def test_a_print_of_constants_needs_no_second_trace(capsys):
    @dg.function
    def f(x):
        print("shape", x.shape)
        return x + 1

    for _ in range(3):
        f(dg.ones(2))
    assert capsys.readouterr().out == "shape (2,)\n" * 3
    assert len(f.variants) == 1
    assert f.warmup(dg.TensorSpec((4,)))
    assert capsys.readouterr().out == ""
    f(dg.ones(4))
    assert capsys.readouterr().out == "shape (4,)\n"


def test_values_and_branches_keep_the_order_of_lines(capsys):
    def build():
        def f(x):
            print("first", end=" ")
            dg.print("then {}", x.sum())
            print(x, f"{x.mean():.2f}")
            if x.sum() > 2:
                print("big")
            return x * 2

        return f

    rows = [(dg.ones(2) * k,) for k in (1, 1, 2, 0, 2, 1)]
    in_both_modes(build, rows, capsys)


def test_what_was_printed_before_an_error(capsys):
    def build():
        def f(x, i):
            print("before")
            if x.sum() > 2:
                raise ValueError("too large")
            y = x[i]
            print("after")
            return y

        return f

    x = dg.ones(2)
    calls = [(x, dg.tensor(0)), (x * 5, dg.tensor(0)), (x, dg.tensor(1)), (x * 5, dg.tensor(1))]
    in_both_modes(build, calls, capsys)


def test_what_is_redirected_inside_and_outside(capsys):
    @dg.function
    def f(x):
        inside = io.StringIO()
        with contextlib.redirect_stdout(inside):
            print("in", x.shape)
        print("out")
        return x, inside.getvalue()

    for _ in range(3):
        with contextlib.redirect_stdout(io.StringIO()) as outside:
            assert f(dg.ones(2))[1] == "in (2,)\n"
        assert outside.getvalue() == "out\n"
    assert capsys.readouterr().out == ""


def test_a_training_step_prints_as_ever(capsys):
    class Net(dg.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = dg.nn.Linear(3, 1)

        def forward(self, x):
            print("forward", x.shape)
            return self.layer(x)

    model = Net()
    optimizer = dg.optim.SGD(model.parameters(), lr=0.1)
    model.layer.weight.register_hook(lambda g: print("hook"))

    @dg.function
    def step(x):
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        print("done")
        return loss

    for _ in range(3):
        step(dg.ones((2, 3)))
    assert capsys.readouterr().out == "forward (2, 3)\nhook\ndone\n" * 3


def test_a_function_in_eager_mode_inside_prints_once(capsys):
    inner = dg.function(lambda x: (print("inner"), x * 2)[1], mode="eager")

    def build():
        def f(x):
            print("a")
            y = inner(x)
            print("b")
            return y

        return f

    in_both_modes(build, [(dg.ones(1),)] * 3, capsys)


def test_loggers_get_a_record_at_every_call():
    text = io.StringIO()
    logger = logging.getLogger("duograd.tests.spoken")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(text))
    times = []
    logger.addFilter(lambda record: times.append(record.created) or True)
    logger.setLevel(logging.INFO)

    @dg.function
    def f(x):
        logger.info("shape %s", x.shape)
        logger.debug("never")
        try:
            raise KeyError("k")
        except KeyError:
            logger.exception("caught")
        return x * 2

    for _ in range(3):
        text.truncate(0)
        text.seek(0)
        f(dg.ones(2))
        lines = text.getvalue().splitlines()
        assert (lines[0], lines[1], lines[-1]) == ("shape (2,)", "caught", "KeyError: 'k'")
    assert len(f.variants) == 1
    assert times == sorted(times)
    logger.setLevel(logging.ERROR)
    text.truncate(0)
    f(dg.ones(2))
    assert "shape" not in text.getvalue()


def test_other_threads_print_at_once_meanwhile(capsys):
    heard = []

    @dg.function
    def f(x):
        other = threading.Thread(target=print, args=("from the other",))
        other.start()
        other.join()
        heard.append(capsys.readouterr().out)
        print("mine")
        return x

    stdout = sys.stdout
    f(dg.ones(2))
    assert heard == ["from the other\n"]
    assert capsys.readouterr().out == "mine\n"
    assert sys.stdout is stdout


def test_a_debugger_stops_at_the_users_lines_and_is_heard(monkeypatch, capsys):
    first = "n\n" if sys.version_info >= (3, 13) else ""  # from there on it stops at the breakpoint itself
    monkeypatch.setattr("sys.stdin", io.StringIO(first + "p x.shape\nn\np y.shape\nc\n"))

    def begin():
        pdb.Pdb(nosigint=True, readrc=False).set_trace(sys._getframe(1))

    monkeypatch.setattr(sys, "breakpointhook", begin)

    @dg.function
    def f(x):
        print("before")
        breakpoint()
        y = x[0]
        print("af" + "ter")
        return y

    tracer = sys.gettrace()
    f(dg.ones((3, 2)))
    sys.settrace(tracer)
    words = "before", "y = x[0]", "(3, 2)", "print", "(2,)", "after"
    out = capsys.readouterr().out
    assert sorted(words, key=out.index) == list(words)
    assert "opcode" not in out
    monkeypatch.setattr(sys, "breakpointhook", lambda: None)
    f(dg.ones((3, 2)))
    assert len(f.variants) == 2  # what it read then was not seen


@pytest.mark.parametrize("compile", ["call", "background"])
def test_the_first_calls_print_once(capsys, compile):
    @dg.function(compile=compile)
    def f(x):
        print("once")
        return x * 2

    for _ in range(3):
        f(dg.ones(2))
        f.wait()
        assert capsys.readouterr().out == "once\n"
