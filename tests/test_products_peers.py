"""Products against NumPy and PyTorch: values, dtypes and gradients over a grid of equations and shapes."""

import duograd as dg
import numpy as np
import pytest
from duograd.core.ops.einsum import _plan


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: products are not compared with it")


EQUATIONS = [
    ("ij,jk->ik", (3, 4), (4, 5)),
    ("ij,jk", (3, 4), (4, 5)),
    ("ba,cb", (3, 4), (5, 3)),
    ("ii", (4, 4)),
    ("iji->j", (3, 2, 3)),
    ("iii->i", (3, 3, 3)),
    ("ij->", (3, 4)),
    ("...ij->...ji", (2, 3, 4)),
    ("...,...->...", (2, 1, 4), (3, 1)),
    ("b...i,...ij->bj...", (2, 3, 4), (3, 4, 5)),
    ("i,j,k->kij", (2,), (3,), (4,)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("bhqk,bhkd->bqhd", (2, 3, 4, 6), (2, 3, 6, 5)),
    ("ij,ij->i", (3, 4), (3, 4)),
    ("ij,kj->", (3, 4), (2, 4)),
    ("ab,bc,cd,de,ef->af", (2, 3), (3, 4), (4, 2), (2, 5), (5, 3)),
    ("abc,bd,cd,ae->e", (2, 3, 4), (3, 5), (4, 5), (2, 6)),
    ("ij,jk->ik", (0, 4), (4, 5)),
    ("ij,jk->ik", (3, 0), (0, 5)),
    ("ijk,k->", (2, 3, 4), (4,)),
    (" i j , j -> i ", (3, 4), (4,)),
    ("iij,jk->ik", (3, 3, 4), (4, 2)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("case", EQUATIONS, ids=lambda c: c[0].replace(" ", ""))
def test_einsum_equals_numpy(case, dtype, close):
    equation, *shapes = case
    arrays = [np.random.randint(-9, 9, s).astype(dtype) / (4 if dtype != "int64" else 1) for s in shapes]
    arrays = [a.astype(dtype) for a in arrays]
    close(dg.einsum(equation, *map(dg.tensor, arrays)).numpy(), np.einsum(equation, *arrays), scale=4)


@pytest.mark.parametrize("case", [c for c in EQUATIONS if 0 not in c[1]], ids=lambda c: c[0].replace(" ", ""))
def test_einsum_has_the_gradients_of_torch(case, torch, close):
    equation, *shapes = case
    arrays = [np.random.randn(*s) for s in shapes]
    ours = [dg.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    for out in (dg.einsum(equation, *ours), torch.einsum(equation, *theirs)):
        (out * out).sum().backward()
    for x, y in zip(ours, theirs):
        close(x.grad.numpy(), y.grad.numpy(), scale=100)


def test_axes_of_size_one_broadcast_under_a_letter(torch, close):
    x, y = np.random.randn(3, 1), np.random.randn(4, 5)
    want = torch.einsum("ij,jk->ik", torch.tensor(x), torch.tensor(y))
    close(dg.einsum("ij,jk->ik", dg.tensor(x), dg.tensor(y)).numpy(), want.numpy())


def test_einsum_takes_lists_of_labels(close):
    x, y = np.random.randn(3, 4), np.random.randn(4, 5)
    a, b = dg.tensor(x), dg.tensor(y)
    close(dg.einsum(a, [0, 1], b, [1, 2], [0, 2]).numpy(), x @ y)
    close(dg.einsum(a, [0, 1], b, [1, 2]).numpy(), x @ y)
    close(dg.einsum(a, [..., 1], b, [1, 2], [..., 2]).numpy(), x @ y)
    close(dg.einsum("ij,jk", [a, b]).numpy(), x @ y)


def test_the_cheapest_order_is_taken():
    plan = _plan("ab,bc,cd->ad", ((1000, 2), (2, 1000), (1000, 3)))
    assert plan.pairs[0] == (1, 2)
    many = ",".join(a + b for a, b in zip("abcdefghij", "bcdefghijk")) + "->ak"
    assert len(_plan(many, ((2, 2),) * 10).pairs) == 9


MIXED = ["int8", "uint8", "int32", "int64", "float32", "float64"]


@pytest.mark.parametrize("a", MIXED)
@pytest.mark.parametrize("b", MIXED)
def test_matmul_promotes_as_numpy(a, b, close):
    x = np.arange(6).reshape(2, 3).astype(a)
    y = np.arange(12).reshape(3, 4).astype(b)
    close(dg.matmul(dg.tensor(x), dg.tensor(y)).numpy(), x @ y)


def test_matmul_promotes_vectors_batches_and_broadcast_operands(close):
    x, y = np.random.randn(2, 3, 4).astype(np.float32), np.random.randn(4)
    close((dg.tensor(x) @ dg.tensor(y)).numpy(), x @ y)
    wide = np.broadcast_to(x[:1], (5, 3, 4))
    given = dg.broadcast_to(dg.tensor(x[:1]), shape=(5, 3, 4))
    z = np.random.randn(5, 4, 2)
    close((given @ dg.tensor(z)).numpy(), wide @ z)


def test_matmul_of_mixed_floats_has_gradients_in_their_dtypes(close):
    x, y = np.random.randn(2, 3).astype(np.float32), np.random.randn(3, 4)
    a, b = dg.tensor(x, requires_grad=True), dg.tensor(y, requires_grad=True)
    (a @ b).sum().backward()
    close(a.grad.numpy(), (np.ones((2, 4)) @ y.T).astype(np.float32))
    close(b.grad.numpy(), x.astype(float).T @ np.ones((2, 4)))


NUMPY = {
    "tensordot": ((2, 3, 4), (3, 4, 5)),
    "vecdot": ((2, 1, 4), (3, 4)),
    "dot": ((2, 3), (5, 3, 4)),
    "inner": ((2, 3), (4, 3)),
    "outer": ((2, 2), (3,)),
    "kron": ((2, 3), (3, 1, 2)),
    "cross": ((4, 3), (3,)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("name", NUMPY)
def test_products_equal_numpy(name, dtype, close):
    x, y = (np.random.uniform(-5, 5, s).astype(dtype) for s in NUMPY[name])
    close(getattr(dg, name)(dg.tensor(x), dg.tensor(y)).numpy(), getattr(np, name)(x, y), scale=4)


TORCH = {
    "mm": ((2, 3), (3, 4)),
    "bmm": ((2, 3, 4), (2, 4, 5)),
    "mv": ((3, 4), (4,)),
    "addmm": ((4,), (2, 3), (3, 4)),
    "addmv": ((2,), (2, 3), (3,)),
    "addr": ((2, 3), (2,), (3,)),
    "baddbmm": ((2, 3, 5), (2, 3, 4), (2, 4, 5)),
    "addbmm": ((3, 5), (2, 3, 4), (2, 4, 5)),
    "kron": ((2, 3), (3, 2)),
    "chain_matmul": ((2, 5), (5, 3), (3, 4)),
}


@pytest.mark.parametrize("settings", [{}, {"beta": 0.5, "alpha": 2.0}, {"beta": 0}], ids=str)
@pytest.mark.parametrize("name", TORCH)
def test_products_equal_torch(name, settings, torch, close):
    if settings and not name.startswith(("add", "badd")):
        settings = {}
    arrays = [np.random.randn(*s) for s in TORCH[name]]
    theirs = torch.linalg.multi_dot if name == "chain_matmul" else getattr(torch, name)
    xs = [torch.tensor(a) for a in arrays]
    want = theirs(xs) if name == "chain_matmul" else theirs(*xs, **settings)
    close(getattr(dg, name)(*map(dg.tensor, arrays), **settings).numpy(), want.numpy())


def test_bilinear_equals_torch(torch, close):
    arrays = [np.random.randn(*s) for s in ((2, 3, 4), (2, 3, 5), (6, 4, 5), (6,))]
    want = torch.nn.functional.bilinear(*map(torch.tensor, arrays))
    close(dg.bilinear(*map(dg.tensor, arrays)).numpy(), want.numpy())


@pytest.mark.parametrize("offset", [-5, -2, -1, 0, 1, 2, 3, 7])
@pytest.mark.parametrize("dtype", ["float64", "int8", "bool"])
def test_trace_equals_numpy(offset, dtype, close):
    x = np.random.randint(0, 9, (2, 3, 4)).astype(dtype)
    close(dg.trace(dg.tensor(x), offset=offset).numpy(), np.trace(x, offset, 1, 2))


def test_the_bilinear_layer_equals_torch(torch, close):
    ours, theirs = dg.nn.Bilinear(4, 5, 6), torch.nn.Bilinear(4, 5, 6)
    with dg.no_grad(), torch.no_grad():
        for p, q in zip(ours.parameters(), theirs.parameters()):
            q.copy_(torch.tensor(p.numpy()))
    x, y = np.random.randn(3, 4).astype(np.float32), np.random.randn(3, 5).astype(np.float32)
    want = theirs(torch.tensor(x), torch.tensor(y)).detach().numpy()
    close(ours(dg.tensor(x), dg.tensor(y)).detach().numpy(), want)
