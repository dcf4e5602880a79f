// Weighted picks along an axis, and their transpose: x [lead, n, rest], index and weight [m, taps].
#pragma once
#include "loop.cuh"

// begins: whether sums begin with 0 (else with their first product).
struct Picks {
    i64 n, m, rest, taps, begins;
};

INSTRUCTION i64 picked(const Picks& p, const i64* index, i64 at) {
    const i64 i = index[at];
    return i < 0 ? 0 : i < p.n ? i : p.n - 1;
}

// Element `number` of the result [lead, m, rest].
template <class T>
INSTRUCTION void resample(const Picks& p, i64 number, const T* x, const i64* index, const T* weight, T* out) {
    i64 l = number;
    const i64 k = split_off(l, p.rest), i = split_off(l, p.m);
    T total = 0;
    for (i64 t = 0; t < p.taps; t++) {
        const i64 at = i * p.taps + t;
        const T v = weight[at] * x[(l * p.n + picked(p, index, at)) * p.rest + k];
        total = t == 0 && !p.begins ? v : total + v;
    }
    out[number] = total;
}

// A thread has line and column `number` of dx [lead, n, rest] for itself, and goes along dy [lead, m, rest].
template <class T>
INSTRUCTION void resample_gradient(const Picks& p, i64 number, const T* dy, const i64* index, const T* weight, T* dx) {
    i64 l = number;
    const i64 k = split_off(l, p.rest);
    for (i64 i = 0; i < p.n; i++) dx[(l * p.n + i) * p.rest + k] = (T)0;
    for (i64 i = 0; i < p.m; i++) {
        const T g = dy[(l * p.m + i) * p.rest + k];
        for (i64 t = 0; t < p.taps; t++) {
            const i64 at = i * p.taps + t;
            T* const to = dx + (l * p.n + picked(p, index, at)) * p.rest + k;
            *to = *to + weight[at] * g;
        }
    }
}
