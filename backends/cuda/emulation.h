// CUDA C on a CPU: the names that kernels use. Compiled by g++ together with the kernels; emulation.cpp runs them.
//
// g++ is told to instrument every access to memory as for ThreadSanitizer; emulation.cpp has the functions that
// these calls go to.
#pragma once

#include <cmath>
#include <cstring>

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
extern EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

struct Machine;

const unsigned FULL = 0xffffffffu;

// The number of the calling thread in its warp.
unsigned lane();
// Hands `value` to the warp and takes that of lane `from`; `place` tells which shuffle of the source this is.
void exchange(const void* value, void* taken, unsigned bytes, unsigned from, unsigned mask, const void* place);
void barrier_of_block();
void barrier_of_warp(unsigned mask);
int run_grid(void (*kernel)(const long long*), const long long* slots, unsigned blocks, unsigned x, unsigned y,
             Machine* machine);

template <class T> T shuffled(T value, unsigned from, unsigned mask, const void* place) {
    T taken;
    exchange(&value, &taken, sizeof value, from, mask, place);
    return taken;
}

template <class Parameter>
__attribute__((no_sanitize("thread"))) void call(void (*kernel)(Parameter), const long long* slots) {
    Parameter parameter;
    std::memcpy(&parameter, slots, sizeof parameter);
    kernel(parameter);
}

}  // namespace emulation

#define EMULATED_PLACE __builtin_return_address(0)

inline void __syncthreads() { emulation::barrier_of_block(); }
inline void __syncwarp(unsigned mask = emulation::FULL) { emulation::barrier_of_warp(mask); }

template <class T> T __shfl_sync(unsigned mask, T value, int from) {
    return emulation::shuffled(value, from % 32, mask, EMULATED_PLACE);
}

template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned step) {
    const unsigned lane = emulation::lane();
    return emulation::shuffled(value, lane + step < 32 ? lane + step : lane, mask, EMULATED_PLACE);
}

template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned step) {
    const unsigned lane = emulation::lane();
    return emulation::shuffled(value, lane >= step ? lane - step : lane, mask, EMULATED_PLACE);
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int flip) {
    return emulation::shuffled(value, emulation::lane() ^ flip, mask, EMULATED_PLACE);
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
#define EMULATED(kernel)                                                                                       \
    extern "C" int run_##kernel(const long long* slots, unsigned blocks, unsigned x, unsigned y, void* machine) {  \
        return emulation::run_grid([](const long long* s) { emulation::call(kernel, s); }, slots, blocks, x, y,   \
                                   (emulation::Machine*)machine);                                              \
    }
