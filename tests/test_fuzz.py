"""The two modes on random programs: a slice of the fuzzer's seeds, and the programs in which it found a difference."""

import random

import duograd as dg
import numpy as np
import pytest
from duograd.bench.fuzz import Given, Program, Step, judge
from duograd.bench.fuzz.build import draw, temper_of
from duograd.bench.fuzz.judge import first_difference, run, unlike, words
from duograd.bench.fuzz.shrink import shrink
from duograd.bench.fuzz.tempers import LATER, SINCE
from duograd.bench.fuzz.world import needed
from duograd.core import hot
from duograd.graph import entry, growing
from duograd.graph.changing import Changing

#: the default seeds that run here, among them programs of all that `LATER` has; `python -m duograd.bench.fuzz` runs any
SEEDS = range(14_600_031, 14_600_051)


def program(body, *inputs, returns="y", sizes=({}, {}), outside=False):
    """A program of one step; inputs: Given, or their dims."""
    made = tuple(
        x._replace(name=f"x{k}") if isinstance(x, Given) else Given(f"x{k}", x) for k, x in enumerate(inputs)
    )
    state = (Given("w", (3,), grad=True), Given("b", (2,)))
    return Program(1, made, state, (Step(body),), tuple(returns.split(", ")), tuple(sizes), outside)


def leaf(*dims, **options):
    return Given("", dims, grad=True, **options)


#: what the modes once did not agree on
FOUND = {
    "a view of an argument is returned": program("y = x0[1:]", (4, 3)),
    "an argument without history is returned": program("y = x0.detach()", leaf(3), outside=True),
    "results share memory": program("y = x0 * 2\nz = y.mT", (3, 2), returns="y, z"),
    "two views of one result": program("z = x0 * 2\ny = z[0]\nv = z[:, 1:]", leaf(3, 2), returns="y, v", outside=True),
    "an alias is written": program("d = x0.detach()\nd += 1\ny = x0 * 2", (2, 3)),
    "an alias of a view is written": program("z = x0 * 2\nd = z[1:].detach()\nd *= 3\ny = z + 0", (2, 3)),
    "reshape copies what is strided": program("y = x0.mT.reshape(-1)\ny += 5\nz = x0 * 1", (2, 3), returns="y, z"),
    "the gradient of a transposed argument": program("y = 1 / x0", leaf(2, 3, layout="transposed"), outside=True),
    "a changed argument gets history": program("x0 += m.w * 2\ny = x0[0]", (3,), outside=True),
    "a view of a leaf is changed": program("x0[0] = 1\ny = x0 * 2", leaf(3)),
    "a leaf that is a view is changed": program("x0[...] = 1\ny = x0 * 2", leaf(3, layout="shifted")),
    "an index is outside": program("x1 += 1\ny = dg.take(x0, x1, axis=0)", (3, 2), Given("", (2,), "int64", 0, 9)),
    "all indices are outside": program("y = dg.take(x0, x1, axis=0)", (2, 3), Given("", (2,), "int64", values=(2, 3))),
    "indices are outside on both sides": program(
        "y = dg.take(x0, x1, axis=0)", (2, 3), Given("", (2,), "int64", values=(2, -3))
    ),
    "an index is outside before a branch": program(
        "y = x0[x1]\nif y.sum() > 0:\n    y = y * 2", (3, 2), Given("", (2,), "int64", 0, 9)
    ),
    "an index is outside before another error": program(
        "y = x0[x1]\nz = y.reshape(5, 7)", (3, 2), Given("", (2,), "int64", 0, 9)
    ),
    "an error comes before a try in which an index is outside": program(
        "v = dg.cholesky(x0)\ntry:\n    y = dg.take(x0, (m.b * 0 + 50).to(dg.int64), axis=0)\n"
        "except Exception:\n    y = x0 - 2", Given("", (2, 2), values=(-1.0,) * 4)
    ),
    "an error comes before a try in which a value decides": program(
        "v = dg.cholesky(x0)\ntry:\n    y = x0 * 2 if x0.sum() > 0 else x0 * 3\nexcept:\n    y = x0 - 2",
        Given("", (2, 2), values=(-1.0,) * 4),
    ),
    "a saved tensor is changed in the call and after it": program(
        "v = dg.logsumexp(x0, axis=-1)\ny, w = dg.tensor_split(v, 2, 0)\nz = y * 2\nv /= 2", leaf(1, 1),
        returns="y, z", outside=True,
    )._replace(between="out[0].detach().mul_(2)"),
    "an error comes after changes": program("m.b += 1\nx0 *= 2\ny = dg.rand((2,)) + x0", (3,)),
    "a matrix is refused": program("x0 -= 100\ny = dg.cholesky(x0)", (2, 2)),
    "one part of a split": program("y, z = x0.chunk(2, 1)", ("A", "B"), sizes=({"A": 2, "B": 4}, {"A": 2, "B": 1})),
    "a saved result is changed": program("y = dg.exp(x0)\nz = y * 2\ny += 1", leaf(3), returns="z", outside=True),
    "a repeated result is changed": program("y = x0.round().expand(2, 3)", (3,), outside=True)._replace(
        between="out[0].detach().mul_(2)"
    ),
    "windows of a result are changed": program(
        "y = dg.sliding_window(dg.celu(x0), size=3)", (2, 4), outside=True
    )._replace(between="out[0].detach().mul_(2)"),
    "an argument's dict gets what has a history, and a loop is walked": program(
        "x1['n'] = x0 * 2\ny = dg.scan(lambda c, _: (c * m.w[1], None), x0, length=3)[0]",
        leaf(2), Given("", (), "dict", values=("x0",)), outside=True,
    ),
    "the tape is used up": program("y = (x0 * x0).sum()\ny.backward()", leaf(3), outside=True),
    "the tape behind the argument of a derivative is used up": program(
        "z = x0.sum() + m.w if m.last is None else x0.sum() + m.last.sum()\nm.last = z * 0.5\n"
        "_, y = dg.jvp(lambda t: t * t, (z,), (z * 0 + 1,))",
        (2,), outside=True,
    ),
    "a changed result is changed once more": program(
        "y = dg.zeros((3, 2)) + 1\ny[1:] += y[:-1]\nz = y * 1\nz[dg.tensor([0, -1])] = 3", (1,), returns="y, z"
    ),
    "a changed argument is changed once more": program(
        "x0[1:] += 1\nz = x0 * 1\nz[dg.tensor([0, -1])] = 3", (3, 2), returns="z"
    ),
    "one list in two places, where eager mode failed": program(
        "m.log.insert(0, 1)\nm.log = m.rows[0]\nif m.count and not m.log:\n    raise ValueError\nm.log.clear()\n"
        "m.log = []\nm.count += 1\ny = x0 * 2", (1,), sizes=({},) * 3,
    ),
    "a tensor of state is changed where it lies, and a gradient runs the function again": program(
        "m.last = dg.scan(lambda c, t: (c + t, c), x0[0], x0)[1]\nm.b += 1\ny = x0 * 2", leaf(2, 2), outside=True
    ),
    "an object is changed and replaced by a call that fails": program(
        "m.box.n += 1\nm.box = Box(2)\nm.w.sum().backward()\ny = x0 * 2", (1,)
    )._replace(quiet=(0, 1)),
    "an object is changed and replaced, and Python runs": program(
        "m.box.n += 1\ny = x0 * m.box.n\nm.box = Box(2)\nz = m.host(y)", (1,), returns="y, z"
    ),
    "a dict is changed and replaced, and Python runs": program(
        "m.table['b'] += 1\ny = x0 * m.table['b']\nm.table = {'b': 3}\nz = m.host(y)", (1,), returns="y, z"
    ),
    "a tuple in place of a tensor": program("y = dg.layer_norm(x0, (3,))", (2, 3)),
    "a tensor in place of an axis": program("y = dg.concat(x0, x1)", (2, 3), (2, 4)),
    "a strided view without elements": program("y = x0[:, -1]", Given("", (0, 7, 7), layout="backwards")),
    "the way back reads a view of a weight": program("y = dg.linear(x0 * 2, x1)", leaf(16), (16, 16), outside=True),
    "a repeated element is changed": program("x0[0] = 2\ny = x0 * 1", Given("", (2, 2), layout="expanded")),
    "a sliding window is changed": program("y = x0.unfold(0, 2, 1)\ny += 1", (4,)),
    "a list is appended to and its length read": program(
        "m.log.append(x0.sum())\nif len(m.log) < 2:\n    m.log.append(m.count)\ny = x0 + len(m.log)",
        (4,),
        sizes=[{}] * 4,
    ),
    "a view of a repeated element is changed": program(
        "y = x0.reshape(-1)\ny[0] = 2", Given("", (4,), layout="expanded")
    ),
    "state is replaced by an equal list": program("m.log.insert(0, x0)\nm.log = m.log[-2:]\ny = x0 * 2", (3,)),
    "what a failed call replaced comes back": program(
        "m.last = x0 * 2\ny = m.last * 1\nm.count += 1\nif m.count > 1:\n    raise ValueError", (3,), sizes=[{}] * 3
    ),
    "what is kept has another gradient than the result": program(
        "m.log.append(x0 * 2)\ny = x1 * 3", leaf(3), leaf(3), outside=True
    ),
    "a checkpoint's argument is changed and no gradient asked for": program(
        "z = -x0\ny = dg.checkpoint(lambda t: dg.gelu(t) * t, z)\nz.add_(x0)", leaf(1)
    ),
    "a call fails while its kernels are being compiled": program(
        "m.log.append(2)\nwhile x0.sum() > 1 and m.count < 3:\n    m.count += 1\n(m.w * m.w).sum().backward()\n"
        "y = x0 * 1",
        (1,),
    )._replace(background=True, quiet=(0,)),
    "a result has a history under no_grad": program(
        "with dg.enable_grad():\n    m.last = (m.w * x0).sum()\ny = m.last * 2", (3,), outside=True
    )._replace(quiet=(0, 1)),
    "joined slices are added up": program(
        "x0.add_(x0)\ny = dg.roll(x0, 1, -1)", leaf(2, past=True), outside=True
    ),
    "a loop reads a parameter that was changed before": program(
        "with dg.no_grad():\n    m.w -= 0.1\n"
        "y = dg.scan(lambda c, _: (c * 0.9 + m.w[1], None), x0, length=3)[0]", (3,), outside=True
    ),
    "a branch reads a parameter that was changed before": program(
        "with dg.no_grad():\n    m.w -= 0.1\ny = dg.cond(x0[0] > 0, lambda t: t * m.w, lambda t: t - m.w, x0)",
        (3,), outside=True,
    ),
    "what the function replaced is read again for the gradient": program(
        "v = dg.grad(lambda t: dg.cond(t.sum() > 0, lambda s: (s * s).sum(), lambda s: s.sin().sum(), t))(x0)\n"
        "m.pair = replace(m.pair, n=m.pair.n + 1)\ny = x0 * m.pair.n",
        leaf(3), returns="v, y", outside=True,
    ),
    "an alias of state is written": program(
        "r = m.row.detach()\nr += x0\ny = m.row + 1\nm.b.detach().zero_()\nz = m.b + 1", (2,), returns="y, z"
    ),
    "lines are printed once while later segments are compiled": program(
        "dg.print('before', to=m.printed.append)\ny = x0 * 2 if x0.sum() > 0 else -x0\n"
        "dg.print('after', to=m.printed.append)\nif y.sum() > 12:\n    y = y * 3", Given("", (3,), low=0.1, high=4),
        sizes=[{}] * 6,
    )._replace(background=True),
    "a call that is left to Python fails": program(
        "y = m.host(x0).detach().requires_grad_()\n(y * y).sum().backward()", (2,)
    )._replace(quiet=(0, 1)),
    "a list that a failing call changes is another argument afterwards": program(
        "x1.append(1)\ny = m.host(x0)\ndel m.log[0]", (1,),
        Given("", (), "list", values=("m.log", "[]", "m.rows[0]")), sizes=({},) * 3,
    ),
    "what does not fit into a view": program("x0 *= 1e-3\ny = x0", Given("", (2, 2), "uint8", layout="transposed")),
    "lines before and after a value, where state is changed": program(
        "m.b += 1\ndg.print('{}', m.b.sum(), to=m.printed.append)\ny = x0 * 2 if dg.isfinite(x0).all() else x0\n"
        "dg.print('{}', y.sum(), to=m.printed.append)", (2,), sizes=[{}] * 4,
    ),
    "the gradient of an alias": program("x0.sum().backward()\ny = x0.detach().grad is None", leaf(3)),
    "a constant is changed": program("y = dg.tensor([1.0, m.scale, 4])\ny[1:] = y[:-1].clone()\ny += x0", (3,)),
    "a constant is returned, and changed outside": program("y = dg.tensor([1.0, 2.0])", (3,), outside=True)._replace(
        between="out[0].mul_(2)"
    ),
    "a repeated index is read at a shift": program(
        "y = dg.tile(dg.meshgrid(dg.arange(3), dg.arange(2))[0], (2,))\ny[1:] += y[:-1]", (2,)
    ),
    "a pattern of a tuple made on the way": program(
        "match (m.count % 3, x0):\n    case (0, t):\n        y = t + 1\n    case (k, t):\n        y = t * k\n"
        "m.count += 1",
        (3,), sizes=({},) * 4,
    ),
    "complex infinity times one": program("y = x0 * 1", Given("", (2,), "complex64", values=(complex(np.inf, 2), -0j))),
    "nothing in place of a tensor": program("y = dg.argmax(None, axis=0)", (2,)),
    "a result is changed before its gradient": program("y = dg.relu(x0)", leaf(1, 1), outside=True)._replace(
        between="out[0].detach().mul_(2)"
    ),
    "the gradient to a result itself, of a call whose argument has a history": program(
        "y = x0 / 2", leaf(3, past=True)
    )._replace(walks=("taken = dg.autograd.grad(total(pick(out, 0)), pick(out, 0))",)),
    "the gradient to a result that the other one does not lead to": program(
        "y = x0.exp()\nz = x0.sin()", leaf(3), returns="y, z"
    )._replace(walks=(
        "out[0].register_hook(noted(m))",
        "taken = dg.autograd.grad(total(out[0]), out[1], retain_graph=True, allow_unused=True)",
        "taken = dg.autograd.grad(total(out[0] * 2), [out[1], x0], allow_unused=True)",
    )),
    "the gradient to a changed argument": program("x0[0] = 2\ny = x0 * 2", leaf(3, past=True))._replace(
        walks=("taken = dg.autograd.grad(total(out[0]), leaves(x0, x0_leaf, m.w), allow_unused=True)",)
    ),
    "the gradient to a result whose own tape has been used up": program(
        "y = 1 % x0\nz = -y", leaf(3), returns="y, z"
    )._replace(walks=("total(out[0]).backward()", "taken = dg.autograd.grad(total(out[1]), out[0])")),
    "the gradient of what was changed after it was needed": program(
        "y = x0 - x0.mean()\ny **= 2", leaf(3)
    )._replace(walks=("taken = dg.autograd.grad(total(out[0]), leaves(x0, m.w), allow_unused=True)",)),
    "a result with a hook of the function's own and one of the caller's": program(
        "y = x0 * 2\ny.register_hook(lambda g: g * 3)\nz = y * -0.25", leaf(3), returns="y, z"
    )._replace(walks=(
        "out[0].register_hook(lambda g: g * 0.5)",
        "dg.autograd.backward([total(out[0]), total(out[1])], retain_graph=True)",
        "out[0].register_hook(noted(m))()",
        "dg.autograd.backward([total(out[0]), total(out[1])])",
    )),
    "the gradient to the other result of one op": program(
        "y, z = x0.split([1, 2], 0)", leaf(3), returns="y, z"
    )._replace(
        walks=(
            "out[0].register_hook(noted(m))",
            "taken = dg.autograd.grad(total(out[0]), out[1], retain_graph=True, allow_unused=True)",
        )
    ),
    "no gradient to an argument whose values alone the function takes": program(
        "v = x0.detach().requires_grad_()\n(v * v).sum().backward()\ny = dg.tanh(v)", leaf(3)
    )._replace(walks=(
        "taken = dg.autograd.grad(total(out[0]), [out[0], x0], allow_unused=True)", "total(out[0]).backward()",
    )),
    "a way back that ends inside of the function is used up": program(
        "v = x0.detach().requires_grad_()\n(v * v).sum().backward()\ny = v.sin()\nz = y * 2\nv = m.w * 1", leaf(3),
        returns="y, z, v",
    )._replace(walks=("total(out[0]).backward()", "total(out[1]).backward()")),
    "a hook of the function's own runs before the caller's, and before the gradient to the result": program(
        "y = x0 * 2\ny.register_hook(lambda g: g * 3)", leaf(3)
    )._replace(walks=(
        "taken = dg.autograd.grad(total(out[0]), [out[0], x0], retain_graph=True)",
        "out[0].register_hook(lambda g: m.log.append(g.sum().item()))", "total(out[0]).backward()",
    )),
    "a view of what cannot be walked, by the quick way in": program(
        "v = x0 * m.w[0]\nx0 /= 2\ny = v[::-1]", (2,), sizes=({},) * 6, outside=True
    ),
    "the gradient to what did not lead to what was changed": program(
        "y = x0 - x0.mean()\ny **= 2", leaf(3)
    )._replace(walks=("taken = dg.autograd.grad(total(out[0]), m.w, allow_unused=True)",)),
    "a gradient through a call of a graph": program(
        "y = dg.grad(lambda t: dg.function(lambda t: t + 1)(t).sum())(x0)", (2, 3)
    ),
    "gradients of what is turned, asked for outside": program(
        "y = x0.mT + 1", leaf(2, 3)
    )._replace(walks=("taken = dg.autograd.grad(total(out[0]), leaves(x0))",)),
    "a rule that has no gradient for these sizes, which nobody asks for": program(
        "y = dg.linalg.svd(x0)[1] * 2", leaf(2, 3)
    ),
    "a rule that has no gradient for these sizes": program("y = dg.linalg.svd(x0)[1] * 2", leaf(2, 3), outside=True),
    "a hook on what has a history once a view of the argument in state is changed": program(
        "m.last[...] = m.last * m.w[0]\nv = x0 * 2\nv.register_hook(noted(m))\ny = v.sin()",
        Given("", (1, 1), then=("m.last = {x}[0]",)),
    ),
    "a gradient is changed through an alias": program(
        "x0.grad = None\n(x0 * x0).sum().backward(retain_graph=True)\nv = x0.grad.detach()\nv += 1",
        leaf(1, 1), returns="v",
    ),
    "a gradient is a result in another shape": program(
        "x0.grad = None\n(x0 * x0).sum().backward()\ny = x0.grad[1:]", leaf(3)
    )._replace(between="out[0].detach().mul_(2)"),
    "the gradient of one of two results, of a part whose size is a live number": program(
        "v = (x0 * m.w)[m.count:]\nm.count += 1\ny = v.sum()\nz = m.layer(v[..., :2])", (9, 3), returns="y, z",
        sizes=({},) * 8, outside=True,
    )._replace(part=(1,)),
    "a repeated gradient of a part whose size is a live number": program(
        "y = x0[m.count:] * 2\nm.count += 1", leaf(9), sizes=({},) * 8
    )._replace(walks=("out[0].sum().backward()",)),
    "hooks on the way to what was changed in place, after a change of the argument": program(
        "y = dg.linalg.svd(x0)[1]\ny.register_hook(noted(m, 2.0))\ny -= y", leaf(2, 2), outside=True
    )._replace(between="x0.detach()[...] = 0.5"),
    **{
        f"the result of a checkpoint of {name} is changed": program(
            f"z = x0 * 2\ny = dg.checkpoint(lambda t: {text}, z)\ny[y > 0] = 0", leaf(3), returns="z, y",
            sizes=({},) * 12, outside=True,
        )._replace(part=(1,))
        for name, text in (("exp", "dg.exp(t)"), ("dropout", "dg.nn.functional.dropout(t * t, 0.5)"))
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_the_modes_agree_where_they_once_did_not(name):
    assert judge(FOUND[name]) is None


@pytest.mark.parametrize("first", SEEDS[::10])
def test_the_modes_agree_on_random_programs(first):
    for seed in range(first, first + 10):
        drawn = draw(seed)
        assert judge(drawn) is None, str(drawn)


@pytest.mark.parametrize("first", [0, 10])
def test_the_modes_agree_on_random_programs_of_any_size(first):
    for seed in range(first, first + 10):
        drawn = draw(seed, "early")
        assert judge(drawn) is None, str(drawn)


def test_the_modes_agree_on_random_programs_with_objects_of_their_own():
    for seed in range(15):
        drawn = draw(seed, "objects")
        assert judge(drawn) is None, str(drawn)
    assert any(draw(seed, "objects").changes for seed in range(15))


def test_programs_with_objects_of_their_own_are_found_unlike_and_run_as_a_file():
    drawn = program("m.obj = Base(m.count)\ny = x0 * m.obj.n", (3,))._replace(changes=("Base.rate = 2",))
    drawn = drawn._replace(definitions=needed(drawn.function(), *drawn.changes))
    assert judge(drawn) is None
    exec(compile(str(drawn), "/fuzz/alone.py", "exec", dont_inherit=True), {"__name__": "alone"})
    seen = [*run(drawn, "eager")]
    assert (seen[0]["global Common.rate"], seen[1]["global Base.rate"]) == (("float", "0.5"), ("int", "2"))
    other = [*run(drawn._replace(changes=("Base.rate = 2.0",)), "eager")]
    assert [first_difference(a, b) is None for a, b in zip(seen, other)] == [True, False]


def test_early_programs_have_graphs_for_any_size_and_leave_the_thresholds_as_they_were(monkeypatch):
    before = growing.SEEN, entry.CALLS, hot.CALLS
    programs, entries, make_entry = [], [], entry.make_entry
    learn = Changing.learn
    monkeypatch.setattr(Changing, "learn", lambda *a: programs.append(a[1]) or learn(*a))
    monkeypatch.setattr(entry, "make_entry", lambda *a: entries.append(make_entry(*a)) or entries[-1])
    early = program("y = x0 * 2 + 1", ("A", 3), sizes=[{"A": n} for n in (3, 5, 4, 1, 0, 6, 5)])._replace(
        early=True
    )
    assert judge(early) is None
    assert [p is not None and p.sized for p in programs][:2] == [False, True]
    assert any(entries)
    assert before == (growing.SEEN, entry.CALLS, hot.CALLS)
    assert "set_thresholds()" in str(early)


def test_seeds_from_before_a_temper_are_the_programs_that_they_were():
    first = min(SINCE.values())
    before, now = (
        {temper_of(random.Random(s), s) for s in row} for row in (range(first - 999, first), SEEDS)
    )
    assert before.isdisjoint(LATER)
    assert now >= LATER.keys() == SINCE.keys()


def test_a_program_is_its_seed():
    assert draw(7) == draw(7)
    assert str(draw(7)) != str(draw(8))


def test_a_printed_program_runs_alone(capsys):
    exec(
        compile(str(program("y = x0 * m.scale", leaf(2), outside=True)), "printed.py", "exec"),
        {"__name__": "printed"},
    )
    lines = capsys.readouterr().out.splitlines()
    assert (
        sum(line.startswith("eager") for line in lines) == sum(line.startswith("graph") for line in lines) > 0
    )


def test_a_wrong_kernel_is_found_and_shrunk(monkeypatch):
    """With tanh replaced by sin in graphs, the fuzzer finds it and leaves the one step."""
    from duograd.graph import segment

    original = segment.compile_graph

    def broken(graph, device):
        for node in graph.nodes:
            if node.op.name == "tanh":
                node.op = dg._REGISTRY["sin"]
        return original(graph, device)

    monkeypatch.setattr(segment, "compile_graph", broken)
    steps = [
        Step(f"v{k} = {text}", (f"v{k}",))
        for k, text in enumerate(["x0 * 2", "x0 + 1", "dg.tanh(v1)", "v2 - v0"])
    ]
    wrong = program("", (3,), returns="v3")._replace(steps=tuple(steps))
    found = judge(wrong)
    assert found is not None
    assert found.kind == "value"
    small = shrink(wrong, judge)
    assert len(small.steps) <= 2
    assert "tanh" in small.function()


def test_a_part_of_what_has_no_axis_is_drawn_plainly():
    assert draw(11811436).inputs


def test_equal_means_bit_for_bit():
    x = np.array([0.0, np.nan, 1.0], np.float32)
    assert unlike(x, x.copy()) is None
    assert unlike(x, np.array([-0.0, np.nan, 1.0], np.float32)) is not None
    assert unlike(x, np.nextafter(x, np.float32(2))) is not None
    assert unlike(x, x.astype(np.float64)) is not None
    assert unlike(np.array([1 + 1j]), np.array([1 - 1j])) is not None


def test_where_there_is_no_room_both_modes_say_so_at_the_same_line():
    said = []
    for mode in ("eager", "graph"):
        f = dg.function(lambda x: dg.zeros((1 << 45, 2)) + x, mode=mode)
        with pytest.raises(dg.errors.OutOfMemoryError) as e:
            f(dg.ones(2))
        said.append(words(e.value))
    assert said[0] == said[1]


def test_what_nobody_reads_needs_no_room_in_a_graph():
    unread = program("z = dg.arange(1 << 40)\ny = x0 * 2", (2,))
    assert judge(unread) is None
    assert "error" in next(run(unread, "eager"))
    assert "error" not in next(run(unread, "graph"))
    assert judge(program("y = dg.arange(1 << 40) + x0[0]", (2,))) is None
