"""What looks through the garbage collector's objects while a trace runs leaves the other threads' alone."""

import gc
import threading

import pytest
from duograd.graph.nursery import Nursery


@pytest.mark.parametrize("collecting", [True, False])
def test_a_tuple_that_another_thread_is_making_is_not_held(collecting):
    """`tuple(...)` there raised SystemError: the tuple's size is set at the end, when nobody else may hold it."""
    begun, go, found = threading.Event(), threading.Event(), []

    def rows():
        yield 1
        begun.set()
        go.wait(60)
        yield 2

    def work():
        try:
            found.append(tuple(rows()))
        except SystemError as e:
            found.append(e)

    thread = threading.Thread(target=work)
    if not collecting:
        gc.disable()
    try:
        with Nursery():
            thread.start()
            begun.wait(60)
            with Nursery() as nursery:
                made = [[1]]
                go.set()
                thread.join(60)
                assert nursery.made()(made)
    finally:
        gc.enable()
    assert found == [(1, 2)]


def test_traces_of_two_threads_know_what_they_made():
    old = [[0]]
    with Nursery() as first:
        mine = [[1]]
        with Nursery() as second:
            later = [[2]]
            found = [[n.made()(x) for x in (old, mine, later)] for n in (first, second)]
    assert found == [[False, True, True], [False, False, True]]
