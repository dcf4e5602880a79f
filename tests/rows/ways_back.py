"""Gradients that are taken through a call, in either mode, and what hooks and rules have noted on the way."""

import duograd as dg

W, X = [1.0, 2.0], [3.0, 4.0]


def leaf(values=W):
    return dg.tensor(values, requires_grad=True)


def taken(w):
    return None if w.grad is None else w.grad.detach().numpy().tolist()


def noted(seen, factor=2.0):
    return lambda g: (seen.append(len(seen)), g * factor)[1]


def through(fn, calls=4):
    """Calls of fn(w, seen) with a gradient taken outside: gradients, and what was seen."""

    def build(mode):
        w, seen = leaf(), []
        f = dg.function(lambda x: fn(w, x, seen), mode=mode)
        grads = []
        for _ in range(calls):
            w.grad = None
            f(dg.tensor(X)).backward()
            grads.append(taken(w))
        return grads, seen

    return build
