// Stable sorts of rows: order-preserving unsigned keys beside positions. Blocks sort runs in shared memory, then runs
// are merged in pairs: a record's place is its own plus that of it in the other run, found by binary search.
#pragma once
#include "loop.cuh"

#define RUN 512

// ---- keys: bits whose order is the order of the values, NaN last; flip: 0, or all ones for the descending order

template <class U> struct UnsignedKey {
    typedef U Key;
    static __device__ U of(U bits) { return bits; }
};

template <class U> struct SignedKey {
    typedef U Key;
    static __device__ U of(U bits) { return (U)(bits ^ (U)1 << (8 * sizeof(U) - 1)); }
};

// LARGEST: the bits of infinity; EQUAL_ZEROS: whether -0.0 is equal to 0.0 (else before it).
template <class U, U LARGEST, bool EQUAL_ZEROS> struct FloatKey {
    typedef U Key;
    static __device__ U of(U bits) {
        const U sign = (U)((U)1 << (8 * sizeof(U) - 1)), magnitude = (U)(bits & (U)~sign);
        if (magnitude > LARGEST) return (U)~(U)0;
        if (EQUAL_ZEROS && magnitude == 0) return sign;
        return bits & sign ? (U)~bits : (U)(bits | sign);
    }
};

// Records of a run that come before `key`, those that are equal among them where `equal`.
template <class K> INSTRUCTION i64 records_before(const K* keys, i64 n, K key, bool equal) {
    i64 low = 0, high = n;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (keys[middle] < key || (equal && keys[middle] == key))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The place that record `at` of a row of n has when the pairs of runs of `width`, a power of 2, are one; only `most` of a run count.
// -1: it is not among them.
template <class K> INSTRUCTION i64 merged_place(const K* keys, i64 at, i64 n, i64 width, i64 most) {
    const i64 run = at & -width, other = at & width ? run - width : run + width;
    const i64 pair = run < other ? run : other;
    i64 place = at - run;
    if (place >= most) return -1;
    if (other < n) {
        const i64 room = n - other < width ? n - other : width;
        place += records_before(keys + other, room < most ? room : most, keys[at], other < run);
    }
    return place < most ? pair + place : -1;
}

// Block `number` of the rows: a run of one row, or several rows that fit one.
template <class Encode, class P>
INSTRUCTION void sort_run(i64 number, i64 rows, i64 n, u64 flip, const typename Encode::Key* x, typename Encode::Key* keys,
                          P* places, typename Encode::Key (*key)[RUN], u16 (*place)[RUN]) {
    typedef typename Encode::Key K;
    const i64 runs = (n + RUN - 1) / RUN, together = n < RUN ? RUN / n : 1;
    const i64 row = number / runs * together, start = number % runs * RUN;
    const i64 left = n < RUN ? (rows - row < together ? rows - row : together) * n : n - start;
    const u32 count = (u32)(left < RUN ? left : RUN), segment = (u32)(n < RUN ? n : RUN);
    const i64 base = row * n + start;
    for (u32 e = threadIdx.x; e < count; e += blockDim.x) {
        key[0][e] = (K)(Encode::of(x[base + e]) ^ (K)flip);
        place[0][e] = (u16)(e % segment);
    }
    u32 now = 0;
    for (u32 width = 1; width < segment; width *= 2, now ^= 1) {
        __syncthreads();
        for (u32 e = threadIdx.x; e < count; e += blockDim.x) {
            const u32 first = e / segment * segment;
            const u32 size = count - first < segment ? count - first : segment;
            const i64 to = first + merged_place(key[now] + first, e - first, size, width, RUN);
            key[now ^ 1][to] = key[now][e];
            place[now ^ 1][to] = place[now][e];
        }
    }
    __syncthreads();
    for (u32 e = threadIdx.x; e < count; e += blockDim.x) {
        keys[base + e] = key[now][e];
        places[base + e] = (P)(start + place[now][e]);
    }
    // The next block of rows needs no barrier before it: a thread reads last, and writes first, what is its own.
}

// Record `number` of all rows goes to its place among runs of twice the width.
template <class K, class P>
INSTRUCTION void merge_runs(i64 number, i64 n, i64 width, i64 most, const K* keys, const P* places, K* keys_to, P* places_to) {
    i64 row = number;
    const i64 at = split_off(row, n);
    const i64 to = merged_place(keys + row * n, at, n, width, most);
    if (to < 0) return;
    keys_to[row * n + to] = keys[number];
    places_to[row * n + to] = places[number];
}

// Result `number` of [rows, k]; values or indices may be 0.
template <class T, class P>
INSTRUCTION void sorted_result(i64 number, i64 n, i64 k, const T* x, const P* places, T* values, i64* indices) {
    i64 row = number;
    const i64 at = split_off(row, k), place = (i64)places[row * n + at];
    if (values) values[number] = x[row * n + place];
    if (indices) indices[number] = place;
}
