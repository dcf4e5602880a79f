// Running results along an axis, in the order of additions that backends/cpu/scan.py has. Rows: sixteen elements are
// combined among themselves (spans of 1, 2, 4, 8), then with what came before; half a warp has a row, or a block of a
// long one. Other axes: a thread has a column. A scan is a State: what changes nothing (`none`), one element (`of`), a
// state followed by another (`merge`), and its results.
#pragma once
#include "loop.cuh"
#include "reduce.cuh"

template <class A> struct CumSum {
    A s;
    static __device__ CumSum none() { return {(A)0}; }
    static __device__ CumSum of(A x, A, i64) { return {x}; }
    static __device__ CumSum merge(CumSum l, CumSum e) { return {s_add(l.s, e.s)}; }
    __device__ CumSum from(int lane) const { return {lane_at(s, lane)}; }
    __device__ A result() const { return s; }
    __device__ i64 second() const { return 0; }
};

template <class A> struct CumProd {
    A s;
    static __device__ CumProd none() { return {(A)1}; }
    static __device__ CumProd of(A x, A, i64) { return {x}; }
    static __device__ CumProd merge(CumProd l, CumProd e) { return {s_mul(l.s, e.s)}; }
    __device__ CumProd from(int lane) const { return {lane_at(s, lane)}; }
    __device__ A result() const { return s; }
    __device__ i64 second() const { return 0; }
};

// s becomes p * s + x, element by element.
template <class A> struct LinearScan {
    A p, s;
    static __device__ LinearScan none() { return {(A)1, (A)0}; }
    static __device__ LinearScan of(A p, A x, i64) { return {p, x}; }
    static __device__ LinearScan merge(LinearScan l, LinearScan e) {
        return {s_mul(l.p, e.p), s_add(s_mul(e.p, l.s), e.s)};
    }
    __device__ LinearScan from(int lane) const { return {lane_at(p, lane), lane_at(s, lane)}; }
    __device__ A result() const { return s; }
    __device__ i64 second() const { return 0; }
};

// exp(m) * s with the largest m so far, so that nothing overflows.
template <class A> struct LogCumSumExp {
    A m, s;
    static __device__ LogCumSumExp none() { return {(A)-F64_INF, (A)0}; }
    static __device__ LogCumSumExp of(A x, A, i64) { return {x, (A)1}; }
    static __device__ LogCumSumExp merge(LogCumSumExp l, LogCumSumExp e) {
        const A t = l.m == e.m ? (A)1 : exp(-fabs(l.m - e.m));
        const bool left = l.m >= e.m;
        return {s_maximum(l.m, e.m), (left ? l.s : l.s * t) + (left ? e.s * t : e.s)};
    }
    __device__ LogCumSumExp from(int lane) const { return {lane_at(m, lane), lane_at(s, lane)}; }
    __device__ A result() const { return log(s) + m; }
    __device__ i64 second() const { return 0; }
};

template <class T> INSTRUCTION T bound(T, bool lowest) {
    const T top = (T)((u64)1 << (8 * sizeof(T) - 1)), low = (T)-1 < (T)0 ? top : (T)0;
    return lowest ? low : (T)~low;
}
INSTRUCTION f32 bound(f32, bool lowest) { return lowest ? -F32_INF : F32_INF; }
INSTRUCTION f64 bound(f64, bool lowest) { return lowest ? -F64_INF : F64_INF; }

// The first NaN stays; of equal extremes the last one counts.
template <class A, bool LARGEST> struct Extreme {
    A m;
    i64 i;
    static __device__ Extreme none() { return {bound((A)0, LARGEST), 0}; }
    static __device__ Extreme of(A x, A, i64 i) { return {x, i}; }
    static __device__ Extreme merge(Extreme l, Extreme e) {
        const bool wins = LARGEST ? e.m >= l.m : e.m <= l.m;
        return e.m != e.m || (l.m == l.m && wins) ? e : l;
    }
    __device__ Extreme from(int lane) const { return {lane_at(m, lane), lane_at(i, lane)}; }
    __device__ A result() const { return m; }
    __device__ i64 second() const { return i; }
};

// x [lead, n, rest]; a row is cut into `blocks`. backward: from the end on.
struct Line {
    i64 lead, n, rest, blocks, backward;
};

#define LANES 16

// Half warps of block `number` have a row, or a block of it, each. ONLY_TOTALS: the state after it is kept, no result;
// else it goes on from those before.
template <class S, bool ONLY_TOTALS, class A, class X, class Y>
INSTRUCTION void scan_row(const Line& line, i64 number, const X* x, const X* x1, Y* out, i64* second, S* totals) {
    const int lane = threadIdx.x % 32, own = lane % LANES, half = lane - own;
    const i64 chain = number * (blockDim.x / LANES) + threadIdx.x / LANES;
    const bool live = chain < line.lead * line.blocks;
    const i64 row = live ? chain / line.blocks : 0, block = live ? chain % line.blocks : 0;
    const i64 length = line.n / line.blocks, longest = line.n - (line.blocks - 1) * length;
    const i64 first = block * length, end = !live ? 0 : block == line.blocks - 1 ? line.n : first + length;
    S carry = S::none();
    if (!ONLY_TOTALS && live)
        for (i64 before = row * line.blocks; before < chain; before++) carry = S::merge(carry, totals[before]);
    // All lanes of a warp take as many turns.
    for (i64 v = 0; v < longest; v += LANES) {
        const i64 e = first + v + own, i = line.backward ? line.n - 1 - e : e;
        S now = S::none();
        if (e < end) now = S::of((A)x[row * line.n + i], (A)x1[row * line.n + i], i);
        for (int by = 1; by < LANES; by *= 2) {
            const S moved = now.from(own >= by ? lane - by : lane);
            now = S::merge(own >= by ? moved : S::none(), now);
        }
        const S result = S::merge(carry, now);
        carry = result.from(half + LANES - 1);
        if (!ONLY_TOTALS && e < end) {
            out[row * line.n + i] = (Y)result.result();
            if (second) second[row * line.n + i] = result.second();
        }
    }
    if (ONLY_TOTALS && live && own == 0) totals[chain] = carry;
}

// Column `number` of [lead, rest].
template <class S, class A, class X, class Y>
INSTRUCTION void scan_column(const Line& line, i64 number, const X* x, const X* x1, Y* out, i64* second) {
    const i64 start = number / line.rest * line.n * line.rest + number % line.rest;
    S state = S::none();
    for (i64 e = 0; e < line.n; e++) {
        const i64 i = line.backward ? line.n - 1 - e : e, at = start + i * line.rest;
        state = S::merge(state, S::of((A)x[at], (A)x1[at], i));
        out[at] = (Y)state.result();
        if (second) second[at] = state.second();
    }
}
