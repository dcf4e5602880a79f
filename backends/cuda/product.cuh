// Matrix products: a block of 256 threads makes 64 x 64 elements of the result, four by four each, from tiles in shared
// memory. Each element is one chain of multiply-adds from zero, k after k, whatever the grid.
#pragma once
#include "loop.cuh"

#define TILE 64
#define DEPTH 16
// A padded line of a tile: threads that write along k then fall into different banks.
#define LINE (TILE + 4)

template <class T> INSTRUCTION T multiply_add(T a, T b, T c) { return s_add(s_mul(a, b), c); }
INSTRUCTION f32 multiply_add(f32 a, f32 b, f32 c) { return fmaf(a, b, c); }
INSTRUCTION f64 multiply_add(f64 a, f64 b, f64 c) { return fma(a, b, c); }

// A matrix in memory: element (row, k) at row * along + k * deep; `rows` of them, k below `depth`.
template <class T> struct Side {
    const T* from;
    i64 rows, depth, along, deep;
};

// 64 rows from `row` on and 16 k from `k` on into a tile [k][row], zeros where there is nothing.
template <class T> INSTRUCTION void load_tile(const Side<T>& x, i64 row, i64 k, T* tile) {
    for (u32 number = threadIdx.x; number < TILE * DEPTH; number += blockDim.x) {
        // Neighbouring threads read what is neighbouring in memory.
        const u32 r = x.deep == 1 ? number / DEPTH : number % TILE;
        const u32 d = x.deep == 1 ? number % DEPTH : number / TILE;
        const bool there = row + r < x.rows && k + d < x.depth;
        tile[d * LINE + r] = there ? x.from[(row + r) * x.along + (k + d) * x.deep] : (T)0;
    }
}

// Elements from (row, column) on of a result [rows of a][rows of b].
template <class T> INSTRUCTION void product_tile(const Side<T>& a, const Side<T>& b, i64 row, i64 column, T* out) {
    __shared__ T left[DEPTH * LINE];
    __shared__ T right[DEPTH * LINE];
    const u32 r = threadIdx.x / 16 * 4, c = threadIdx.x % 16 * 4;
    T sum[4][4] = {};
    for (i64 k = 0; k < a.depth; k += DEPTH) {
        load_tile(a, row, k, left);
        load_tile(b, column, k, right);
        __syncthreads();
        // Never past the last k: a product of zeros would change the sign of a zero, and a NaN's bits.
        const u32 turns = a.depth - k < DEPTH ? (u32)(a.depth - k) : DEPTH;
        for (u32 d = 0; d < turns; d++) {
            T x[4], y[4];
            for (u32 i = 0; i < 4; i++) {
                x[i] = left[d * LINE + r + i];
                y[i] = right[d * LINE + c + i];
            }
            for (u32 i = 0; i < 4; i++)
                for (u32 j = 0; j < 4; j++) sum[i][j] = multiply_add(x[i], y[j], sum[i][j]);
        }
        __syncthreads();
    }
    for (u32 i = 0; i < 4; i++)
        for (u32 j = 0; j < 4; j++)
            if (row + r + i < a.rows && column + c + j < b.rows) out[(row + r + i) * b.rows + column + c + j] = sum[i][j];
}
