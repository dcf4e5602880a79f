"""What a random program may do with classes, objects and functions of its own, and with names that are put together."""

from __future__ import annotations

import random
from contextlib import suppress

from .program import Given, Step
from .steps import Hand, is_float

#: the temper's name
OBJECTS = "objects"
#: classes whose instances have what `Common` has, see `world.py`
CLASSES = (
    "Base", "Child", "Slotted", "Settings", "Fixed", "Odd", "Odd", "Described", "Classy", "Lazy", "Bag", "Book",
    "Net",
)  # fmt: skip
#: numbers; {o}: an instance, {C}: its class, {k}: a small number, {i}: an expression that is 0 or 1
NUMBERS = (
    "{o}.n", "{o}.n", "{o}.rate", "{C}.rate", "type({o}).rate", "{o}.__class__.rate", "{o}.double", "{o}.w0",
    "{o}.w1", "getattr({o}, 'w' + str({i}))", "getattr({o}, f'w{{{i}}}')", "getattr({o}, 'w%d' % {i})",
    "vars({o})['n']", "{o}.__dict__['n']", "{o}.__dict__.get('extra', 1)", "getattr({o}, 'extra', {k})",
    "len({o}.items)", "{C}.kinds[-1]", "sum({o}.kinds)", "len({C}.kinds)", "getattr({C}, 'rate')",
    "{C}.__dict__['rate']", "vars({C}).get('extra', {k})", "hasattr({o}, 'extra')", "len(vars({o}))",
    "getattr({C}, 'extra', {k})", "super(type({o}), {o}).rate", "object.__getattribute__({o}, 'n')", "helper.count",
    "helper.scale", "getattr(helper, 'sca' + 'le')", "helper.__dict__['count']", "vars(helper)['count']",
    "helper.__defaults__[0]", "helper.__kwdefaults__['shift']", "GAIN", "globals()['GAIN']",
    "globals().get('GAIN', {k})", "TABLE['a']", "TABLE.get('b', {k})", "bump()", "bump({k})", "look()", "cached({k})",
    "cached({i})", "kinded({k})", "kinded({o})", "kinded([{k}])", "Color.RED.value", "Color(2.5).value",
    "Color['BLUE'].value", "Level.HIGH", "Level({i} * 2 + 1)", "(Level.LOW + {k})", "Point({k}).both",
    "Point({k})._replace(b={i}).b", "Pair({k})[{i}]", "Pair(a={k}).b", "dataclasses.replace(Settings({k}), n={i}).n",
    "dataclasses.asdict(Settings({k}, t=None))['n']", "(Settings({k}, t=None) == Settings({i}, t=None))",
    "(Fixed({k}) == Fixed({i}))", "{{Fixed({k}): 2}}.get(Fixed({i}), 3)", "len({C})", "{C}.rated_by", "Meta.made",
    "m.__dict__['count']", "vars(m)['scale']", "getattr(m, 'co' + 'unt')", "decorated.calls",
    "decorated.__wrapped__.__name__.count('d')", "OBJ.n", "ALIAS.rate", "OBJ.double", "made_by({k}).rate",
    "len(m.table)", "m.box.n", "look.__closure__[0].cell_contents", "half.keywords['k']", "[*{o}][0]", "len({o})",
    "({o} + {k})", "{o}[{i}]", "({k} in {o})", "int(f'{{{o}}}')", "{o}['a']", "{o}['none']", "bool({o})",
    "({o} == OBJ)", "({o} is OBJ)", "isinstance({o}, Base)", "issubclass({C}, Common)", "(type({o}) is {C})",
    "len({C}.__mro__)", "callable({o})", "len(dir({o})) % 7", "operator.attrgetter('n')({o})",
)  # fmt: skip
#: tensors
TENSORS = (
    "{o}.t", "{o}.t", "getattr({o}, 't')", "{C}.shared", "{o}.shared", "helper.t", "KEPT", "globals()['KEPT']",
    "held()", "kept_for({k})", "vars({o})['t']", "{o}.t[:1]", "OBJ.t", "{o}.weight", "{o}.mean", "m.b",
    "m.__dict__['b']", "getattr(m, 'bw'[{i}])", "held.__closure__[0].cell_contents", "{o}.items[-1]",
    "helper.items[-1]",
)  # fmt: skip
#: statements that change; {v}: a number, {T}: a tensor
CHANGES = (
    "{o}.n = {v}", "{o}.n += {k}", "{o}.n += {k}", "{o}.t = {T}", "{o}.t = {o}.t * 0.5", "{o}.t += {k}",
    "{o}.t[0] = {v}", "{o}.t.mul_(0.5)", "{o}.items.append({v})", "{o}.items.append({T})", "{o}.items = [{k}]",
    "{o}.rate = {v}", "{C}.rate = {v}", "{C}.rate *= 2", "{C}.rate += {k}", "Common.rate = {v}",
    "{o}.__dict__.pop('rate', None)", "if 'rate' in vars({o}):\n    del {o}.rate", "{o}.extra = {v}",
    "if hasattr({o}, 'extra'):\n    del {o}.extra", "setattr({o}, 'w' + str({i}), {v})",
    "setattr({o}, f'w{{{i}}}', {v})", "setattr({o}, 'ext' + 'ra', {v})", "{o}.double = {v}", "vars({o})['n'] = {v}",
    "{o}.__dict__.update(n={v}, extra={k})", "{C}.kinds.append({k})", "{C}.kinds = [*{C}.kinds, {k}]",
    "{o}.kinds.append({k})", "{o}.kinds = [{k}]", "{C}.extra = {v}", "if 'extra' in vars({C}):\n    del {C}.extra",
    "setattr({C}, 'rate', {v})", "{C}.shared += {k}", "{C}.shared = {T}", "{o}.shared = {T}",
    "object.__setattr__({o}, 'n', {v})", "helper.count += 1", "helper.count += {k}", "helper.scale = {v}",
    "helper.t = {T}", "helper.t *= 0.5", "helper.items.append({v})", "setattr(helper, 'scale', {v})",
    "helper.__dict__['count'] = {v}", "globals()['GAIN'] = {v}", "globals()['GAIN'] += {k}", "TABLE['a'] = {v}",
    "TABLE.update(b={v})", "globals()['KEPT'] = {T}", "KEPT.mul_(0.5)", "bump({k})", "hold({T})", "m.count += 1",
    "vars(m)['scale'] = {v}", "m.__dict__['count'] += 1", "setattr(m, 'co' + 'unt', {k})", "m.obj = {C}({k})",
    "{o}[{i}] = {v}", "{o}['a'] = {v}", "{o}.append({v})", "with {o} as held_one:\n    held_one.w0 = {v}",
    "OBJ.n = {v}", "m.box.last = {o}", "m.table['o'] = {o}", "{o}.next = {T}", "{o}.next = {o}",
    "{o}.pair = Point({v}, {T})", "{o}.level = Level(3 - {i} * 2)", "globals()['OBJ'] = {o}",
    "object.__delattr__({o}, 'w0')", "Meta.made = 0", "{o}.items.append({o}.of({k}))", "setattr(m, 'w%d' % {i}, {v})",
    "KEPT[0] = {v}", "look.seen = {v}",
)  # fmt: skip
#: statements that replace code, rather between calls
REPLACED = (
    "{o}.scaled = lambda t, by=1: t * {k} + by", "{C}.scaled = lambda self, t, by=1: t * self.n + {k}",
    "Common.scaled = lambda self, t, by=1: t - self.n",
    "{o}.scaled = types.MethodType(lambda self, t: t * self.n, {o})", "{o}.scaled = half", "{C}.scaled = Base.scaled",
    "{o}.__dict__.pop('scaled', None)", "{C}.double = property(lambda self: self.n * 3)", "{C}.double = {k}",
    "{C}.__call__ = lambda self, t: t - self.n", "{o}.__call__ = lambda t: t * 100", "{o}.__class__ = Child",
    "{o}.__class__ = Base", "{C}.__len__ = lambda self: {k}", "{C}.__bool__ = lambda self: self.n > 1",
    "{C}.__getattr__ = lambda self, name: {k}", "{C}.__eq__ = lambda self, other: True",
    "{C}.plus = staticmethod(lambda t, k=1: t - k)", "{C}.rated = classmethod(lambda cls, t: t + cls.rate)",
    "{C}.n = {k}", "helper.__defaults__ = ({k},)", "helper.__kwdefaults__ = {{'shift': {v}}}",
    "helper.__kwdefaults__['shift'] = {k}", "helper.__code__ = other.__code__", "globals()['helper'] = other",
    "globals()['half'] = functools.partial(other, k={k})", "half.keywords['k'] = {v}", "cached.cache_clear()",
    "kept_for.cache_clear()", "globals()['cached'] = lambda k: k - 1", "Child.__bases__ = (Base,)",
    "Mixed.rate = {v}", "bump.__defaults__ = ({k},)", "look.__closure__[0].cell_contents = {k}",
    "globals()['look'] = lambda: {k}", "globals()['GAIN'] = dg.ones(1)", "globals()['len'] = lambda x: 7",
    "kinded.register(float, lambda value: 7)", "decorated.calls = {k}", "{C}.w0 = property(lambda self: {k})",
    "{o}.step = lambda t: t * {k}", "{C}.touched = lambda self, t: t * 2", "{o}.touched = {o}.scaled",
    "{C}.__setattr__ = lambda self, name, value: object.__setattr__(self, name, value)",
)  # fmt: skip
#: what makes {y}; {n}: a number, {s}: the tensor {T} summed to a number of {x}'s dtype
MADE = (
    "{y} = {x} * {n}", "{y} = {x} * {n}", "{y} = {x} + {s}", "{y} = {x} * {s}", "{y} = {x} + {n} * {n2}",
    "{y} = {T} * {n}", "{y} = {o}.scaled({x})", "{y} = {o}.scaled({x}, by={n})", "{y} = {o}({x})",
    "{y} = {C}.scaled({o}, {x})", "{y} = {C}.rated({x})", "{y} = {o}.rated({x})", "{y} = {o}.plus({x}, {n})",
    "{y} = {C}.plus({x})", "{y} = {o}.touched({x})", "{y} = getattr({o}, 'sca' + 'led')({x})",
    "{y} = {C}.of({k}).scaled({x})", "{y} = {C}({n}).scaled({x})", "{y} = helper({x})", "{y} = helper({x}, {n})",
    "{y} = helper({x}, shift={n})", "{y} = half({x})", "{y} = decorated({x})", "{y} = half({x}, k={n})",
    "{y} = Color.BLUE.scaled({x})", "{y} = functools.partial(helper, {x}, shift={n})()",
    "{y} = dg.function({o}.scaled)({x})", "{y} = dg.grad(lambda t: {o}.scaled(t).sum())({x})",
    "{y} = dg.checkpoint({o}, {x})", "{y} = dg.vmap({o}.scaled)({x}) if {x}.ndim else {x}",
    "{y} = {x} if {o} else -{x}", "{y} = {x} * 2 if {n} > {k} else {x} + {n}",
    "{y} = sum({x} * v for v in {o} if isinstance(v, (int, float)))",
    "{y} = {x} * max({o}, OBJ, key=lambda q: q.n).n",
    "{y} = {o}.next * 2 if isinstance({o}.next, dg.Tensor) else {x} + 1",
    "{y} = {x} * {o}.pair.a + {o}.pair.b.sum().to({x}.dtype)",
    "match {o}:\n    case {C}(n=1):\n        {y} = {x} + 1\n    case Common(n=q, w1=w):\n        {y} = {x} * q + w\n"
    "    case _:\n        {y} = -{x}", "q = {C}({k})\nq.n += {n}\n{y} = q({x})", "q = Point({x}, {n})\n{y} = q.both",
    "q = Pair({x}, {n})\na, b = q\n{y} = a * b", "q = Settings({n}, t={x})\n{y} = q.t * q.n",
    "q = dataclasses.replace({o}, n={n})\n{y} = q.scaled({x})",
    "{o}.t = ({T}).detach().to(dg.float32).requires_grad_()\n"
    "({o}.t * {x}.to(dg.float32).sum() * {n}).sum().backward()\n{y} = {o}.t.grad * 1",
    "if {o}.t.requires_grad:\n    ({o}.t ** 2).sum().backward()\n{y} = {o}.t * 2",
    "({o}.weight * {x}.detach().to(dg.float32).sum()).sum().backward()\n{y} = {o}.weight.grad * 1",
    "def local(t, k={n}):\n    return t * k + {n2}\n{y} = local({x})",
    "k = {n}\ndef grow():\n    nonlocal k\n    k = k + 1\n    return {x} * k\ngrow()\n{y} = grow() + k",
    "class Own(Base):\n    rate = {n}\n\n    def scaled(self, t):\n        return super().scaled(t) * 2\n"
    "{y} = Own({k})({x})", "{o}.step = lambda t: t * {o}.n\n{y} = {o}.step({x})",
    "{y} = {x}\nfor name in ('n', 'rate', 'w0'):\n    {y} = {y} * getattr({o}, name)",
    "{y} = {x}\nfor name, value in vars({o}).items():\n    if isinstance(value, (int, float)):\n"
    "        {y} = {y} + value",
    "{y} = {x}\nfor k in range(2):\n    setattr({o}, f'w{{k}}', getattr({o}, f'w{{k}}') + k)\n"
    "    {y} = {y} * getattr({o}, f'w{{k}}')",
    "try:\n    {y} = {x} * {o}.absent\nexcept AttributeError:\n    {o}.n += 1\n    {y} = {x} - 1",
    "{y} = {x} * {n}\nassert {o}.n < 9, {o}.n", "with {o}:\n    {y} = {x} * {o}.n",
    "{y} = {x} * len([k for k in vars({o}) if k.startswith('w')])", "{y} = {x} * (globals()['helper'[:6]](1.0))",
    "{y} = globals()['half']({x})", "{o}.items.append({x})\n{y} = {o}.items[-1] * len({o}.items)",
    "{o}.n = float({x}.to(dg.float32).sum())\n{y} = {x} * {o}.n",
    "{o}.n = {x}.shape\n{y} = {x} * len({o}.n)\n{o}.n = {k}", "{o}.t = {x}\n{y} = {o}.t * 2",
    "helper.t = {x} * 2\n{y} = helper.t + 1", "hold({x})\n{y} = held() * look()",
    "def put():\n    global GAIN\n    GAIN = GAIN * 0.5\nput()\n{y} = {x} * GAIN",
)  # fmt: skip
#: plain results
LOOKS = (
    "{n}", "{n}", "{v}", "sorted(k for k in vars({o}) if k[0] != '_')", "list(vars({o}))", "{o}", "{C}.of({k})",
    "{C}({k})", "type({o}).__name__", "type({o}).__qualname__", "[c.__name__ for c in {C}.__mro__]", "{o}.items",
    "{C}.kinds", "{C}", "{o}.pair", "{o}.level", "Color.RED", "Point({k}, {n})", "Pair({n})", "hasattr({o}, 'extra')",
    "callable({o}.scaled)", "dict(helper.__dict__)", "helper.__name__", "[k for k in TABLE if k in vars({o})]",
    "{o}.next is {o}", "bool({o})", "{o} == {C}({k})", "[*{o}]", "m.box.last is {o}", "isinstance({o}, Child)",
    "{o} in [OBJ]", "{o}.kinds is {C}.kinds", "dataclasses.fields(Settings)[0].name", "[c.name for c in Color]",
    "Level.HIGH > {n}", "'{{}} {{}}'.format({o}.n, {n})", "{o}.scaled.__self__ is {o}", "helper.__defaults__",
    "look()", "vars(m).get('w0')", "TABLE", "{o}.extra", "globals().get('NONE')", "getattr({o}, 'absent', None)",
    "made_by({k})", "{{'o': {o}, 'r': [{n}]}}", "(*{o}.items, {n})", "lambda: {n}",
)  # fmt: skip


class _Words:
    """Draws what stands in the braces of a form."""

    def __init__(self, rng: random.Random, instances: tuple[tuple[str, str], ...]):
        self.rng, self.instances = rng, instances

    def fill(self, form: str, x: str = "", y: str = "", apart: bool = False) -> str:
        """The form with an instance, its class, numbers and tensors. apart: outside of a call, without {x}."""
        r = self.rng
        o, kind = r.choice(self.instances)
        k, i = r.choice("0123"), r.choice(("0", "1", "m.count % 2"))

        def of(table: tuple[str, ...]) -> str:
            other, its = (o, kind) if r.random() < 0.6 else r.choice(self.instances)
            return r.choice(table).format(o=other, C=its, k=k, i=i)

        n, n2, tensor = of(NUMBERS), of(NUMBERS), of(TENSORS)
        v = r.choice((k, "0.5", "-2", "True", "m.count", n, n2, f"{n} + 1", f"{n} * 0.5", f"{o}.n + {k}"))
        kept = r.choice(
            (f"{tensor} * {k}", f"{tensor}.detach()", "dg.ones(2)", "dg.full((2,), 0.25)", tensor)
        )
        if x and "{T}" in form and r.random() < 0.5:
            kept = r.choice((x, f"{x} * 2", f"{x}.detach()", f"{x}.sum()"))
        sum_ = f"{tensor}.sum().to({x}.dtype)"
        return form.format(o=o, C=kind, k=k, i=i, n=n, n2=n2, v=v, T=kept, s=sum_, x=x, y=y)


def _instances(h: Hand) -> tuple[tuple[str, str], ...]:
    """The names of the objects that the program has so far, with their classes; mostly the one that it began with."""
    kept = [
        (f"m.{g.name}", str((g.values or ("",))[0]).partition("(")[0]) for g in h.state if g.dtype == "made"
    ]
    if not kept or (len(kept) < 3 and h.rng.random() < 0.15):
        kind = h.rng.choice(CLASSES)
        name = "obj" if not kept else f"obj{len(kept)}"
        with suppress(Exception):  # a step that was tried has spoilt the class
            kept.append((h.keep(Given(name, (), "made", values=(f"{kind}({h.rng.choice('123')})",))), kind))
    return (*kept, *kept, ("OBJ", "Base"))


def objects(h: Hand) -> Step | None:
    """Some changes of objects, a look or two, and a tensor that is made with them."""
    x = h.tensor(lambda t: is_float(t) and t.size <= 100)
    if x is None:
        return None
    words, r = _Words(h.rng, _instances(h)), h.rng
    lines: list[str] = []
    made: list[str] = []
    for _ in range(r.choice((0, 1, 1, 2))):
        table = REPLACED if r.random() < 0.12 else CHANGES
        lines.append(words.fill(r.choice(table), x))
    if r.random() < 0.35:
        made.append("p" + h.fresh()[1:])
        lines.append(f"{made[0]} = " + words.fill(r.choice(LOOKS), x))
    y = h.fresh()
    made.append(y)
    lines.insert(r.randrange(len(lines) + 1), words.fill(r.choice(MADE), x, y))
    return Step("\n".join(lines), tuple(made))


def changes(h: Hand) -> tuple[str, ...]:
    """What changes from outside before the second call, the third and so on, by turns."""
    words, r = _Words(h.rng, _instances(h)), h.rng
    found = []
    for _ in range(r.choice((0, 1, 2, 2, 3, 4))):
        n = r.choice((0, 1, 1, 1, 2))
        found.append(
            "\n".join(words.fill(r.choice(REPLACED if r.random() < 0.4 else CHANGES)) for _ in range(n))
        )
    return tuple(found)
