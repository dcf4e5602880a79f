"""Data sets, batches, orders, splits."""

from collections import namedtuple

import duograd as dg
import numpy as np
import pytest
from duograd.interop.data import (
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    collate,
    permutation,
    random_split,
    train_test_split,
)


class Squares(Dataset):
    """Sample i is (i, i squared as an array)."""

    def __init__(self, n=7):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return index, np.full(2, index * index, np.float32)


def _rows(loader):
    return [batch[0].tolist() for batch in loader]


# ---------------------------------------------------------------- TensorDataset


def test_samples_are_rows():
    data = TensorDataset(dg.arange(3), np.eye(3, dtype=np.float32))
    assert len(data) == 3
    label, row = data[1]
    assert label.item() == 1
    assert row.tolist() == [0.0, 1.0, 0.0]
    assert len(list(data)) == 3


def test_batches_are_copies_with_the_dtypes_of_the_data():
    images = np.arange(12, dtype=np.float32).reshape(4, 3)
    x, y = next(iter(DataLoader(TensorDataset(images, np.arange(4)), 2)))
    assert (x.dtype, y.dtype) == (dg.float32, dg.int64)
    assert x.tolist() == images[:2].tolist()
    x.zero_()
    assert images[0].tolist() == [0.0, 1.0, 2.0]


def test_data_changed_later_is_seen():
    data = dg.zeros((4,))
    loader = DataLoader(TensorDataset(data), 4)
    data.fill_(2.0)
    assert next(iter(loader))[0].tolist() == [2.0] * 4


def test_batches_of_tensors_that_require_gradients_have_no_history():
    weight = dg.ones((4,)).requires_grad_()
    (x,) = next(iter(DataLoader(TensorDataset(weight * 2), 4)))
    assert not x.requires_grad
    assert x.tolist() == [2.0] * 4


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TensorDataset(), "no tensors"),
        (
            lambda: TensorDataset(dg.zeros((3,)), dg.zeros((4, 2))),
            r"unequal length: float32\[3\], float32\[4, 2\]",
        ),
        (lambda: TensorDataset(dg.zeros(())), "0-d"),
        (lambda: TensorDataset([1, 2]), "got a list"),
        (lambda: TensorDataset(np.array(["a"])), "not supported"),
        (lambda: Subset(Squares(3), [0, 3]), "outside the 3 samples"),
        (lambda: DataLoader(iter([1]), 2), r"no len\(\)"),
        (lambda: DataLoader(Squares(), 0), "batch_size=0"),
        (lambda: DataLoader(Squares(), 2.0), "batch_size=2.0"),
        (lambda: DataLoader(Squares(), 2, num_workers=-1), "num_workers=-1 is too small"),
        (lambda: DataLoader(Squares(), 2, num_workers=1.0), "num_workers=1.0 is a float"),
        (lambda: DataLoader(Squares(), 2, num_workers=1, prefetch_factor=0), "prefetch_factor=0"),
        (lambda: DataLoader(Squares(), 2, prefetch_factor=2), "num_workers=0"),
        (lambda: DataLoader(Squares(), 2, persistent_workers=True), "num_workers=0"),
        (
            lambda: DataLoader(Squares(), 2, num_workers=1, timeout=-1),
            "timeout=-1 is not a number of seconds",
        ),
        (lambda: DataLoader(Squares(), 2, seed=1, generator=dg.Generator(1)), "both"),
        (lambda: random_split(Squares(7), [3, 3]), "do not add up to 7"),
        (lambda: train_test_split(Squares(7), 1.5), "test_share=1.5"),
        (lambda: collate([1, "a"]), "different kinds: int, str"),
        (lambda: collate([np.zeros(2), np.zeros(3)]), r"different shapes: \[2\], \[3\]"),
    ],
)
def test_wrong_arguments_are_named(make, match):
    with pytest.raises(dg.errors.DuogradError, match=match) as error:
        make()
    assert "test_data.py" in error.value.line


# ---------------------------------------------------------------- DataLoader


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [3, 3, 1]), (True, [3, 3])])
def test_length_counts_batches(drop_last, sizes):
    loader = DataLoader(TensorDataset(dg.arange(7)), 3, drop_last=drop_last)
    assert len(loader) == len(sizes)
    assert [len(rows) for rows in _rows(loader)] == sizes


def test_without_shuffling_the_order_is_the_data_sets():
    assert _rows(DataLoader(TensorDataset(dg.arange(5)), 2)) == [[0, 1], [2, 3], [4]]


def test_an_epochs_order_depends_on_seed_and_epoch_alone():
    data = TensorDataset(dg.arange(20))
    first = DataLoader(data, 6, shuffle=True, seed=4)
    epochs = [_rows(first) for _ in range(3)]
    dg.randn(5)
    second = DataLoader(data, 6, shuffle=True, seed=4)
    assert [_rows(second) for _ in range(3)] == epochs
    second.set_epoch(1)
    assert _rows(second) == epochs[1]
    assert epochs[0] != epochs[1]
    assert sorted(i for rows in epochs[0] for i in rows) == list(range(20))
    assert _rows(DataLoader(data, 6, shuffle=True, seed=5)) != epochs[0]


def test_the_order_never_changes_between_versions():
    assert permutation(8, 1, 2).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]


def test_without_a_seed_the_order_follows_manual_seed():
    loader = DataLoader(TensorDataset(dg.arange(20)), 20, shuffle=True)
    dg.manual_seed(1)
    epochs = [_rows(loader) for _ in range(2)]
    dg.manual_seed(1)
    assert [_rows(loader) for _ in range(2)] == epochs
    assert epochs[0] != epochs[1]


def test_a_generator_gives_the_order():
    data = TensorDataset(dg.arange(20))
    a, b = (_rows(DataLoader(data, 20, shuffle=True, generator=dg.Generator(3))) for _ in range(2))
    assert a == b


def test_samples_are_collated():
    x, y = next(iter(DataLoader(Squares(), 3)))
    assert x.tolist() == [0, 1, 2]
    assert y.tolist() == [[0.0, 0.0], [1.0, 1.0], [4.0, 4.0]]
    assert next(iter(DataLoader([1.5, 2.5], 2))).dtype == dg.float32


def test_collate_keeps_the_structure():
    Point = namedtuple("Point", "x y")
    samples = [{"p": Point(1, 2.0), "t": dg.ones((2,)), "name": "a", "flag": True} for _ in range(3)]
    batch = collate(samples)
    assert batch["p"].x.tolist() == [1, 1, 1]
    assert batch["p"].y.dtype == dg.float32
    assert batch["t"].shape == (3, 2)
    assert batch["name"] == ["a", "a", "a"]
    assert batch["flag"].dtype == dg.bool


def test_collate_fn_gets_the_samples():
    loader = DataLoader(Squares(5), 2, collate_fn=lambda samples: [s[0] for s in samples])
    assert list(loader) == [[0, 1], [2, 3], [4]]


def test_an_empty_data_set_gives_no_batches():
    loader = DataLoader(TensorDataset(dg.zeros((0, 3))), 2, shuffle=True)
    assert len(loader) == 0
    assert list(loader) == []


def test_an_epoch_inside_a_function_is_left_to_python_and_its_steps_are_graphs():
    def run(mode):
        dg.manual_seed(3)
        loader = DataLoader(TensorDataset(dg.arange(7.0)), 2, shuffle=True)
        w = dg.ones(1).requires_grad_()
        step = dg.function(lambda x: w.sub_((x * w).mean().detach() * 0.01).clone(), mode=mode)

        @dg.function(mode=mode)
        def epoch():
            with dg.no_grad():
                return [step(x) for (x,) in loader]

        return [[w.item() for w in epoch()] for _ in range(3)], epoch, step

    got, epoch, step = run("graph")
    assert got == run("eager")[0]
    assert step.variants
    assert "loops over a DataLoader" in str(epoch.explain())


def test_a_loader_in_the_body_of_a_loop_is_an_error():
    loader = DataLoader(TensorDataset(dg.ones((4,))), 2)
    with pytest.raises(dg.errors.TraceError, match="batches would be constants"):
        dg.scan(lambda c, x: (c + sum(b.sum() for (b,) in loader), x), dg.tensor(0.0), dg.ones(3))


# ---------------------------------------------------------------- splits


def test_split_parts_are_disjoint_and_follow_the_seed():
    data = TensorDataset(dg.arange(10))
    parts = random_split(data, [0.5, 0.25, 0.25], seed=1)
    assert [len(p) for p in parts] == [6, 2, 2]
    assert sorted(i for p in parts for i in p.indices) == list(range(10))
    again = random_split(data, [6, 2, 2], seed=1)
    assert [p.indices.tolist() for p in parts] == [p.indices.tolist() for p in again]


@pytest.mark.parametrize("data", [TensorDataset(dg.arange(9)), Squares(9), list(range(9))], ids=type)
def test_parts_can_be_loaded_and_split_again(data):
    train, test = train_test_split(data, 1 / 3, seed=0)
    assert (len(train), len(test)) == (6, 3)
    inner, _ = random_split(train, [4, 2], seed=0)
    batch = next(iter(DataLoader(inner, 4)))
    values = (batch[0] if isinstance(batch, tuple) else batch).tolist()
    assert values == [int(train.indices[i]) for i in inner.indices]
