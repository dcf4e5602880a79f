"""Drawing a random program: the first call is run while it is made, so that steps mostly fit."""

from __future__ import annotations

import random
from typing import Any

import duograd as dg
import numpy as np

from ...core.op import REGISTRY
from . import views
from .caches import CACHES, cleared
from .early import EARLY
from .effects import branch
from .iterators import ITERATORS, changed_since
from .judge import run
from .live import PACKS
from .numbers import CHANGING
from .objects import OBJECTS, changes
from .program import LAYOUTS, NAMES, Given, Program, State, Step
from .settings import SET
from .sized import sized
from .steps import FLOATS, INTEGERS, Hand, call_sample
from .tempers import APART, LATER, SINCE, TEMPERS
from .together import apart, is_apart
from .walks import draw_again, draw_walks
from .world import DEFINITIONS, define, needed

SIZES = (1, 2, 3, 4, 5, 7)
LARGE = (16, 17, 33, 65, 130)
#: inputs that are, or share memory with, the first input or state
SHARED = (
    "of x0",
    "view of x0",
    "part of x0",
    "tracked of x0",
    "tracked part of x0",
    "of m.b",
    "of m.w",
    "of m.row",
    "view of m.grid",
    "part of m.grid",
)
#: what may happen between a call and the gradient through its results
BETWEEN = (
    "m.b += 1", "m.scale = 3.0", "m.count += 1", "m.log.append(7)", "m.rows = [[1], [2]]", "dg.rand((2,))",
    "with dg.no_grad():\n    m.w *= 2", "with dg.no_grad():\n    m.layer.weight += 1", "m.layer.zero_grad()",
    "if isinstance(out[0], dg.Tensor) and out[0].dtype.is_float:\n    out[0].detach().mul_(2)",
)  # fmt: skip
#: sizes of one axis from call to call
COUNTS = ((1, 2, 3, 4, 5, 6), (4, 4, 3, 4, 4, 1), (0, 3, 0, 3), (2, 2, 2, 1, 1, 2), (5, 3, 1, 0, 5, 5), (1, 1, 7, 1),
          (3, 3, 3, 16, 3, 33), (8, 8, 5, 8, 8, 5), (2, 65, 2, 2), (1, 0, 1, 2))  # fmt: skip
#: tempers whose programs are judged in a way of their own
JUDGED = ("fast", "onnx")
#: tempers that take long, with the weight that the others have two of
SELDOM = {"fast": 1, "onnx": 1, "layers": 1}
#: tempers whose programs are called so many times at least
LONG = {"numbers": 6, "live numbers": 6, "flags": 4, "training": 4, OBJECTS: 5, CACHES: 5}
#: tempers whose programs have names of their own, and what changes these from outside
CHANGED = {OBJECTS: changes, CACHES: cleared}
#: the kinds of "early" programs, most of which have no history outside: such graphs are not for any size
SIZED = {
    "sizes": 5, "chain": 3, "shapes": 3, "ops": 1, "layers": 3, "transforms": 2, "loops": 2, "models": 3, "effects": 1,
    "live numbers": 2, "numbers": 1, "views": 1, "gradients": 2, "training": 2, "python": 1, "functions": 1,
}  # fmt: skip
#: calls that follow theirs; the sizes of these besides nothing, one, and those of other axes
MORE, MORE_SIZES = 7, (2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 16, 17, 24, 33)
WRONG = [(op, s) for op in REGISTRY.values() if not op.internal for s, _ in op.error_samples]
#: larger tensors than this are not worked on
ELEMENTS = 20_000


def temper_of(rng: random.Random, seed: int) -> str:
    """The temper of a seed's program where none is asked for, by the first number of `random.Random(seed)`."""
    known = [*TEMPERS, *(k for k in LATER if seed >= SINCE[k])]
    return rng.choices(known, [SELDOM.get(k, 2) for k in known])[0]


def draw(seed: int, temper: str | None = None) -> Program:
    """The program of a seed, of any temper or of this one."""
    rng = random.Random(seed)
    kind = temper_of(rng, seed)
    wide = temper is not None or kind in ("gradients", "own code", *LATER)
    early = temper == EARLY
    if early:
        temper = rng.choices(list(SIZED), list(SIZED.values()))[0]
    temper = temper or kind
    together = temper == ITERATORS and rng.random() < 0.2
    own = temper in CHANGED
    dtype = rng.choices(("float32", "float64", "float16", "bfloat16"), (70, 14, 8, 8))[0]
    hand = Hand(rng, dtype)
    sizes = _sizes(rng)
    calls = [sizes, sizes] if early else _calls(rng, sizes, temper)
    sizes = hand.sizes = calls[0]
    asking = 0.1 if early else {"gradients": 0.75, ITERATORS: 1.0}.get(temper, 0.4)
    inputs = _inputs(rng, hand, dtype, temper, asking)
    if together:
        inputs = [apart(x) for x in inputs if x.dtype != "list"]
    hand.space |= {**NAMES, "dg": dg, "np": np, "m": State()}
    dg.manual_seed(seed % 1000)
    if own:
        define(needed(*DEFINITIONS), hand.space)
    for x in (Given("w", (3,), "float32", grad=True), Given("b", (2,), "float32")):
        hand.keep(x)
    inputs = [_made(x, k, calls, hand.space) for k, x in enumerate(inputs)]
    for x in inputs:
        if x.is_tensor:
            hand.names.append(x.name)
    hand.new = list(inputs)
    steps: list[Step] = []
    if rng.random() < 0.06:
        op, sample = rng.choice(WRONG)
        step = call_sample(hand, op, sample)
        if step is not None:
            steps.append(step)
    makers = APART if together else {**TEMPERS, **LATER}[temper]
    if early:  # a value that decides is no part of a graph for any size
        makers = {make: n for make, n in makers.items() if make is not branch} | {
            sized: sum(makers.values()) // 2
        }
    length = rng.choices((1, 2, 3, 4, 5, 6, 8), (10, 20, 22, 20, 14, 10, 4))[0]
    tries = 0
    while len(steps) < length and tries < 40:
        tries += 1
        before = len(hand.new), len(hand.state)
        step = rng.choices(list(makers), list(makers.values()))[0](hand)
        if step is None or (together and not is_apart(f"{step.text}{hand.new[before[0] :]}")):
            _forget(hand, *before)
            continue
        error = _attempt(hand, step)
        if error and rng.random() > 0.04:
            _forget(hand, *before)
            continue
        steps.append(step)
        if error:
            break
    names = [n for s in steps for n in s.makes if isinstance(hand.space.get(n), dg.Tensor)]
    last = names[-1:] or hand.names[-1:]
    returns = list(dict.fromkeys([*rng.sample(names, min(len(names), rng.choice((0, 1, 2)))), *last])) or [
        "None"
    ]
    returns += [n for s in steps for n in s.makes if n[0] == "p"]
    if rng.random() < 0.1 and hand.names:
        returns.append(rng.choice(hand.names))
    used = _used(hand.new, steps, returns)
    part = rng.choice(((0, 1, 2), (0, 1, 2), (0,), (1,), (0, 2)))
    same = tuple(k for k in range(1, len(calls)) if calls[k] == calls[k - 1] and rng.random() < 0.7)
    same = same if rng.random() < (0.4 if temper in ("views", "flags") else 0.08) else ()
    quiet = tuple(k for k in range(len(calls)) if rng.random() < 0.3) if rng.random() < 0.1 else ()
    between = CHANGED[temper](hand) if own else ()
    text = "\n".join((*(s.text for s in steps), *between))
    state = tuple(x for x in hand.state if x.dtype != "made" or f"m.{x.name}" in text)
    if temper in JUDGED:
        plain = tuple(x._replace(special=False, layout="dense", seen="", then=()) for x in used)
        return Program(
            seed, plain, state, tuple(steps), tuple(dict.fromkeys(returns)), tuple(calls),
            temper == "fast" and rng.random() < 0.5, judged=temper,
        )  # fmt: skip
    if together:
        alone = Program(
            seed, used, (), tuple(steps), tuple(dict.fromkeys(returns)), tuple(calls), True, part, judged="threads",
            background=rng.random() < 0.1,
        )  # fmt: skip
        return alone if rng.random() < 0.5 else _called_more(rng, alone)._replace(early=True, quiet=())
    made = Program(
        seed, used, state, tuple(steps), tuple(dict.fromkeys(returns)), tuple(calls), rng.random() < 0.5, part,
        quiet, rng.random() < 0.05, _between(rng, used, temper), same=same, early=early,
    )  # fmt: skip
    if early:
        made = _called_more(rng, made)
    if own:
        made = made._replace(changes=between, definitions=needed(text, *(str(x.values) for x in made.state)))
    if rng.random() > (0.6 if wide else 0.2):
        return made
    more = [n for n in names if hand.space[n].dtype.is_float]
    if temper == ITERATORS:  # most of whose lines take a gradient that hangs on what changes before it
        more = [n for n in more if hand.space[n].requires_grad]
    returns = list(dict.fromkeys([*rng.sample(more, min(len(more), 2)), *made.returns]))
    walks = draw_again if temper == ITERATORS and rng.random() < 0.4 else draw_walks
    return made._replace(returns=tuple(returns), walks=walks(rng, made.inputs))


def _calls(rng: random.Random, sizes: dict[str, int], temper: str) -> list[dict[str, int]]:
    """The sizes of each call."""
    calls = [sizes, sizes]
    if temper == "sizes":  # one axis grows, shrinks, jumps, or is one or nothing
        name, steps = rng.choice("AB"), rng.choice(COUNTS)
        return [{**sizes, name: n} for n in steps]
    if rng.random() < 0.5:
        calls += [_sizes(rng), sizes]
        calls += [sizes, sizes] * (rng.random() < 0.3)
    elif rng.random() < 0.5:
        calls += [sizes] * rng.choice((1, 3, 3))  # the third call makes a quick way in
    calls += [rng.choice(calls) for _ in range(LONG.get(temper, 0) - len(calls))]
    if temper == "views" and rng.random() < 0.15:  # until composites are hot
        calls += [sizes] * 7
    return calls


def _called_more(rng: random.Random, p: Program) -> Program:
    """p with more calls: other sizes of one axis or several, mostly of such as may be any, and earlier ones."""
    used = sorted({d for x in p.inputs for d in x.dims if isinstance(d, str)})
    free = [n for n in used if _takes(p, n)] or used or ["A"]
    names = rng.sample(free, rng.randint(1, len(free))) if rng.random() < 0.9 else [rng.choice("ABC")]
    calls = [*p.sizes]
    for _ in range(MORE):
        sizes = dict(rng.choice(calls))
        if rng.random() < 0.8:
            for n in names:
                r = rng.random()
                sizes[n] = 0 if r < 0.05 else 1 if r < 0.15 else rng.choice(MORE_SIZES)
            if rng.random() < 0.15:  # as long as another axis, by chance
                sizes[names[0]] = sizes[rng.choice("ABC")]
        calls.append(sizes)
    quiet = range(len(calls)) if rng.random() < 0.3 else ()
    space = {**NAMES, "dg": dg, "np": np, "m": _set(p)}
    inputs = tuple([_made(x, k, calls, space) for k, x in enumerate(p.inputs)])
    return p._replace(sizes=tuple(calls), inputs=inputs, quiet=tuple(k for k in quiet if rng.random() < 0.9))


def _set(p: Program) -> State:
    """The state of a program before its first call."""
    m = State()
    for k, x in enumerate(p.state):
        setattr(m, x.name, eval(x.text({}, 7000 + k), {**NAMES, "dg": dg, "np": np}))
    return m


def _takes(p: Program, name: str) -> bool:
    """Whether another size of a named dim is no error in the second call."""
    sizes = {**p.sizes[0], name: p.sizes[0][name] + 3}
    alone = p._replace(sizes=(p.sizes[0], sizes), same=(), outside=False, between="", background=False)
    return not any("error" in facts for facts in run(alone, "eager"))


def _made(x: Given, number: int, calls: list[dict[str, int]], space: dict[str, Any]) -> Given:
    """An input, made in the space for the first call; plainer when lines of its own do not fit every call."""
    if x.seen or x.then:
        try:
            for sizes in calls:
                for line in x.lines(sizes, number):
                    exec(line, space)
        except Exception:
            x = x._replace(seen="", then=())
    try:
        for line in x.lines(calls[0], number):
            exec(line, space)
    except Exception:  # a part of what has no axis
        x = x._replace(layout="dense")
        for line in x.lines(calls[0], number):
            exec(line, space)
    return x


def _sizes(rng: random.Random) -> dict[str, int]:
    found = {}
    for name in "ABC":
        r = rng.random()
        found[name] = 0 if r < 0.04 else rng.choice(LARGE) if r < 0.2 else rng.choice(SIZES)
    return found


def _between(rng: random.Random, used: tuple[Given, ...], temper: str) -> str:
    """What happens between a call and the walks."""
    if temper == ITERATORS:
        return changed_since(rng, used)
    if rng.random() > (0.5 if temper in ("views", "flags", "training") else 0.1):
        return ""
    if temper == "flags" or temper == "training":
        return rng.choice(SET)
    fit = [x for x in used if x.is_tensor and x.dims]
    if not fit or rng.random() < (0.2 if temper == "views" else 0.9):
        return rng.choice(BETWEEN)
    x = rng.choice(fit)
    line = rng.choice(views.BETWEEN).format(b=(*x.behind, x.name)[max(len(x.behind) - 1, 0)], x=x.name)
    return f"try:\n    {line}\nexcept (dg.errors.DuogradError, IndexError, AttributeError):\n    m.box.n += 1".replace(
        line, line.replace("\n", "\n    ")
    )


def _inputs(rng: random.Random, hand: Hand, dtype: str, temper: str, asking: float) -> list[Given]:
    made: list[Given] = []
    for k in range(rng.choice((1, 1, 2, 2, 3))):
        name = f"x{k}"
        n = rng.choices((0, 1, 2, 3), (6, 25, 50, 15))[0]
        dims: list[int | str] = [rng.choice("ABC") for _ in range(n)]
        if made and rng.random() < 0.6:  # broadcast with the first
            dims = list(made[0].dims[len(made[0].dims) - min(n, len(made[0].dims)) :])
            dims = [1 if rng.random() < 0.15 else d for d in dims]
        kind = dtype
        r = rng.random()
        if temper == "fast":
            kind = dtype
        elif r < 0.14:
            kind = rng.choice(INTEGERS if r < 0.1 else FLOATS)
        elif r < 0.18:
            kind = rng.choice(("bool", "complex64"))
        grad = kind in FLOATS and rng.random() < asking
        layout = rng.choices(
            ("dense", "strided", "transposed", "backwards", "expanded", "shifted"), (70, 8, 8, 5, 3, 6)
        )[0]
        if rng.random() < 0.06:
            layout = rng.choice(SHARED if made and made[0].dims else SHARED[5:])
        if layout in LAYOUTS and grad and rng.random() < (1 if layout == "expanded" else 0.5):
            layout = "dense"
        low, high = rng.choice(((-2.0, 2.0), (-2.0, 2.0), (0.1, 3.0), (-9.0, 9.0)))
        past = grad and layout == "dense" and rng.random() < 0.1
        x = Given(name, tuple(dims), kind, low, high, layout, grad, rng.random() < 0.12, past=past)
        if kind in FLOATS and layout in LAYOUTS and rng.random() < (0.7 if temper == "views" else 0.02):
            x = views.see(rng, x)
        made.append(x)
    if temper == "live numbers" and rng.random() < 0.4:
        made.append(Given("k1", (), "plain", values=rng.choice(PACKS)))
    if temper in ("numbers", "live numbers") and rng.random() < 0.7:
        made.append(Given("k0", (), "plain", values=rng.choice(CHANGING)))
    elif rng.random() < 0.2:
        values = rng.choice(((2, 3), (1.5, 0.5), (True, False), (None, 2), ("a", "b"), (1, 1.0, True), (2,)))
        made.append(Given("k0", (), "plain", values=values))
    if rng.random() < 0.12:
        lists = rng.choice((("m.log",), ("[1]", "m.log"), ("m.log", "[]", "m.rows[0]"), ("[m.count]",)))
        made.append(Given("l0", (), "list", values=lists))
        made += [Given("l1", (), "list", values=("l0", "[2]"))] * (rng.random() < 0.4)
    if rng.random() < 0.1:
        made.append(Given("d0", (), "dict", values=tuple(x.name for x in made if x.is_tensor)))
    return made


def _attempt(hand: Hand, step: Step) -> bool:
    """Run a step on the first call's values; whether it raises."""
    body = "\n".join("    " + line for line in step.text.split("\n"))
    names = [n for n in hand.space if n[0] in "vx" and n[1:].isdigit()]
    text = f"def step({', '.join(names)}):\n{body}\n    return {{k: v for k, v in locals().items()}}"
    space = dict(hand.space)
    try:
        exec(text, space)
        made = space["step"](*[hand.space[n] for n in names])
    except Exception:
        return True
    if not isinstance(made, dict):  # an early return
        return True
    for n in step.makes:
        if n not in made:
            return True
    for n in dict.fromkeys((*names, *step.makes)):
        x = made.get(n)
        if n[0] == "p":
            hand.space[n] = x
        elif isinstance(x, dg.Tensor) and x.size <= ELEMENTS:
            hand.space[n] = x
            if n not in hand.names:
                hand.names.append(n)
    return not all(n in hand.space for n in step.makes)


def _forget(hand: Hand, inputs: int, state: int) -> None:
    """Take back inputs and state that a refused step had asked for: from these numbers on."""
    for x in hand.new[inputs:]:
        if x.is_tensor:
            hand.names.remove(x.name)
        hand.space.pop(x.name)
    del hand.new[inputs:], hand.state[state:]


def _used(inputs: list[Given], steps: list[Step], returns: list[str]) -> tuple[Given, ...]:
    """The inputs that a program needs."""
    read = set(returns)
    for s in steps:
        read |= s.reads([x.name for x in inputs])
    read |= {x.layout.split()[-1] for x in inputs if x.name in read and "of " in x.layout}
    read |= {n for x in inputs if x.name in read and x.dtype in ("dict", "list") for n in x.values or ()}
    return tuple(x for x in inputs if x.name in read) or tuple(inputs[:1])


__all__ = ["draw", "temper_of"]
