// Reductions inside a block, in an order that the block's shape alone decides.
#pragma once
#include "scalar.cuh"

// ---- how two partial results become one

struct Sum {
    template <class T> static __device__ T combine(T a, T b) { return s_add(a, b); }
};

struct Prod {
    template <class T> static __device__ T combine(T a, T b) { return s_mul(a, b); }
};

struct Max {
    template <class T> static __device__ T combine(T a, T b) { return s_maximum(a, b); }
};

struct Min {
    template <class T> static __device__ T combine(T a, T b) { return s_minimum(a, b); }
};

struct Any {
    static __device__ b1 combine(b1 a, b1 b) { return a || b; }
};

struct All {
    static __device__ b1 combine(b1 a, b1 b) { return a && b; }
};

// A candidate of argmax or argmin; index -1 stands for none.
template <class T> struct Best {
    T value;
    i64 index;
};

// The first NaN wins, then the extreme value, then the lower index.
template <class T> INSTRUCTION Best<T> better(Best<T> a, Best<T> b, bool a_wins, bool b_wins) {
    if (b.index < 0) return a;
    if (a.index < 0) return b;
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan ? a : b;
    if (!a_nan && a_wins != b_wins) return a_wins ? a : b;
    return a.index < b.index ? a : b;
}

struct ArgMax {
    template <class T> static __device__ Best<T> combine(Best<T> a, Best<T> b) {
        return better(a, b, a.value > b.value, b.value > a.value);
    }
};

struct ArgMin {
    template <class T> static __device__ Best<T> combine(Best<T> a, Best<T> b) {
        return better(a, b, a.value < b.value, b.value < a.value);
    }
};

// ---- between the lanes of a warp. The hardware moves 32 and 64 bits.

#define ALL_LANES 0xffffffffu

template <class T> INSTRUCTION T lane_below(T x, int step) { return (T)__shfl_down_sync(ALL_LANES, (i32)x, step); }
INSTRUCTION u32 lane_below(u32 x, int step) { return __shfl_down_sync(ALL_LANES, x, step); }
INSTRUCTION i64 lane_below(i64 x, int step) { return __shfl_down_sync(ALL_LANES, x, step); }
INSTRUCTION u64 lane_below(u64 x, int step) { return __shfl_down_sync(ALL_LANES, x, step); }
INSTRUCTION f32 lane_below(f32 x, int step) { return __shfl_down_sync(ALL_LANES, x, step); }
INSTRUCTION f64 lane_below(f64 x, int step) { return __shfl_down_sync(ALL_LANES, x, step); }
template <class T> INSTRUCTION Best<T> lane_below(Best<T> x, int step) {
    return {lane_below(x.value, step), lane_below(x.index, step)};
}

template <class T> INSTRUCTION T lane_at(T x, int lane) { return (T)__shfl_sync(ALL_LANES, (i32)x, lane); }
INSTRUCTION u32 lane_at(u32 x, int lane) { return __shfl_sync(ALL_LANES, x, lane); }
INSTRUCTION i64 lane_at(i64 x, int lane) { return __shfl_sync(ALL_LANES, x, lane); }
INSTRUCTION u64 lane_at(u64 x, int lane) { return __shfl_sync(ALL_LANES, x, lane); }
INSTRUCTION f32 lane_at(f32 x, int lane) { return __shfl_sync(ALL_LANES, x, lane); }
INSTRUCTION f64 lane_at(f64 x, int lane) { return __shfl_sync(ALL_LANES, x, lane); }
template <class T> INSTRUCTION Best<T> lane_at(Best<T> x, int lane) {
    return {lane_at(x.value, lane), lane_at(x.index, lane)};
}

// Shared places that a block needs for a reduction: one for each warp, or one for each thread.
#define ROW_PLACES 32
#define COLUMN_PLACES 256

// Combines the values of the threads along x, a multiple of 32; every thread gets the result.
template <class Op, class T> INSTRUCTION T reduce_x(T value, T* shared) {
    for (int step = 16; step > 0; step >>= 1) value = Op::combine(value, lane_below(value, step));
    const int warps = blockDim.x / 32;
    if (warps == 1) {
        __syncwarp();  // what the lanes have read may be written over from here on; shuffles do not order that
        return lane_at(value, 0);
    }
    T* const row = shared + threadIdx.y * warps;
    __syncthreads();  // the last result has been read by all
    if (threadIdx.x % 32 == 0) row[threadIdx.x / 32] = value;
    __syncthreads();  // all warps have written
    value = row[0];
    for (int warp = 1; warp < warps; ++warp) value = Op::combine(value, row[warp]);
    return value;
}

// Combines the values of the threads along y; every thread gets the result.
template <class Op, class T> INSTRUCTION T reduce_y(T value, T* shared) {
    if (blockDim.y == 1) return value;
    T* const column = shared + threadIdx.x;
    __syncthreads();  // the last result has been read by all
    column[threadIdx.y * blockDim.x] = value;
    __syncthreads();  // all threads have written
    value = column[0];
    for (int y = 1; y < blockDim.y; ++y) value = Op::combine(value, column[y * blockDim.x]);
    return value;
}
