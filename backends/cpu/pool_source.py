"""The thread pool and the program runner, as source text of the kernel language.

The pool's state is one block of int64 words (`layout` names them); words that different threads write lie on
different cache lines. The claim word packs `epoch << 32 | first << 16 | end`: the chunks of the wave that
nobody has claimed are [first, end). The thread that runs the program claims from the front, workers
from the back, so that with two threads the same half of the data stays in the same core's cache.
A claim is a compare-and-swap on the whole word, so a thread that slept through a wave cannot claim in the
next one by mistake; and once a claim holds, the wave cannot end before it is reported, so the wave's other
words are stable while its chunks run.
"""

from __future__ import annotations

_LINE = 16

# Word offsets in the state block.
LAYOUT = {
    "CLAIM": 0 * _LINE,
    "PENDING": 1 * _LINE,  # chunks of the wave that are not finished
    "SLEEPERS": 2 * _LINE,
    "OWNER": 3 * _LINE,  # 1 while a program has the workers
    "WAVE_ROWS": 4 * _LINE,
    "WAVE_FIRST": 4 * _LINE + 1,
    "WAVE_SHIFT": 4 * _LINE + 2,
    "OWNER_CPU": 4 * _LINE + 3,  # the CPU that the program was last seen on
    "OWNER_WAITS": 5 * _LINE,
    "STOP": 6 * _LINE,
    "WANTED": 6 * _LINE + 1,  # workers that should exist
    "STARTED": 6 * _LINE + 2,
    "SPIN": 6 * _LINE + 3,  # pauses before a worker sleeps
    "SPIN_OWNED": 6 * _LINE + 4,  # the same while a program has the workers
    "WORKER": 6 * _LINE + 5,  # address of worker()
    "SET_MASK": 6 * _LINE + 6,  # the platform's SIG_SETMASK
    "SIGNALS": 6 * _LINE + 7,  # signals that workers block; 16 words
    "NONE": 8 * _LINE,  # address of Python's None
    "TYPE_ERROR": 8 * _LINE + 1,
    "WRONG_COUNT": 8 * _LINE + 2,  # address of the text of that error
    "INTERRUPTED": 8 * _LINE + 3,  # the thread whose program is to end, because a signal's handler raised
    "CLOCK": 8 * _LINE + 4,  # the platform's CLOCK_MONOTONIC
    "ALIVE": 9 * _LINE,
    "NUMBERED": 9 * _LINE + 1,  # workers that have taken a number
    "THREAD": 10 * _LINE,
    "OLD_SIGNALS": 11 * _LINE,
    "MUTEX": 12 * _LINE,
    "WORK_READY": 13 * _LINE,
    "WAVE_DONE": 14 * _LINE,
}
STATE_WORDS = 16 * _LINE

# The words of a program's descriptor.
DESCRIPTOR = {
    "P_ROWS": 0,
    "P_NROWS": 1,
    "P_PATCHES": 2,
    "P_NPATCHES": 3,
    "P_ARGS": 4,
    "P_NARGS": 5,
    "P_DYN": 6,
    "P_NDYN": 7,
    "P_BUSY": 8,
    "P_RELEASE_GIL": 9,
}
DESCRIPTOR_WORDS = 16

# A row: kernel, argument block, chunks, and bits: 1 starts a wave, 2 runs rows of its own (alone in its wave).
# A patch: destination slot, source, byte offset. A nested table (`backends/cpu/control.py` writes it): rows, their
# number, patches, their number, those that change from turn to turn, argument blocks, their words, dynamic values,
# an area for a copy of both, then five words for each dynamic value (`core.backend.Binding`).
_BODY = '''
from duograd.backends.cpu.posix import *

ROW = 32
PATCH = 24
LIMIT = 65535
MASK_BYTES = 128


@inline
def interrupted(state):
    """Whether this thread's program is to end; an exception is set then."""
    who = load_i64(state + INTERRUPTED, 0)
    return who != 0 and who == pthread_self()


@inline
def unclaimed(claim):
    return (claim & 65535) - ((claim >> 16) & 65535)


@inline
def run_chunk(rows, chunk, shift):
    """Chunk number `chunk` of the wave whose first row is at `rows`."""
    n = load_i64(rows, 2)
    while chunk >= n:
        chunk -= n
        rows += ROW
        n = load_i64(rows, 2)
    call_kernel(load_i64(rows, 0), load_i64(rows, 1) + shift, chunk, n)


@inline
def work(state, from_front):
    """Claim and run chunks until none is left; returns how many this thread ran."""
    done = 0
    claim = atomic_load_i64(state + CLAIM)
    while unclaimed(claim) > 0:
        chunk = (claim >> 16) & 65535 if from_front != 0 else (claim & 65535) - 1
        if atomic_replace_i64(state + CLAIM, claim, claim + (65536 if from_front != 0 else -1)):
            chunk += load_i64(state + WAVE_FIRST, 0)
            run_chunk(load_i64(state + WAVE_ROWS, 0), chunk, load_i64(state + WAVE_SHIFT, 0))
            done += 1
        claim = atomic_load_i64(state + CLAIM)
    return done


@function
def step_aside(state, number, mask):
    """Move this thread off the CPU of the program that it works for; where it may run stays as it was.

    A scheduler may leave a woken worker for a second on the CPU of the thread that woke it, with
    the next CPU idle: two threads that wait for each other in turns.
    """
    cpu = load_i64(state + OWNER_CPU, 0)
    if sched_getaffinity(0, MASK_BYTES, mask) != 0:
        return
    count = 0
    for other in range(8 * MASK_BYTES):
        if other != cpu and (load_i64(mask, other >> 6) >> (other & 63)) & 1:
            count += 1
    if count == 0:
        return
    one = mask + MASK_BYTES
    skip = number % count
    for word in range(MASK_BYTES >> 3):
        store_i64(one, word, 0)
    for other in range(8 * MASK_BYTES):
        if other != cpu and (load_i64(mask, other >> 6) >> (other & 63)) & 1:
            if skip == 0:
                store_i64(one, other >> 6, types.int64(1) << (other & 63))
            skip -= 1
    sched_setaffinity(0, MASK_BYTES, one)
    sched_setaffinity(0, MASK_BYTES, mask)


def worker(state):
    """A worker thread's life: work, spin a little, sleep, until STOP is set."""
    number = atomic_add_i64(state + NUMBERED, 1)
    mask = malloc(2 * MASK_BYTES)
    while atomic_load_i64(state + STOP) == 0:
        if sched_getcpu() == load_i64(state + OWNER_CPU, 0):
            step_aside(state, number, mask)
        done = work(state, types.int64(0))
        if done > 0:
            if atomic_add_i64(state + PENDING, -done) == done:
                if atomic_load_i64(state + OWNER_WAITS) != 0:
                    pthread_mutex_lock(state + MUTEX)
                    pthread_cond_signal(state + WAVE_DONE)
                    pthread_mutex_unlock(state + MUTEX)
        spins = 0
        limit = load_i64(state + SPIN, 0)
        if atomic_load_i64(state + OWNER) != 0:
            limit = load_i64(state + SPIN_OWNED, 0)
        while unclaimed(atomic_load_i64(state + CLAIM)) <= 0 and spins < limit:
            cpu_pause()
            spins += 1
        if spins >= limit:
            pthread_mutex_lock(state + MUTEX)
            atomic_add_i64(state + SLEEPERS, 1)
            while unclaimed(atomic_load_i64(state + CLAIM)) <= 0 and atomic_load_i64(state + STOP) == 0:
                pthread_cond_wait(state + WORK_READY, state + MUTEX)
            atomic_add_i64(state + SLEEPERS, -1)
            pthread_mutex_unlock(state + MUTEX)
    free(mask)
    atomic_add_i64(state + ALIVE, -1)


@inline
def start_workers(state):
    """Create the workers that are wanted and not there; signals are left to the process's own threads."""
    pthread_sigmask(load_i64(state + SET_MASK, 0), state + SIGNALS, state + OLD_SIGNALS)
    for _ in range(load_i64(state + WANTED, 0) - load_i64(state + STARTED, 0)):
        atomic_add_i64(state + ALIVE, 1)
        if pthread_create(state + THREAD, 0, load_i64(state + WORKER, 0), state) == 0:
            pthread_detach(load_i64(state + THREAD, 0))
        else:
            atomic_add_i64(state + ALIVE, -1)
    store_i64(state + STARTED, 0, load_i64(state + WANTED, 0))
    pthread_sigmask(load_i64(state + SET_MASK, 0), state + OLD_SIGNALS, 0)


@function
def run_wave(state, rows, first, total, shift):
    """`total` chunks of the wave at `rows` from number `first` on, shared with the workers."""
    store_i64(state + WAVE_ROWS, 0, rows)
    store_i64(state + WAVE_FIRST, 0, first)
    store_i64(state + WAVE_SHIFT, 0, shift)
    atomic_store_i64(state + PENDING, total)
    epoch = (load_i64(state + CLAIM, 0) >> 32) + 1
    atomic_store_i64(state + CLAIM, (epoch << 32) | total)
    sleepers = atomic_load_i64(state + SLEEPERS)
    if sleepers > 0:
        pthread_mutex_lock(state + MUTEX)
        if sleepers < total:
            pthread_cond_broadcast(state + WORK_READY)
        else:
            for _ in range(total - 1):
                pthread_cond_signal(state + WORK_READY)
        pthread_mutex_unlock(state + MUTEX)
    done = work(state, types.int64(1))
    if atomic_add_i64(state + PENDING, -done) != done:
        spins = 0
        limit = load_i64(state + SPIN_OWNED, 0)
        while atomic_load_i64(state + PENDING) > 0 and spins < limit:
            cpu_pause()
            spins += 1
        if spins >= limit:
            pthread_mutex_lock(state + MUTEX)
            atomic_store_i64(state + OWNER_WAITS, 1)
            while atomic_load_i64(state + PENDING) > 0:
                pthread_cond_wait(state + WAVE_DONE, state + MUTEX)
            atomic_store_i64(state + OWNER_WAITS, 0)
            pthread_mutex_unlock(state + MUTEX)


@function
def run_rows(state, rows, nrows, shift):
    """The whole table; `shift` is the distance in bytes from the rows' argument blocks to those to use."""
    owner = False
    last = rows + ROW * nrows
    while rows < last and not interrupted(state):
        total = load_i64(rows, 2)
        next_rows = rows + ROW
        while next_rows < last and load_i64(next_rows, 3) & 1 == 0:
            total += load_i64(next_rows, 2)
            next_rows += ROW
        if load_i64(rows, 3) & 2 != 0 and owner:  # it takes the workers itself, wave by wave
            atomic_store_i64(state + OWNER, 0)
            owner = False
        if total > 1 and not owner and load_i64(state + WANTED, 0) > 0:
            owner = atomic_replace_i64(state + OWNER, 0, 1)
            if owner:
                store_i64(state + OWNER_CPU, 0, sched_getcpu())
            if owner and load_i64(state + STARTED, 0) < load_i64(state + WANTED, 0):
                start_workers(state)
        if total > 1 and owner:
            first = 0
            while first < total:
                count = total - first
                if count > LIMIT:
                    count = LIMIT
                run_wave(state, rows, first, count, shift)
                first += LIMIT
            rows = next_rows
        else:
            while rows < next_rows:
                n = load_i64(rows, 2)
                for chunk in range(n):
                    call_kernel(load_i64(rows, 0), load_i64(rows, 1) + shift, chunk, n)
                rows += ROW
    if owner:
        atomic_store_i64(state + OWNER, 0)


@inline
def apply_patches(patches, npatches, args, dyn):
    for patch in range(npatches):
        at = patches + PATCH * patch
        store_i64(args, load_i64(at, 0), load_i64(dyn, load_i64(at, 1)) + load_i64(at, 2))


@inline
def copy_blocks(table):
    """A copy of a nested table's argument blocks, so that calls from several threads do not meet."""
    memcpy(load_i64(table, 8), load_i64(table, 5), 8 * load_i64(table, 6))


@function
def run_table(state, table, turn, position, even):
    """Bind the dynamic values of a nested table for one turn and run its rows."""
    area = load_i64(table, 8)
    dyn = area + 8 * load_i64(table, 6)
    for k in range(load_i64(table, 7)):
        at = table + 72 + 40 * k
        kind = load_i64(at, 0)
        value = load_i64(at, 1)
        if kind == 1:
            value += load_i64(at, 2) * position
        elif kind >= 2:
            odd = (turn + even + (1 if kind == 2 else 0)) & 1
            if kind == 3 or turn > 0:
                value = load_i64(at, 2 + odd)
        store_i64(dyn, k, value)
    apply_patches(load_i64(table, 2), load_i64(table, 4 if turn > 0 else 3), area, dyn)
    run_rows(state, load_i64(table, 0), load_i64(table, 1), area - load_i64(table, 5))


@function
def nanoseconds(state, area):
    """The time of a clock that never goes back."""
    clock_gettime(load_i64(state + CLOCK, 0), area)
    return load_i64(area, 0) * 1000000000 + load_i64(area, 1)


@function
def ask_python(state):
    """Let Python run the handlers of signals that have come. Returns whether one raised: the program is to end."""
    hold = PyGILState_Ensure()
    raised = PyErr_CheckSignals()
    PyGILState_Release(hold)
    if raised != 0:
        store_i64(state + INTERRUPTED, 0, pthread_self())
    return raised


def run_loop(args, chunk, nchunks):
    """A kernel: a nested table turn by turn. args: turns (-1: as long as the test says), 1 for backwards, words from
    `args` to the table of the test (0: none), address of its result, words to the table of the body."""
    state = load_i64(state_cell(), 0)
    turns = load_i64(args, 0)
    test = load_i64(args, 2)
    body = args + 8 * load_i64(args, 4)
    even = (turns - 1) & 1 if turns > 0 else 0  # the last turn writes the results
    copy_blocks(body)
    if test != 0:
        copy_blocks(args + 8 * test)
    turn = 0
    # Python is asked for signals every 20 ms; the clock is read after 1, 2, 4, ... turns, as long as these are short.
    area = malloc(16)
    asked = nanoseconds(state, area)
    stride = 1
    due = 1
    while (turns < 0 or turn < turns) and not interrupted(state):
        if test != 0:
            run_table(state, args + 8 * test, turn, turn, even)
            if load_u8(load_i64(args, 3), 0) == 0:
                break
        position = turns - 1 - turn if load_i64(args, 1) != 0 else turn
        run_table(state, body, turn, position, even)
        turn += 1
        if turn >= due:
            waited = nanoseconds(state, area) - asked
            if waited > 20000000:
                if ask_python(state) != 0:
                    break
                asked += waited
                if waited > 50000000:
                    stride = 1
            elif waited < 5000000:
                stride *= 2
            due = turn + stride
    free(area)
    for k in range(load_i64(body, 7)):
        at = body + 72 + 40 * k
        if load_i64(at, 0) == 2:
            value = load_i64(at, 1)
            if turn > 0:
                value = load_i64(at, 2 + ((turn - 1 + even) & 1))
            if value != load_i64(at, 2):
                memcpy(load_i64(at, 2), value, load_i64(at, 4))


def run_branch(args, chunk, nchunks):
    """A kernel: one of two nested tables. args: address of the bool, words to the table for True, for False."""
    state = load_i64(state_cell(), 0)
    table = args + 8 * load_i64(args, 1 if load_u8(load_i64(args, 0), 0) != 0 else 2)
    copy_blocks(table)
    run_table(state, table, 0, 0, 0)


def run_program(rows, nrows, patches, npatches, args, dyn):
    """Patch the argument blocks and run the table."""
    apply_patches(patches, npatches, args, dyn)
    run_rows(load_i64(state_cell(), 0), rows, nrows, 0)


def run_descriptor(capsule, values):
    """The same as a CPython function of one list or tuple of ints; `capsule` is (descriptor, owner)."""
    program = PyLong_AsLongLong(PyTuple_GetItem(capsule, 0))
    state = load_i64(state_cell(), 0)
    n = load_i64(program + P_NDYN, 0)
    args = load_i64(program + P_ARGS, 0)
    dyn = load_i64(program + P_DYN, 0)
    nargs = load_i64(program + P_NARGS, 0)
    shift = 0
    # Another thread is inside this program: work on a copy of its argument blocks.
    copy = 0
    if not atomic_replace_i64(program + P_BUSY, 0, 1):
        copy = malloc(8 * (nargs + n + 1))
        for i in range(nargs):
            store_i64(copy, i, load_i64(args, i))
        shift = copy - args
        args = copy
        dyn = copy + 8 * nargs
    listed = 0
    count = PyList_Size(values)
    if count < 0:
        PyErr_Clear()
        listed = PySequence_List(values)
        values = listed
        count = PyList_Size(values) if listed != 0 else -1
    result = 0
    if count == n:
        suspect = False
        for i in range(n):
            value = PyLong_AsLongLong(PyList_GetItem(values, i))
            suspect |= value == -1
            store_i64(dyn, i, value)
        if not suspect or PyErr_Occurred() == 0:
            apply_patches(load_i64(program + P_PATCHES, 0), load_i64(program + P_NPATCHES, 0), args, dyn)
            release = load_i64(program + P_RELEASE_GIL, 0)
            thread = PyEval_SaveThread() if release != 0 else 0
            run_rows(state, load_i64(program + P_ROWS, 0), load_i64(program + P_NROWS, 0), shift)
            if release != 0:
                PyEval_RestoreThread(thread)
            if interrupted(state):
                store_i64(state + INTERRUPTED, 0, 0)
            else:
                result = load_i64(state + NONE, 0)
                Py_IncRef(result)
    elif count >= 0:
        PyErr_SetString(load_i64(state + TYPE_ERROR, 0), load_i64(state + WRONG_COUNT, 0))
    if listed != 0:
        Py_DecRef(listed)
    if copy != 0:
        free(copy)
    else:
        atomic_store_i64(program + P_BUSY, 0)
    return result


def attach(state):
    """Make `state` the block that the other functions use."""
    store_i64(state_cell(), 0, state)


def reset(state):
    """Locks that nobody holds and no workers: at the start, and in a child process after a fork."""
    pthread_mutex_init(state + MUTEX, 0)
    pthread_cond_init(state + WORK_READY, 0)
    pthread_cond_init(state + WAVE_DONE, 0)
    for offset in (CLAIM, PENDING, SLEEPERS, OWNER, OWNER_WAITS, STOP, STARTED, ALIVE, NUMBERED):
        store_i64(state + offset, 0, 0)


def stop(state):
    """Ask the workers to end; needs the ownership."""
    atomic_store_i64(state + STOP, 1)
    pthread_mutex_lock(state + MUTEX)
    pthread_cond_broadcast(state + WORK_READY)
    pthread_mutex_unlock(state + MUTEX)


def take(state):
    """Take the ownership of the workers if nobody has it; returns whether it did."""
    return 1 if atomic_replace_i64(state + OWNER, 0, 1) else 0


def give(state):
    """Give the ownership back."""
    atomic_store_i64(state + OWNER, 0)


def spin(count):
    """`count` pauses, to be timed."""
    for _ in range(count):
        cpu_pause()
'''

# The source knows the words by their byte offsets.
SOURCE = "".join(f"{name} = {8 * word}\n" for name, word in (LAYOUT | DESCRIPTOR).items()) + _BODY

ENTRIES = (
    ("run_loop", "iii", "v"),
    ("run_branch", "iii", "v"),
    ("run_program", "iiiiii", "v"),
    ("run_descriptor", "ii", "i"),
    ("worker", "i", "v"),
    ("attach", "i", "v"),
    ("reset", "i", "v"),
    ("stop", "i", "v"),
    ("take", "i", "i"),
    ("give", "i", "v"),
    ("spin", "i", "v"),
)
