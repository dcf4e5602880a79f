// The frame of generated loop kernels: argument slots, and the place of a loop element along several axes.
#pragma once
#include "scalar.cuh"

// The kernel's only parameter, in constant memory: addresses, sizes, strides and the bits of numbers.
template <int N> struct Slots {
    i64 at[N];
};

INSTRUCTION f64 as_float(i64 bits) { return __longlong_as_double(bits); }

// Takes the innermost axis of size n off a position: returns the index along it, leaves the rest.
// A 64-bit division takes several times as many instructions as a 32-bit one, a signed one more than that.
INSTRUCTION i64 split_off(i64& rest, i64 n) {
    const u64 a = (u64)rest, b = (u64)n;
    const u64 whole = (a | b) >> 32 == 0 ? (u64)((u32)a / (u32)b) : a / b;
    rest = (i64)whole;
    return (i64)(a - whole * b);
}
