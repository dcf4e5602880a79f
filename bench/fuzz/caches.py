"""What a random program may do with functions that keep their results, and with code that runs on the way out."""

from __future__ import annotations

from .program import Step
from .steps import Hand, is_float

#: the temper's name
CACHES = "caches"
#: arguments of these functions
ARGUMENTS = (
    "{k}", "{k}", "m.count", "m.count % 3", "m.scale", "FOUND['n']", "FOUND['n'] % 2", "float({k})", "True",
    "len(FOUND['log'])", "m.count * 0.5", "k0",
)  # fmt: skip
#: numbers; {a}: an argument
NUMBERS = (
    "noted_for({a})", "noted_for({a})", "noted_for(k={a})", "typed_for({a})", "kept_number()",
    "pair_for(({a}, {k}))[0]", "failing_for({a})", "KEEPS.of_size({a})", "nested_for({a})", "cached({a})",
    "max(noted_for({a}), {k})", "sum(map(noted_for, (1, {k})))", "FOUND['n']", "len(FOUND['log'])", "m.scale",
    "m.count",
)  # fmt: skip
#: tensors
TENSORS = (
    "kept_for({a})", "summed_for({a})", "given_for({a})", "changed_for({a})", "drawn_for({a})", "masked_for({a})",
    "FOUND['t']", "KEPT", "grad_for({a})",
)  # fmt: skip
#: statements before or after
CHANGES = (
    "FOUND['t'] = ({x}).detach().to(dg.float32) * 2", "FOUND['t'] = {x}", "FOUND['n'] += 1", "FOUND['log'].append({k})",
    "m.count += 1", "m.scale *= 0.5", "m.b += 1", "KEPT.mul_(0.5)", "FOUND['t'] = FOUND['t'] * 0.5",
    "FOUND['log'] = [{k}]", "noted_for({a})", "failing_for({a})", "given_for({a})", "dg.rand((2,))", "FOUND['t'] += 1",
    "FOUND['t'] = dg.ones(2)", "FOUND['own'] = len(dir(KEEPS)) % 5", "KEEPS.n += 1", "KEEPS.__class__ = Keeps",
)  # fmt: skip
#: what makes {y}; {n}: a number, {s}: a tensor summed to a number of {x}'s dtype
MADE = (
    "{y} = {x} * {n}", "{y} = {x} * {n}", "{y} = {x} + {s}", "{y} = {x} * {n} + {s}", "{y} = {x} * {s} * {n}",
    "{y} = {x} * 2 if {n} > {k} else {x} + {n}",
)  # fmt: skip
#: what may stand around it; {made} and {change}: statements
AROUND = (
    "{made}", "{made}", "try:\n    {made}\nfinally:\n    {change}",
    "try:\n    {change}\n    {made}\nexcept ValueError:\n    FOUND['n'] += 1\n    {y} = {x} - 1",
    "{y} = {x}\ntry:\n    {made}\nexcept BaseException:\n    FOUND['log'].append('caught')",
    "with Around():\n    {made}", "{y} = {x}\nfor q in range(2):\n    {change}\n    {made}",
    "def inner():\n    try:\n        {made}\n    finally:\n        {change}\n    return {y}\n{y} = inner() + 1",
    "try:\n    {made}\n    if {n} > 4:\n        raise ValueError({n})\nfinally:\n    {change}",
    "try:\n    {made}\n    q = len(dir(KEEPS))\nfinally:\n    {change}", "with Around():\n    {made}\n    q = vars()",
)  # fmt: skip
#: what happens between calls
BETWEEN = (
    "noted_for.cache_clear()", "kept_for.cache_clear()", "FOUND['t'] = dg.ones(2)", "FOUND['log'].clear()",
    "m.count += 1", "m.scale = 2.0", "noted_for({k})", "noted_for(m.count)", "given_for({k})", "FOUND['n'] += 1",
    "summed_for({k})", "changed_for.cache_clear()", "KEPT.mul_(2)", "failing_for.cache_clear()",
    "given_for.cache_clear()", "globals()['noted_for'] = lambda k: k", "Keeps.of_size.cache_clear()", "m.count = 0",
)  # fmt: skip


def _filled(h: Hand, form: str, x: str = "", y: str = "") -> str:
    """A form with numbers, tensors and arguments in its braces."""
    r = h.rng
    given = [a for a in ARGUMENTS if a != "k0" or (x and any(g.name == "k0" for g in h.new))]
    word = lambda table: r.choice(table).format(
        a=r.choice(given).format(k=r.choice("0123")), k=r.choice("0123"), x=x
    )
    text = form.replace("{made}", r.choice(MADE)).replace("{change}", r.choice(CHANGES))
    while "{n}" in text:
        text = text.replace("{n}", word(NUMBERS), 1)
    if "{s}" in text:
        text = text.replace("{s}", f"{word(TENSORS)}.sum().to({x}.dtype)")
    a = r.choice(given).format(k=r.choice("0123"))
    for name, value in (("{a}", a), ("{k}", r.choice("0123")), ("{x}", x), ("{y}", y)):
        text = text.replace(name, value)
    return text


def caches(h: Hand) -> Step | None:
    """A call of a function that keeps its results, or some, with changes before and around it."""
    x = h.tensor(lambda t: is_float(t) and t.size <= 100)
    if x is None:
        return None
    y, r = h.fresh(), h.rng
    lines = [_filled(h, r.choice(CHANGES), x) for _ in range(r.choice((0, 0, 1, 2)))]
    lines.insert(r.randrange(len(lines) + 1), _filled(h, r.choice(AROUND), x, y))
    made: tuple[str, ...] = (y,)
    if r.random() < 0.3:
        p = "p" + y[1:]
        lines.append(
            f"{p} = " + r.choice(("dict(FOUND)", "FOUND['log']", "[*FOUND['log']]", "FOUND['n']", "KEEPS.n"))
        )
        made = (p, y)
    return Step("\n".join(lines), made)


def cleared(h: Hand) -> tuple[str, ...]:
    """What changes from outside before the second call, the third and so on, by turns."""
    r = h.rng
    return tuple(
        "\n".join(_filled(h, r.choice(BETWEEN)) for _ in range(r.choice((0, 1, 1, 2))))
        for _ in range(r.choice((0, 0, 1, 2, 3)))
    )
