"""Results of a call, as their holder sees them, and what acts on them give."""

import duograd as dg


def leaf(*values):
    return dg.tensor([float(v) for v in values], requires_grad=True)


def seen(t):
    """All of a tensor that its holder can see."""
    if isinstance(t, tuple):
        return [seen(x) for x in t]
    if not isinstance(t, dg.Tensor):
        return t
    return t.detach().numpy().tolist(), t.requires_grad, t.is_leaf, t.strides


def tried(act, *args, **kwargs):
    """What an act gives, or the whole text of its error."""
    try:
        return seen(act(*args, **kwargs))
    except dg.errors.DuogradError as e:
        return type(e).__name__, str(e)
