"""What the tape keeps alive besides the inputs: no more than PyTorch keeps for the same op."""

import duograd as dg
import numpy as np
import pytest
import torch

F, TF = dg.nn.functional, torch.nn.functional
#: bytes of small things (a count, a 0-d total) that may differ
SLACK = 64


def ours(fn, *arrays):
    leaves = [dg.tensor(a) if a.dtype.kind in "iub" else dg.tensor(a).requires_grad_() for a in arrays]
    out = fn(*leaves)
    out = out[0] if isinstance(out, tuple) else out
    kept, seen, stack = {}, set(), [out._node]
    while stack:
        node = stack.pop()
        if node is None or node.number in seen:
            continue
        seen.add(node.number)
        stack += [e[0] for e in node.edges if isinstance(e, tuple)]
        for entry in [*node.saved.values(), *node.outs]:
            for one in (
                entry if isinstance(entry, tuple) and entry and isinstance(entry[0], tuple) else (entry,)
            ):
                x = one[0] if isinstance(one, tuple) else one
                if isinstance(x, dg.Tensor):
                    kept[id(x._storage)] = x._storage.nbytes
    return sum(n for key, n in kept.items() if key not in {id(x._storage) for x in leaves})


def theirs(fn, *arrays):
    leaves = [
        torch.tensor(a) if a.dtype.kind in "iub" else torch.tensor(a, requires_grad=True) for a in arrays
    ]
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = fn(*leaves)
    assert out is not None
    return sum(n for key, n in kept.items() if key not in {x.untyped_storage().data_ptr() for x in leaves})


def _f(*shape):
    return np.random.default_rng(0).uniform(0.2, 0.9, shape).astype(np.float32)


X, Y, LABELS = _f(16, 64), _f(16, 64), np.arange(16) % 64
IMAGE, FILTER = _f(2, 4, 12, 12), _f(8, 4, 3, 3)
ROW = _f(64)

CASES = {
    **{name: (getattr(dg, name), getattr(torch, theirs_name), (X,)) for name, theirs_name in (
        ("exp", "exp"), ("log", "log"), ("sin", "sin"), ("cos", "cos"), ("tanh", "tanh"), ("sqrt", "sqrt"),
        ("rsqrt", "rsqrt"), ("sigmoid", "sigmoid"), ("abs", "abs"), ("square", "square"), ("negative", "neg"),
        ("reciprocal", "reciprocal"), ("floor", "floor"), ("erf", "erf"), ("log1p", "log1p"), ("expm1", "expm1"),
        ("sum", "sum"), ("mean", "mean"), ("prod", "prod"), ("logsumexp", None), ("var", "var"), ("std", "std"),
        ("max", "max"), ("relu", "relu"),
    ) if theirs_name},
    "add": (dg.add, torch.add, (X, Y)), "multiply": (dg.multiply, torch.mul, (X, Y)),
    "divide": (dg.divide, torch.div, (X, Y)), "power": (dg.power, torch.pow, (X, Y)),
    "maximum": (dg.maximum, torch.maximum, (X, Y)), "atan2": (dg.atan2, torch.atan2, (X, Y)),
    "max over an axis": (lambda x: dg.max(x, axis=1), lambda x: x.max(dim=1)[0], (X,)),
    "logsumexp": (lambda x: dg.logsumexp(x, axis=1), lambda x: torch.logsumexp(x, 1), (X,)),
    "softmax": (lambda x: dg.softmax(x, axis=1), lambda x: torch.softmax(x, 1), (X,)),
    "log_softmax": (lambda x: dg.log_softmax(x, axis=1), lambda x: torch.log_softmax(x, 1), (X,)),
    "gelu": (dg.gelu, TF.gelu, (X,)), "silu": (dg.silu, TF.silu, (X,)), "elu": (dg.elu, TF.elu, (X,)),
    "softplus": (dg.softplus, TF.softplus, (X,)), "leaky_relu": (dg.leaky_relu, TF.leaky_relu, (X,)),
    "layer_norm": (
        lambda x, w, b: dg.layer_norm(x, w, b), lambda x, w, b: TF.layer_norm(x, (64,), w, b), (X, ROW, ROW.copy()),
    ),
    "cross_entropy": (dg.cross_entropy, TF.cross_entropy, (X, LABELS)),
    "mse_loss": (dg.mse_loss, TF.mse_loss, (X, Y)), "l1_loss": (dg.l1_loss, TF.l1_loss, (X, Y)),
    "bce_with_logits": (
        dg.binary_cross_entropy_with_logits, TF.binary_cross_entropy_with_logits, (X, Y),
    ),
    "matmul": (dg.matmul, torch.matmul, (X, Y.T.copy())), "linear": (dg.linear, TF.linear, (X, Y, ROW[:16].copy())),
    "conv2d": (F.conv2d, TF.conv2d, (IMAGE, FILTER, ROW[:8].copy())),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), lambda x: TF.max_pool2d(x, 2), (IMAGE,)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2), lambda x: TF.avg_pool2d(x, 2), (IMAGE,)),
    "reshape": (lambda x: x.reshape(-1), lambda x: x.reshape(-1), (X,)),
    "permute": (lambda x: x.permute(1, 0), lambda x: x.permute(1, 0), (X,)),
    "slice": (lambda x: x[2:5], lambda x: x[2:5], (X,)),
    "concat": (lambda x, y: dg.concat([x, y]), lambda x, y: torch.cat([x, y]), (X, Y)),
    "take": (lambda x, i: dg.take(x, i, axis=0), lambda x, i: TF.embedding(i, x), (X, LABELS % 16)),
    "where": (lambda x, y: dg.where(x > 0.5, x, y), lambda x, y: torch.where(x > 0.5, x, y), (X, Y)),
    "clip": (lambda x: dg.clip(x, 0.3, 0.6), lambda x: torch.clip(x, 0.3, 0.6), (X,)),
    "cumsum": (lambda x: dg.cumsum(x, axis=1), lambda x: torch.cumsum(x, 1), (X,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_tape_keeps_no_more_than_torch(name):
    mine, other, arrays = CASES[name]
    assert ours(mine, *arrays) <= theirs(other, *arrays) + SLACK
