// The frame of generated loop kernels: argument slots, and the place of a loop element along several axes.
#pragma once
#include "scalar.cuh"

// The kernel's only parameter, in constant memory: addresses, sizes, strides and the bits of numbers.
template <int N> struct Slots {
    i64 at[N];
};

INSTRUCTION f64 as_float(i64 bits) { return __longlong_as_double(bits); }

// Takes the innermost axis of size n off a position: returns the index along it, leaves the rest.
// A 64-bit division takes several times as many instructions as a 32-bit one.
INSTRUCTION i64 split_off(i64& rest, i64 n) {
    if (((u64)(rest | n) >> 32) == 0) {
        const u32 whole = (u32)rest / (u32)n;
        const u32 index = (u32)rest - whole * (u32)n;
        rest = whole;
        return index;
    }
    const i64 whole = rest / n;
    const i64 index = rest - whole * n;
    rest = whole;
    return index;
}
