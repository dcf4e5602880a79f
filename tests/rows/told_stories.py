"""Functions that are called while a generator changes what they look at: what they give, in both modes."""

import types

import duograd as dg


def module_of(source, name="held_by_nobody"):
    module = types.ModuleType(name)
    exec(source, module.__dict__)
    return module


def told(case, mode):
    """What the functions of a case give, call after call, while it changes what they look at."""
    story, f, x = [], None, dg.tensor([1.0, -2.0])
    for made in case():
        f = f if made is None else dg.function(made, mode=mode)
        for _ in range(2):
            story.append(f(x).tolist())
    return story
