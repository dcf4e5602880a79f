// Reading and writing by integer tensors. Tensors are seen as [lead, n, rest]; an index element for line l, number j
// and column k stands at l / share * lines + j * step + k * columns: one index for all columns, or one for each.
// A negative index counts from the end; one outside is left out.
#pragma once
#include "loop.cuh"

struct Index {
    i64 n, count, rest, share, lines, step, columns;
};

// The position that an index element means, -1 for one outside.
template <class I> INSTRUCTION i64 position(const Index& index, const I* from, i64 l, i64 j, i64 k) {
    const i64 i = (i64)from[l / index.share * index.lines + j * index.step + k * index.columns];
    const i64 at = i < 0 ? i + index.n : i;
    return at >= 0 && at < index.n ? at : -1;
}

// Element `number` of out [lead, count, rest]; each is `parts` words.
template <class T, class I>
INSTRUCTION void pick(const Index& index, i64 number, i64 parts, u64 missing, const T* x, const I* from, T* out) {
    i64 l = number;
    const i64 p = split_off(l, parts), k = split_off(l, index.rest), j = split_off(l, index.count);
    const i64 at = position(index, from, l, j, k);
    out[number] = at < 0 ? (T)missing : x[((l * index.n + at) * index.rest + k) * parts + p];
}

// ---- what becomes of an old and a new value

struct PutSet {
    template <class T> static __device__ T combine(T, T v) { return v; }
};

struct PutAdd {
    template <class T> static __device__ T combine(T old, T v) { return s_add(old, v); }
};

struct PutMultiply {
    template <class T> static __device__ T combine(T old, T v) { return s_mul(old, v); }
};

struct PutMaximum {
    template <class T> static __device__ T combine(T old, T v) { return v > old || v != v ? v : old; }
};

struct PutMinimum {
    template <class T> static __device__ T combine(T old, T v) { return v < old || v != v ? v : old; }
};

// A byte in memory that is a truth, and how truths are combined.
struct truth {
    u8 byte;
};
INSTRUCTION truth s_add(truth a, truth b) { return {(u8)(a.byte != 0 || b.byte != 0)}; }
INSTRUCTION truth s_mul(truth a, truth b) { return {(u8)(a.byte != 0 && b.byte != 0)}; }
INSTRUCTION bool operator>(truth a, truth b) { return a.byte > b.byte; }
INSTRUCTION bool operator<(truth a, truth b) { return a.byte < b.byte; }
INSTRUCTION bool operator!=(truth a, truth b) { return a.byte != b.byte; }

// Steps of the values along lines and numbers; words of an element.
struct Values {
    i64 lines, step, parts;
};

// All values of line l and column k in the order of the index: one thread has a line and column of out for itself.
template <class How, class T, class I>
INSTRUCTION void put_line(const Index& index, i64 number, const Values& values, const T* v, const I* from, T* out) {
    i64 l = number;
    const i64 p = split_off(l, values.parts), k = split_off(l, index.rest);
    for (i64 j = 0; j < index.count; j++) {
        const i64 at = position(index, from, l, j, k);
        if (at < 0) continue;
        T* const to = out + ((l * index.n + at) * index.rest + k) * values.parts + p;
        *to = How::combine(*to, v[l * values.lines + j * values.step + k * values.parts + p]);
    }
}

// The positions as numbers to sort, a row for each line (and column, where those have an index of their own).
template <class I, class Key> INSTRUCTION void put_key(const Index& index, i64 number, i64 columns, const I* from, Key* keys) {
    i64 row = number;
    const i64 j = split_off(row, index.count), k = split_off(row, columns);
    const i64 at = position(index, from, row * index.share, j, k);
    keys[number] = (Key)(at < 0 ? index.n : at);
}

// starts[row, i]: how many of a row's sorted keys are below i.
template <class Key> INSTRUCTION void put_start(i64 number, i64 n, i64 count, const Key* keys, i64* starts) {
    i64 row = number;
    const i64 i = split_off(row, n + 1);
    const Key* const own = keys + row * count;
    i64 low = 0, high = count;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (own[middle] < (Key)i)
            low = middle + 1;
        else
            high = middle;
    }
    starts[number] = low;
}

// Element `number` of out takes its values in the order of the index, which the sort has kept.
template <class How, class T, class P>
INSTRUCTION void put_sorted(const Index& index, i64 number, const Values& values, i64 columns, const T* v, const P* places,
                            const i64* starts, T* out) {
    i64 l = number;
    const i64 p = split_off(l, values.parts), k = split_off(l, index.rest), i = split_off(l, index.n);
    const i64 row = index.lines == 0 ? 0 : l / index.share * columns + (columns == 1 ? 0 : k);
    const i64 first = starts[row * (index.n + 1) + i], end = starts[row * (index.n + 1) + i + 1];
    if (first == end) return;
    T now = out[number];
    for (i64 at = first; at < end; at++) {
        const i64 j = (i64)places[row * index.count + at];
        now = How::combine(now, v[l * values.lines + j * values.step + k * values.parts + p]);
    }
    out[number] = now;
}

// ---- positions of what is not 0

#define FOUND_ITEMS 8

// Sums of the block's threads before this one; `whole` is the sum of all.
INSTRUCTION i64 sum_before(i64 own, i64* shared, i64& whole) {
    const u32 t = threadIdx.x;
    shared[t] = own;
    __syncthreads();
    for (u32 by = 1; by < blockDim.x; by *= 2) {
        const i64 more = t >= by ? shared[t - by] : 0;
        __syncthreads();
        shared[t] += more;
        __syncthreads();
    }
    const i64 before = shared[t] - own;
    whole = shared[blockDim.x - 1];
    __syncthreads();
    return before;
}

template <class T> INSTRUCTION i64 found_in(const T* x, i64 first, i64 n) {
    i64 found = 0;
    for (i64 i = first; i < first + FOUND_ITEMS && i < n; i++) found += x[i] != (T)0;
    return found;
}

// How many elements of part `number` are not 0.
template <class T> INSTRUCTION void count_found(i64 number, i64 n, const T* x, i64* counts, i64* shared) {
    i64 whole;
    sum_before(found_in(x, (number * blockDim.x + threadIdx.x) * FOUND_ITEMS, n), shared, whole);
    if (threadIdx.x == 0) counts[number] = whole;
}

// Sums of n numbers before each, and of all at the end, by one block.
template <class T> INSTRUCTION void sums_before(i64 n, const T* counts, i64* sums, i64* shared) {
    const i64 length = (n + blockDim.x - 1) / blockDim.x;
    const i64 first = length * threadIdx.x, end = first + length < n ? first + length : n;
    i64 own = 0, whole;
    for (i64 i = first; i < end; i++) own += (i64)counts[i];
    i64 before = sum_before(own, shared, whole);
    for (i64 i = first; i < end; i++) {
        sums[i] = before;
        before += (i64)counts[i];
    }
    if (threadIdx.x == 0) sums[n] = whole;
}

// The positions in part `number` to where those of the parts before it end; places from the last on are 0.
template <class T> INSTRUCTION void write_found(i64 number, i64 n, i64 size, i64 parts, const T* x, const i64* sums, i64* out, i64* shared) {
    const i64 first = (number * blockDim.x + threadIdx.x) * FOUND_ITEMS;
    i64 whole;
    i64 at = sums[number] + sum_before(found_in(x, first, n), shared, whole);
    for (i64 i = first; i < first + FOUND_ITEMS && i < n; i++) {
        if (x[i] == (T)0) continue;
        if (at < size) out[at] = i;
        at++;
    }
    for (i64 k = sums[parts] + number * blockDim.x + threadIdx.x; k < size; k += parts * blockDim.x) out[k] = 0;
}

// Position k, counts[k] times; n where the counts add up to less. sums: of the counts before each.
INSTRUCTION void repeat_place(i64 number, i64 n, const i64* sums, i64* out) {
    i64 low = 0, high = n;  // the first k with sums[k + 1] > number
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (sums[middle + 1] <= number)
            low = middle + 1;
        else
            high = middle;
    }
    out[number] = low;
}

// ---- binary search

// Whether sorted element e stands before v; NaN is the largest.
template <class T> INSTRUCTION bool stands_before(T e, T v, bool right) {
    if (right) return (!(v < e) || (e != e && v != v)) && (v != v || e == e);
    return e < v || (v != v && e == e);
}

template <class T> INSTRUCTION void search_sorted(i64 number, i64 rows, i64 n, i64 m, i64 right, const T* x, const T* values, i64* out) {
    const T v = values[number];
    const T* const row = x + (rows == 1 ? 0 : number / m * n);
    i64 low = 0, high = n;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (stands_before(row[middle], v, right != 0))
            low = middle + 1;
        else
            high = middle;
    }
    out[number] = low;
}
