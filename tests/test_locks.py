"""Locks that a function takes and gives back: no trace takes them, and every call does."""

import contextlib
import threading

import duograd as dg
import pytest


def _taken(lock):
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Guarded:
    """Locks as programs keep them, and how often each way through them was taken."""

    def __init__(self):
        self.lock, self.again, self.spare = threading.Lock(), threading.RLock(), [threading.Lock()]
        self.condition, self.places = threading.Condition(), threading.Semaphore(1)
        self.take, self.give, self.count = self.lock.acquire, self.lock.release, 0

    @contextlib.contextmanager
    def holding(self):
        yield from _taken(self.lock)

    @contextlib.contextmanager
    def by_class(self):
        type(self.lock).acquire(self.lock)
        yield
        type(self.lock).release(self.lock)

    def stacked(self):
        stack = contextlib.ExitStack()
        stack.enter_context(self.lock)
        return stack


@pytest.mark.parametrize(
    "held",
    [
        lambda s: s.lock, lambda s: s.again, lambda s: s.spare[0], lambda s: next(iter(s.spare)), lambda s: s.condition,
        lambda s: s.places, lambda s: s.holding(), lambda s: s.stacked(), lambda s: s.by_class(),
    ],
    ids=["Lock", "RLock", "of a list", "of an iterator", "Condition", "Semaphore", "contextmanager", "ExitStack",
         "by its class"],
)  # fmt: skip
def test_a_lock_is_taken_and_given_back_at_every_call(held):
    state = Guarded()

    @dg.function
    def counted(x):
        with held(state):
            state.count += 1
        return x * state.count

    seen = []
    thread = threading.Thread(
        target=lambda: seen.extend(counted(dg.tensor([1.0])).item() for _ in range(4)), daemon=True
    )
    thread.start()
    thread.join(60)
    assert seen == [1.0, 2.0, 3.0, 4.0], "a lock that nobody gave back"
    assert not any(lock.locked() for lock in (state.lock, *state.spare))
    assert state.again.acquire(blocking=False)
    assert state.places.acquire(blocking=False)


def test_methods_of_a_lock_that_are_kept_are_called_each_time():
    state = Guarded()

    @dg.function
    def turned(x):
        (state.give if state.count % 2 else state.take)()
        state.count += 1
        return x * 2

    for k in range(5):
        turned(dg.ones(1))
        assert state.lock.locked() is (k % 2 == 0)
