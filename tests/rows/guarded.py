"""What a call of a function reads, as guards, and whether they notice a change."""

from duograd.graph.guards import ReadRecorder, compile_guards
from duograd.graph.running import KINDS


class Layer:
    gain = 1.0
    unused = 1

    def __init__(self, scale=2.0):
        self.scale = scale
        self.training = True
        self.other = 0

    def __call__(self, x):
        return self.forward(x)

    def forward(self, x):
        return x * self.scale if self.training else x


def record(fn, *args):
    with ReadRecorder() as recorder:
        fn(*args)
    assert recorder.odd is None or "could not be watched" not in recorder.odd[0]
    return recorder


def values_read(reads):
    """The names of what was read, without what says only which code ran."""
    return [r.name for r in reads if r.kind not in KINDS]


def guards_of(fn, *args):
    """Guards of one call; they hold right after it."""
    guards = compile_guards(record(fn, *args).reads)
    assert guards.check(), guards.first_failure()
    assert guards.first_failure() is None
    return guards


def assert_noticed(guards, name):
    """The guards fail, and the message names what changed."""
    assert not guards.check()
    assert name in guards.first_failure()
