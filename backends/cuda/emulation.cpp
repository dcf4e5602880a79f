// Runs CUDA kernels on a CPU: threads of a block are fibers, and every access to memory is looked at.
//
// A warp runs to the next __syncthreads before another one does, and so does a lane between shuffles; blocks, warps
// and lanes come in ascending, descending or random order. Each byte of device and shared memory remembers who
// wrote and who read it last. Found are: a place that two threads of a launch access, one of them writing, with no
// barrier between; a byte that is read before anything was written there; an address outside of the device's memory
// and one that is not a multiple of the access; barriers and shuffles that not all threads reach.
// It cannot show speed, tensor cores, or what weaker orders of memory than these would do.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>
#include <vector>

#include "emulation.h"

EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

extern "C" {
extern char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
}

namespace emulation {

typedef uintptr_t Address;

// What a byte remembers: the stamps of the last write and of two reads; 0 for none.
struct Cell {
    uint32_t write, reads[2];
};

struct Allocation {
    Address begin, end;
    Cell* cells;
};

// What the driver hands over; `Machine` in emulate.py. The allocations are sorted.
struct Machine {
    const Allocation* allocations;
    uint64_t count;
    uint32_t stamp, order;  // order: 0 ascending, 1 descending, else the seed of a random one
};

// A thread between two barriers. Accesses carry its stamp.
struct Segment {
    uint32_t block, thread, block_epoch, warp_epoch;
};

enum State { READY, AT_WARP, AT_BLOCK, DONE, FAILED };

struct Fiber {
    ucontext_t context;
    State state;
    char* stack;
    unsigned long long exchanged;
    const void* place;
    uint32_t stamp, block_epoch, warp_epoch;
};

const unsigned MAX_THREADS = 1024, STACK = 1 << 16;
Fiber fibers[MAX_THREADS];
ucontext_t scheduler;
unsigned current;
bool running;
void (*body)(const long long*);
const long long* arguments;
char message[400];
Machine* machine;
const Allocation* last;
uint32_t launch_stamp, random_state;
std::vector<Segment> segments;
std::vector<Cell> shared_cells;

void meet(State state) {
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}

template <class... A> void fail(const char* format, A... a) {
    const int n = std::snprintf(message, sizeof message, "block %u, thread %u ", blockIdx.x, current);
    std::snprintf(message + n, sizeof message - n, format, a...);
    meet(FAILED);
}

void new_segment(Fiber& fiber, unsigned thread) {
    segments.push_back({blockIdx.x, thread, fiber.block_epoch, fiber.warp_epoch});
    fiber.stamp = launch_stamp + (uint32_t)segments.size() - 1;
}

void start() {
    body(arguments);
    meet(DONE);
}

void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x, 0};
    running = true;
    swapcontext(&scheduler, &fibers[thread].context);
    running = false;
}

// ---- orders

unsigned random_below(unsigned n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (unsigned)(((uint64_t)random_state * n) >> 32);
}

std::vector<unsigned> in_order(unsigned n) {
    std::vector<unsigned> order(n);
    for (unsigned k = 0; k < n; ++k) order[k] = machine->order == 1 ? n - 1 - k : k;
    if (machine->order > 1)
        for (unsigned k = n; k > 1; --k) std::swap(order[k - 1], order[random_below(k)]);
    return order;
}

// ---- accesses

// Whether what the stamp stands for came before what the current thread does now, by a barrier or another launch.
bool is_before(uint32_t stamp) {
    if (stamp < launch_stamp) return true;
    const Segment &a = segments[stamp - launch_stamp], &b = segments[fibers[current].stamp - launch_stamp];
    if (a.block != b.block) return false;
    if (a.thread == b.thread || a.block_epoch < b.block_epoch) return true;
    return a.thread / 32 == b.thread / 32 && a.warp_epoch < b.warp_epoch;
}

void conflict(const char* verb, const char* what, long byte, uint32_t other, const char* other_verb) {
    const Segment& s = segments[other - launch_stamp];
    fail("%s byte %ld of %s, which thread %u of block %u %s with no barrier between", verb, byte, what, s.thread,
         s.block, other_verb);
}

void touch_cells(Cell* cell, Address first, Address at, size_t bytes, bool write, const char* what) {
    const uint32_t now = fibers[current].stamp;
    for (size_t k = 0; k < bytes; ++k, ++cell) {
        const long byte = (long)(at - first + k);
        if (!write && cell->write == 0) return fail("reads byte %ld of %s, which nothing has written", byte, what);
        if (!is_before(cell->write))
            return conflict(write ? "writes" : "reads", what, byte, cell->write, "writes");
        if (!write) {
            // Two reads that no barrier has passed since are enough: one of them is not the writer's own.
            cell->reads[is_before(cell->reads[0]) ? 0 : 1] = now;
            continue;
        }
        for (uint32_t read : cell->reads)
            if (!is_before(read)) return conflict("writes", what, byte, read, "reads");
        *cell = {now, {0, 0}};
    }
}

void touch(Address at, size_t bytes, bool write, bool aligned) {
    if (!running || at - (Address)fibers[current].stack < STACK) return;
    if (aligned && at % bytes != 0) return fail("accesses %zu bytes at %#zx, no multiple", bytes, (size_t)at);
    const Address image = (Address)__ehdr_start, shared = (Address)__start_emulated_shared;
    if (at - image < (Address)_end - image) {
        if (at - shared < shared_cells.size())
            touch_cells(&shared_cells[at - shared], shared, at, bytes, write, "shared memory");
        return;
    }
    if (last == nullptr || at < last->begin || at >= last->end) {
        const Allocation *low = machine->allocations, *high = low + machine->count;
        last = std::upper_bound(low, high, at, [](Address a, const Allocation& b) { return a < b.begin; });
        last = last == low ? nullptr : last - 1;
    }
    const char* verb = write ? "writes" : "reads";
    if (last == nullptr || at + bytes > last->end) {
        if (last != nullptr && at < last->end + 4096)
            return fail("%s %zu bytes at byte %zu of %zu bytes of memory", verb, bytes, (size_t)(at - last->begin),
                        (size_t)(last->end - last->begin));
        return fail("%s %zu bytes at %#zx, which is no memory of the device", verb, bytes, (size_t)at);
    }
    char what[60];
    std::snprintf(what, sizeof what, "%zu bytes of memory", (size_t)(last->end - last->begin));
    touch_cells(last->cells + (at - last->begin), last->begin, at, bytes, write, what);
}

// ---- barriers

unsigned lane() { return current % 32; }

void barrier_of_block() {
    meet(AT_BLOCK);
    Fiber& fiber = fibers[current];
    ++fiber.block_epoch;
    new_segment(fiber, current);
}

void barrier_of_warp(unsigned mask) {
    if (mask != FULL) return fail("meets a part of its warp, %#x: not emulated", mask);
    meet(AT_WARP);
    Fiber& fiber = fibers[current];
    ++fiber.warp_epoch;
    new_segment(fiber, current);
}

// No barrier for memory: a shuffle orders nothing but itself.
void exchange(const void* value, void* taken, unsigned bytes, unsigned from, unsigned mask, const void* place) {
    if (mask != FULL) return fail("shuffles with a part of its warp, %#x: not emulated", mask);
    const unsigned self = current;
    std::memcpy(&fibers[self].exchanged, value, bytes);
    fibers[self].place = place;
    meet(AT_WARP);
    const Fiber& other = fibers[self - self % 32 + from];
    if (other.place != place) return fail("meets another shuffle of its warp");
    std::memcpy(taken, &other.exchanged, bytes);
    meet(AT_WARP);  // nobody writes again before all have read
}

// ---- the scheduler

// Runs a warp to its barrier or its end. False: see the message.
bool run_warp(unsigned first, unsigned lanes) {
    for (;;) {
        for (unsigned k : in_order(lanes)) {
            if (fibers[first + k].state == READY) resume(first + k);
            if (fibers[first + k].state == FAILED) return false;
        }
        unsigned waiting = 0;
        for (unsigned k = 0; k < lanes; ++k) waiting += fibers[first + k].state == AT_WARP;
        if (waiting == 0) return true;
        if (waiting != lanes || lanes != 32) {
            std::snprintf(message, sizeof message, "block %u: the lanes of a warp part at a shuffle", blockIdx.x);
            return false;
        }
        for (unsigned k = 0; k < lanes; ++k) fibers[first + k].state = READY;
    }
}

bool run_block() {
    const unsigned threads = blockDim.x * blockDim.y, warps = (threads + 31) / 32;
    if (__start_emulated_shared != nullptr) {
        const size_t bytes = __stop_emulated_shared - __start_emulated_shared;
        std::memset(__start_emulated_shared, 0xff, bytes);
        shared_cells.assign(bytes, Cell{});
    }
    for (unsigned t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[t];
        if (fiber.stack == nullptr) fiber.stack = (char*)std::malloc(STACK);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, start, 0);
        fiber.state = READY;
        fiber.block_epoch = fiber.warp_epoch = 0;
        new_segment(fiber, t);
    }
    for (;;) {
        for (unsigned w : in_order(warps))
            if (!run_warp(32 * w, std::min(threads - 32 * w, 32u))) return false;
        unsigned waiting = 0;
        for (unsigned t = 0; t < threads; ++t) waiting += fibers[t].state == AT_BLOCK;
        if (waiting == 0) return true;
        if (waiting != threads) {
            std::snprintf(message, sizeof message, "block %u: only %u of %u threads reach a barrier", blockIdx.x,
                          waiting, threads);
            return false;
        }
        for (unsigned t = 0; t < threads; ++t) fibers[t].state = READY;
    }
}

// 0, or 1 with `message` set.
int run_grid(void (*kernel)(const long long*), const long long* slots, unsigned blocks, unsigned x, unsigned y,
             Machine* given) {
    body = kernel;
    arguments = slots;
    machine = given;
    last = nullptr;
    gridDim = {blocks, 1, 1};
    blockDim = {x, y, 1};
    random_state = machine->order;
    launch_stamp = machine->stamp;
    segments.clear();
    bool ok = x * y <= MAX_THREADS;
    if (!ok) std::snprintf(message, sizeof message, "%u threads are too many for a block", x * y);
    const std::vector<unsigned> order = in_order(blocks);
    for (unsigned k = 0; ok && k < blocks; ++k) {
        blockIdx = {order[k], 0, 0};
        ok = run_block();
    }
    machine->stamp += (uint32_t)segments.size();
    return ok ? 0 : 1;
}

}  // namespace emulation

extern "C" {
const char* emulation_message() { return emulation::message; }

// What g++ calls for -fsanitize=thread.
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_read_range(emulation::Address at, size_t bytes) { emulation::touch(at, bytes, false, false); }
void __tsan_write_range(emulation::Address at, size_t bytes) { emulation::touch(at, bytes, true, false); }
#define ACCESS(bytes)                                                                                       \
    void __tsan_read##bytes(emulation::Address at) { emulation::touch(at, bytes, false, true); }            \
    void __tsan_write##bytes(emulation::Address at) { emulation::touch(at, bytes, true, true); }            \
    void __tsan_unaligned_read##bytes(emulation::Address at) { emulation::touch(at, bytes, false, true); }  \
    void __tsan_unaligned_write##bytes(emulation::Address at) { emulation::touch(at, bytes, true, true); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
}
