"""What a random program may do with Python state: containers and objects changed and looked at."""

from __future__ import annotations

from .program import Step
from .steps import Hand

#: statements; {v}: a value to keep, {c}: a small number
CHANGES = (
    "m.log.append({v})", "m.log.append({v})", "m.log.extend([{c}, {v}])", "m.log.insert(0, {v})", "m.log += [{v}]",
    "m.log[-1:] = [{c}]", "m.log[0] = {v}", "m.log[-1] = {v}", "del m.log[0]", "m.log.pop()", "m.log.reverse()",
    "m.log.clear()", "m.log = m.log[-2:]", "m.log = [*m.log, {c}]", "push = m.log.append\npush({v})",
    "list(map(m.log.append, [{c}, {v}]))", "m.table['a'] = {v}", "m.table['b'] = {c}",
    "m.table.setdefault('r', []).append({v})", "m.table.pop('a', 0)", "m.table.update(c={v})",
    "if 'a' in m.table:\n    del m.table['a']", "m.table['n'] = m.table.get('n', 0) + 1", "m.table |= {{'d': {c}}}",
    "m.table = dict(reversed(m.table.items()))", "m.table.pop('b')", "m.seen.add({c})", "m.seen.discard({c})",
    "m.seen |= {{{c}, 9}}", "m.seen.add(len(m.seen))", "m.seen = set()", "m.queue.append({v})",
    "m.queue.appendleft({v})", "m.queue.rotate(1)", "if m.queue:\n    m.queue.popleft()", "m.queue[0] = {c}",
    "m.rows[0].append({v})", "m.rows.append([{c}])", "m.rows[-1][0] = {c}", "m.rows.insert(0, m.rows[-1])",
    "for r in m.rows:\n    r.append(len(r))", "m.box.n += {c}", "m.box.items.append({v})", "m.box = Box({c})",
    "m.box.items, m.log = m.log, m.box.items", "m.log = m.rows[0]", "m.box.last = {v}", "m.count += {c}",
)  # fmt: skip
#: expressions of plain values or tensors
LOOKS = (
    "len(m.log)", "bool(m.log)", "not m.log", "m.log[-1] if m.log else None", "m.log[0] if m.log else None",
    "[q for q in m.log if isinstance(q, int)]", "[k for k, _ in enumerate(m.log)]", "m.log[:2]", "m.log[1]",
    "m.log[-2]", "{c} in [q for q in m.log if isinstance(q, int)]", "m.log", "m.log is m.box.items",
    "list(m.table)", "len(m.table)", "'a' in m.table", "'b' in m.table", "m.table.get('a')", "m.table['b']",
    "m.table.get('n', 0)", "list(m.table.values())", "[k for k, v in m.table.items() if isinstance(v, int)]",
    "1 if m.table else 0", "m.table", "sorted(m.seen)", "{c} in m.seen", "len(m.seen)", "len(m.queue)",
    "list(m.queue)", "m.queue[-1] if m.queue else 0", "len(m.rows[0])", "[len(r) for r in m.rows]", "m.rows[-1][0]",
    "m.rows[0] is m.rows[-1]", "m.box.n", "m.box", "len(m.box.items)", "m.box.last",
    "getattr(m.box, 'n') + m.count", "hasattr(m.box, 'other')", "{{'k': m.count, 'r': [m.count]}}",
    "{{m.count, 3}}", "Box(m.count)",
)  # fmt: skip


def containers(h: Hand) -> Step | None:
    """Some changes and a few looks at what is there then."""
    x = h.tensor(lambda t: t.size <= 100)
    if x is None:
        return None
    r = h.rng
    lines: list[str] = []
    made: list[str] = []
    for _ in range(r.choice((2, 3, 3, 4, 5))):
        c = r.randrange(4)
        v = r.choice((str(c), f"{x}", f"{x}.detach()", "m.count", f"{x} * 2"))
        if r.random() < 0.5:
            lines.append(r.choice(CHANGES).format(c=c, v=v))
        else:
            name = "p" + h.fresh()[1:]
            made.append(name)
            lines.append(f"{name} = " + r.choice(LOOKS).format(c=c))
    return Step("\n".join(lines), tuple(made))
