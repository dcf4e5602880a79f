"""Classes, functions and names that "objects" programs define for themselves, anew for each run.

Instances have what `Common` has: numbers `n`, `w0`, `w1`, `rate` (the class's), `double` (a property), a tensor `t`, a
list `items`, methods; each class holds them in a way of its own.
"""

from __future__ import annotations

import re
from typing import Any

from .program import MODULE

#: what a container has as `Common` has it
CONTAINER = """\
    rate, kinds, shared = 0.75, [3], Common.shared
    scaled, touched, double, __call__ = Common.scaled, Common.touched, Common.double, Common.__call__
    rated, of, plus = classmethod(Common.rated.__func__), classmethod(Common.of.__func__), Common.plus
"""
DEFINITIONS = {
    "Common": """\
class Common:
    rate = 0.5
    kinds = [1, 2]
    shared = dg.linspace(0.5, 1, 2)

    def __init__(self, n=1):
        self.n, self.w0, self.w1, self.items = n, 2.0, 3, []
        self.t = dg.linspace(-1, 1, 2)

    def scaled(self, t, *, by=1):
        return t * self.n * by + self.rate

    def touched(self, t):
        self.n += 1
        self.t = self.t * 0.5
        return t * self.n

    @property
    def double(self):
        return self.n * 2

    @double.setter
    def double(self, value):
        self.n = value / 2

    @classmethod
    def of(cls, n):
        cls.kinds.append(n)
        return cls(n)

    @classmethod
    def rated(cls, t):
        return t * cls.rate

    @staticmethod
    def plus(t, k=1):
        return t + k

    def __call__(self, t):
        return self.scaled(t) - self.w0
""",
    "Base": "class Base(Common):\n    pass\n",
    "Mixed": """\
class Mixed:
    rate = 2

    def scaled(self, t, *, by=1):
        return super().scaled(t * 2, by=by)
""",
    "Child": """\
class Child(Mixed, Base):
    def __init__(self, n=1):
        super().__init__(n + 1)
        self.rate = 0.25

    def __call__(self, t):
        return super().__call__(t) * 2

    @property
    def double(self):
        return super().double + 1
""",
    "Slotted": """\
class Slotted:
    __slots__ = "n", "w0", "w1", "t", "items", "extra"
    rate, kinds, shared = 0.75, [3], Common.shared
    __init__, scaled, touched, double, __call__ = (
        Common.__init__, Common.scaled, Common.touched, Common.double, Common.__call__
    )
    rated, of, plus = classmethod(Common.rated.__func__), classmethod(Common.of.__func__), Common.plus
""",
    "Settings": """\
@dataclasses.dataclass
class Settings(Common):
    n: float = 1
    w0: float = 1.5
    w1: int = 2
    t: object = dataclasses.field(default_factory=lambda: dg.ones(2))
    items: list = dataclasses.field(default_factory=list)
""",
    "Fixed": """\
@dataclasses.dataclass(frozen=True, eq=True)
class Fixed(Common):
    n: float = 1
    w0: float = 1.5
    w1: int = 2
    t: object = dataclasses.field(default_factory=lambda: dg.ones(2), compare=False)
    items: object = dataclasses.field(default_factory=list, compare=False)
""",
    "Odd": """\
class Odd(Common):
    def __getattr__(self, name):
        if name.startswith("_") or "n" not in vars(self):
            raise AttributeError(name)
        return self.n + len(name)

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)
        object.__setattr__(self, "sets", vars(self).get("sets", 0) + 1)

    def __eq__(self, other):
        return isinstance(other, Common) and self.n == other.n

    __hash__ = None

    def __len__(self):
        return len(self.items)

    def __bool__(self):
        return self.n > 2

    def __iter__(self):
        return iter((self.n, *self.items))

    def __contains__(self, k):
        return k == self.n

    def __getitem__(self, k):
        return getattr(self, "w" + str(k))

    def __setitem__(self, k, value):
        setattr(self, "w" + str(k), value)

    def __enter__(self):
        self.n += 1
        return self

    def __exit__(self, *error):
        self.n -= 2

    def __lt__(self, other):
        return self.n < other.n

    def __add__(self, other):
        return self.n + other

    def __format__(self, text):
        return f"{self.n}"
""",
    "Described": """\
class Counted:
    def __set_name__(self, owner, name):
        self.place, self.reads = "_" + name, 0

    def __get__(self, owner, cls=None):
        if owner is None:
            return self
        self.reads += 1
        return owner.__dict__[self.place]

    def __set__(self, owner, value):
        owner.__dict__[self.place] = value


class Described(Common):
    n = Counted()
    t = Counted()
""",
    "Classy": """\
class Meta(type):
    made = 0

    def __call__(cls, *args):
        Meta.made += 1
        return super().__call__(*args)

    @property
    def rated_by(cls):
        return cls.rate * 2

    def __len__(cls):
        return len(cls.kinds)


class Classy(Common, metaclass=Meta):
    kinds = [1]

    def __init_subclass__(cls):
        cls.rate = 3
""",
    "Lazy": """\
class Lazy(Common):
    def __getattribute__(self, name):
        if name == "w0":
            return object.__getattribute__(self, "n") * 0.5
        return super().__getattribute__(name)

    @functools.cached_property
    def extra(self):
        return self.n + 0.5
""",
    "Bag": "class Bag(list):\n" + CONTAINER + """
    def __init__(self, n=1):
        super().__init__([n, 2])
        Common.__init__(self, n)
""",
    "Book": "class Book(dict):\n" + CONTAINER + """
    def __init__(self, n=1):
        super().__init__(a=n)
        Common.__init__(self, n)

    def __missing__(self, key):
        return self.n
""",
    "Net": """\
class Net(dg.nn.Module):
    rate, kinds, shared = 0.75, [3], Common.shared
    scaled, touched, double = Common.scaled, Common.touched, Common.double
    rated, of, plus = classmethod(Common.rated.__func__), classmethod(Common.of.__func__), Common.plus

    def __init__(self, n=1):
        super().__init__()
        Common.__init__(self, n)
        self.weight = dg.nn.Parameter(dg.linspace(0.5, 1, 2))
        self.register_buffer("mean", dg.zeros(2))

    def forward(self, t):
        if self.training:
            with dg.no_grad():
                self.mean += 1
        return self.scaled(t) * self.weight.sum().to(t.dtype) + self.mean.sum().to(t.dtype)
""",
    "Color": """\
class Color(enum.Enum):
    RED = 1
    BLUE = 2.5

    def scaled(self, t):
        return t * self.value
""",
    "Level": "class Level(enum.IntEnum):\n    LOW = 1\n    HIGH = 3\n",
    "Point": """\
class Point(NamedTuple):
    a: object
    b: object = 2

    @property
    def both(self):
        return self.a + self.b
""",
    "Pair": "Pair = collections.namedtuple('Pair', 'a b', defaults=(3,))\n",
    "helper": """\
def helper(t, k=2, *, shift=0):
    helper.count += 1
    return t * k + shift + helper.scale * GAIN


helper.count, helper.scale, helper.t, helper.items = 0, 0.5, dg.ones(2), []
""",
    "other": "def other(t, k=3, *, shift=1):\n    return t - k + shift\n",
    "GAIN": "GAIN = 1.5\n",
    "TABLE": "TABLE = {'a': 1, 'c': 0.5}\n",
    "KEPT": "KEPT = dg.linspace(0, 1, 2)\n",
    "bump": """\
def counter(k, t):
    def bump(by=1):
        nonlocal k, t
        k += by
        t = t * 0.5 + by
        return k

    def look():
        return k

    def hold(value):
        nonlocal t
        t = value

    def held():
        return t

    return bump, look, hold, held


bump, look, hold, held = counter(1, dg.ones(2))
""",
    "half": "half = functools.partial(other, k=0.5)\n",
    "cached": "@functools.lru_cache\ndef cached(k):\n    return k * GAIN\n",
    "kept_for": "@functools.lru_cache(maxsize=2)\ndef kept_for(k):\n    return dg.linspace(0, k, 2)\n",
    "FOUND": "FOUND = {'t': dg.ones(2), 'n': 1, 'log': []}\n",
    "noted_for": """\
@functools.lru_cache
def noted_for(k):
    FOUND['log'].append(k)
    FOUND['n'] += 1
    return k * 0.5 + 1
""",
    "typed_for": """\
@functools.lru_cache(maxsize=3, typed=True)
def typed_for(k):
    FOUND['log'].append(type(k).__name__)
    return k + 1
""",
    "kept_number": """\
@functools.cache
def kept_number():
    FOUND['n'] *= 2
    return FOUND['n']
""",
    "pair_for": "@functools.lru_cache\ndef pair_for(pair):\n    return pair[0] + 1, [*pair]\n",
    "failing_for": """\
@functools.lru_cache
def failing_for(k):
    FOUND['n'] += 1
    if k == 2:
        raise ValueError('two')
    return k
""",
    "nested_for": """\
@functools.lru_cache(maxsize=2)
def nested_for(k):
    return noted_for(k) + (nested_for(k - 1) if k > 0 else cached(k))
""",
    "summed_for": """\
@functools.lru_cache(maxsize=2)
def summed_for(k):
    FOUND['log'].append(('s', k))
    return FOUND['t'].sum() * k
""",
    "given_for": """\
@functools.lru_cache
def given_for(k):
    FOUND['last'] = k
    return FOUND['t'] if k else dg.zeros(2)
""",
    "changed_for": """\
@functools.lru_cache(maxsize=3)
def changed_for(k):
    with dg.no_grad():
        KEPT.add_(1)
    return KEPT * noted_for(1)
""",
    "drawn_for": "@functools.lru_cache\ndef drawn_for(k):\n    return dg.rand((2,)) * k\n",
    "masked_for": """\
@functools.lru_cache
def masked_for(k):
    mask = dg.zeros(3)
    mask[0] = k
    mask += 1
    return mask
""",
    "grad_for": """\
@functools.lru_cache
def grad_for(k):
    return dg.grad(lambda t: (t * t * k).sum())(KEPT)
""",
    "Keeps": """\
class Keeps(Base):
    @functools.lru_cache
    def of_size(self, k):
        self.n += 1
        return self.n * k
""",
    "KEEPS": "KEEPS = Keeps(1)\n",
    "Around": """\
class Around:
    def __enter__(self):
        FOUND['n'] += 1
        return self

    def __exit__(self, *error):
        FOUND['log'].append(error[0] and error[0].__name__)
""",
    "decorated": """\
def twice(f):
    @functools.wraps(f)
    def wrapper(*args, **kwargs):
        wrapper.calls += 1
        return f(f(*args, **kwargs))

    wrapper.calls = 0
    return wrapper


@twice
def decorated(t):
    return t * GAIN
""",
    "kinded": """\
@functools.singledispatch
def kinded(value):
    return 1


@kinded.register
def _(value: int):
    return value + GAIN


@kinded.register(list)
def _(value):
    return len(value)
""",
    "OBJ": "OBJ = Base(2)\n",
    "ALIAS": "ALIAS = OBJ\n",
    "made_by": "def made_by(n):\n    class Local(Base):\n        rate = n\n\n    return Local(n)\n",
}  # fmt: skip
#: where a name stands that is no key above
INSIDE = {"Counted": "Described", "Meta": "Classy", "look": "bump", "hold": "bump", "held": "bump"}
IMPORTS = """\
import collections
import dataclasses
import enum
import functools
import operator
import types
from typing import NamedTuple
"""


def needed(*texts: str) -> str:
    """The definitions that these texts name, and what those name."""
    found: set[str] = set()
    left = list(texts)
    while left:
        named = {INSIDE.get(n, n) for n in re.findall(r"\w+", left.pop())} & set(DEFINITIONS) - found
        found |= named
        left += [DEFINITIONS[n] for n in named]
    return IMPORTS + "".join("\n\n" + text for n, text in DEFINITIONS.items() if n in found)


def define(definitions: str, space: dict[str, Any]) -> None:
    """Make them in a namespace."""
    space["__name__"] = MODULE
    exec(compile(definitions, "/fuzz/definitions.py", "exec", dont_inherit=True), space)
