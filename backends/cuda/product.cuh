// Matrix products: a block of 256 threads makes 64 x 64 elements of the result, four by four each, from tiles in shared
// memory. Each element is one chain of multiply-adds from zero, k after k, whatever the grid.
//
// What is multiplied is two sides with a Value type, `rows`, `depth` (how many k) and
//   deep: whether elements that are neighbours along k lie side by side (else those along the rows)
//   row(r): where row r is, which a thread asks for once in a tile, or for each element of a deep side
//   at(where, k, d): the element k of it, number d of the 16 in the tile; `steps.begin(k)` came before.
#pragma once
#include "loop.cuh"

#define TILE 64
#define DEPTH 16
// A padded line of a tile: threads that write along k then fall into different banks.
#define LINE (TILE + 4)

template <class T> INSTRUCTION T multiply_add(T a, T b, T c) { return s_add(s_mul(a, b), c); }
INSTRUCTION f32 multiply_add(f32 a, f32 b, f32 c) { return fmaf(a, b, c); }
INSTRUCTION f64 multiply_add(f64 a, f64 b, f64 c) { return fma(a, b, c); }

// A matrix in memory: element (row, k) at row * along + k * step.
template <class T> struct Side {
    typedef T Value;
    const T* from;
    i64 rows, depth, along, step;
    bool deep;
    __device__ i64 row(i64 r) const { return r * along; }
    __device__ T at(i64 where, i64 k, u32) const { return from[where + k * step]; }
};

// Of sides that need no preparation of a tile.
struct NoSteps {
    __device__ void begin(i64) const {}
};

// A result in memory: element (row, column) at row * along + column.
template <class T> struct Target {
    T* to;
    i64 along;
    __device__ i64 column(i64 c) const { return c; }
};

// 64 rows from `row` on and 16 k from `k` on into a tile [k][row], zeros where there is nothing.
template <class S, class Row>
INSTRUCTION void load_tile(const S& x, const Row& own, i64 row, i64 k, typename S::Value* tile) {
    for (u32 number = threadIdx.x; number < TILE * DEPTH; number += blockDim.x) {
        const u32 r = x.deep ? number / DEPTH : number % TILE;
        const u32 d = x.deep ? number % DEPTH : number / TILE;
        const bool there = row + r < x.rows && k + d < x.depth;
        tile[d * LINE + r] = !there ? (typename S::Value)0 : x.at(x.deep ? x.row(row + r) : own, k + d, d);
    }
}

// Elements from (row, column) on of a result [rows of a][rows of b]; left, right: shared memory for a tile each.
template <class A, class B, class Steps, class To>
INSTRUCTION void product_tile(const A& a, const B& b, Steps& steps, i64 row, i64 column, const To& to,
                              typename A::Value* left, typename A::Value* right) {
    typedef typename A::Value T;
    const u32 r = threadIdx.x / 16 * 4, c = threadIdx.x % 16 * 4;
    const auto own_a = a.row(row + threadIdx.x % TILE);
    const auto own_b = b.row(column + threadIdx.x % TILE);
    T sum[4][4] = {};
    for (i64 k = 0; k < a.depth; k += DEPTH) {
        steps.begin(k);
        load_tile(a, own_a, row, k, left);
        load_tile(b, own_b, column, k, right);
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
    for (u32 j = 0; j < 4; j++) {
        if (column + c + j >= b.rows) break;
        const i64 place = to.column(column + c + j);
        for (u32 i = 0; i < 4; i++)
            if (row + r + i < a.rows) to.to[place + (row + r + i) * to.along] = sum[i][j];
    }
}
