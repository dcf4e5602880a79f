// CUDA C on a CPU: the names that kernels use, and threads of a block as fibers. Compiled by g++.
//
// Warps run one after the other, each as far as the next __syncthreads, in ascending or descending order, and
// so do the lanes of a warp between shuffles. A missing barrier then shows: in one order a thread reads what has
// not been written yet. Shared memory begins with bytes that differ between the two orders.
// It cannot show speed, tensor cores or the order of memory accesses between blocks.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
// The linker gives the section's ends, so that it can be filled before each block.
#define __shared__ static __attribute__((section("emulated_shared")))

struct EmulatedIndex {
    unsigned x, y, z;
};
EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Fiber {
    ucontext_t context;
    State state;
    char* stack;
    unsigned long long exchanged;
};

const unsigned MAX_THREADS = 1024, STACK = 1 << 16;
Fiber fibers[MAX_THREADS];
ucontext_t scheduler;
unsigned current;
void (*body)(const long long*);
const long long* arguments;
char message[200];

extern "C" char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

inline void meet(State state) {
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}

inline void start() {
    body(arguments);
    meet(DONE);
}

inline void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x, 0};
    swapcontext(&scheduler, &fibers[thread].context);
}

// Runs a warp to its barrier or its end; false when its lanes part at a shuffle.
inline bool run_warp(unsigned first, unsigned lanes, bool descending) {
    for (;;) {
        for (unsigned k = 0; k < lanes; ++k) {
            const unsigned thread = first + (descending ? lanes - 1 - k : k);
            if (fibers[thread].state == READY) resume(thread);
        }
        unsigned waiting = 0;
        for (unsigned k = 0; k < lanes; ++k) waiting += fibers[first + k].state == AT_WARP;
        if (waiting == 0) return true;
        if (waiting != lanes) return false;
        for (unsigned k = 0; k < lanes; ++k) fibers[first + k].state = READY;
    }
}

inline int run_block(bool descending) {
    const unsigned threads = blockDim.x * blockDim.y, warps = (threads + 31) / 32;
    if (__start_emulated_shared != nullptr) {
        const size_t bytes = __stop_emulated_shared - __start_emulated_shared;
        std::memset(__start_emulated_shared, descending ? 0x7f : 0xff, bytes);
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
    }
    for (;;) {
        for (unsigned w = 0; w < warps; ++w) {
            const unsigned first = 32 * (descending ? warps - 1 - w : w);
            const unsigned lanes = threads - first < 32 ? threads - first : 32;
            if (!run_warp(first, lanes, descending)) {
                std::snprintf(message, sizeof message, "block %u: the lanes of a warp part at a shuffle", blockIdx.x);
                return 1;
            }
        }
        unsigned waiting = 0;
        for (unsigned t = 0; t < threads; ++t) waiting += fibers[t].state == AT_BLOCK;
        if (waiting == 0) return 0;
        if (waiting != threads) {
            std::snprintf(message, sizeof message, "block %u: only %u of %u threads reach a barrier", blockIdx.x,
                          waiting, threads);
            return 1;
        }
        for (unsigned t = 0; t < threads; ++t) fibers[t].state = READY;
    }
}

template <class Parameter> void call(void (*kernel)(Parameter), const long long* slots) {
    Parameter parameter;
    std::memcpy(&parameter, slots, sizeof parameter);
    kernel(parameter);
}

// 0, or 1 with `message` set.
inline int run_grid(void (*kernel)(const long long*), const long long* slots, unsigned blocks, unsigned x, unsigned y,
                    int descending) {
    body = kernel;
    arguments = slots;
    gridDim = {blocks, 1, 1};
    blockDim = {x, y, 1};
    if (x * y > MAX_THREADS) {
        std::snprintf(message, sizeof message, "%u threads are too many for a block", x * y);
        return 1;
    }
    for (unsigned b = 0; b < blocks; ++b) {
        blockIdx = {descending ? blocks - 1 - b : b, 0, 0};
        if (run_block(descending)) return 1;
    }
    return 0;
}

inline unsigned lane() { return current % 32; }

template <class T> T exchange(T value, unsigned from) {
    std::memcpy(&fibers[current].exchanged, &value, sizeof value);
    const unsigned self = current;
    meet(AT_WARP);
    T other;
    std::memcpy(&other, &fibers[self - self % 32 + from].exchanged, sizeof other);
    meet(AT_WARP);  // nobody writes again before all have read
    return other;
}

}  // namespace emulation

inline void __syncthreads() { emulation::meet(emulation::AT_BLOCK); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulation::meet(emulation::AT_WARP); }

template <class T> T __shfl_sync(unsigned, T value, int from) { return emulation::exchange(value, from % 32); }

template <class T> T __shfl_down_sync(unsigned, T value, unsigned step) {
    const unsigned lane = emulation::lane();
    return emulation::exchange(value, lane + step < 32 ? lane + step : lane);
}

template <class T> T __shfl_up_sync(unsigned, T value, unsigned step) {
    const unsigned lane = emulation::lane();
    return emulation::exchange(value, lane >= step ? lane - step : lane);
}

template <class T> T __shfl_xor_sync(unsigned, T value, int flip) {
    return emulation::exchange(value, emulation::lane() ^ flip);
}

inline float __int_as_float(int bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline int __float_as_int(float x) {
    int bits;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}

inline double __longlong_as_double(long long bits) {
    double x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// One entry point for each kernel.
#define EMULATED(kernel)                                                                                              \
    extern "C" int run_##kernel(const long long* slots, unsigned blocks, unsigned x, unsigned y, int descending) {    \
        return emulation::run_grid([](const long long* s) { emulation::call(kernel, s); }, slots, blocks, x, y,       \
                                   descending);                                                                       \
    }

extern "C" const char* emulation_message() { return emulation::message; }
