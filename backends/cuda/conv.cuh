// Convolutions as implicit matrix products. x is read through windows: of image `n` and result position (z, y, x) at
// tap (c, r, s, t). `pixel` takes a position apart, `tap` a place of the window; their sums are an element of x and
// its coordinates.
#pragma once
#include "product.cuh"

// `Axis` of backends/cpu/conv_axes.py.
struct WindowAxis {
    i64 size, out, step, taps, tap_step, origin, out_step, out_origin, filter_step, filter_origin;
};

// Strides of x [image, channel, ...], w [row, channel, ...] and out [image, row, ...]; the same for a group.
// m: rows of a group; channels: summed ones of a group; length: of a piece of the sums, size: of a piece's results.
struct Windows {
    i64 x[5], w[5], out[5], x_group, w_group, out_group, images, m, channels, groups, length, size;
    WindowAxis axes[3];
};

// An element of x and one of the other operand (the result for a pixel, the filter for a tap), and coordinates.
struct Spot {
    i64 in, other, at[3];
};

INSTRUCTION Spot pixel(const Windows& w, i64 j) {
    Spot spot = {0, 0, {0, 0, 0}};
    for (int a = 2; a >= 0; a--) {
        const WindowAxis& axis = w.axes[a];
        const i64 o = split_off(j, axis.out);
        spot.at[a] = o * axis.step;
        spot.in += spot.at[a] * w.x[2 + a];
        spot.other += (o * axis.out_step + axis.out_origin) * w.out[2 + a];
    }
    spot.in += j * w.x[0];
    spot.other += j * w.out[0];
    return spot;
}

INSTRUCTION Spot tap(const Windows& w, i64 k) {
    Spot spot = {0, 0, {0, 0, 0}};
    for (int a = 2; a >= 0; a--) {
        const WindowAxis& axis = w.axes[a];
        const i64 t = split_off(k, axis.taps);
        spot.at[a] = t * axis.tap_step + axis.origin;
        spot.in += spot.at[a] * w.x[2 + a];
        spot.other += (t * axis.filter_step + axis.filter_origin) * w.w[2 + a];
    }
    spot.in += k * w.x[1];
    spot.other += k * w.w[1];
    return spot;
}

template <class T> INSTRUCTION T element(const Windows& w, const T* x, const Spot& a, const Spot& b) {
    for (int axis = 0; axis < 3; axis++)
        if ((u64)(a.at[axis] + b.at[axis]) >= (u64)w.axes[axis].size) return (T)0;
    return x[a.in + b.in];
}

// The spots of a tile's 16 k: Place is `pixel` or `tap`.
template <Spot (*Place)(const Windows&, i64)> struct Places {
    const Windows& w;
    i64 first, depth;
    Spot* shared;
    __device__ void begin(i64 k) const {
        if (threadIdx.x < DEPTH && k + threadIdx.x < depth) {
            const Spot spot = Place(w, first + k + threadIdx.x);
            Spot& to = shared[threadIdx.x];  // by members: the emulation does not see a copy of a large structure
            to.in = spot.in;
            to.other = spot.other;
            for (int axis = 0; axis < 3; axis++) to.at[axis] = spot.at[axis];
        }
        __syncthreads();
    }
};

// Rows of a matrix whose element (row, k) is the other operand's at the spot of k.
template <class T> struct Rows {
    typedef T Value;
    const T* from;
    i64 rows, depth, along;
    bool deep;
    const Spot* shared;
    __device__ i64 row(i64 r) const { return r * along; }
    __device__ T at(i64 where, i64, u32 d) const { return from[where + shared[d].other]; }
};

// Windows as rows (Place is `pixel`) or as k (`tap`).
template <class T, Spot (*Place)(const Windows&, i64)> struct Images {
    typedef T Value;
    const Windows& w;
    const T* x;
    i64 rows, depth;
    bool deep;
    const Spot* shared;
    __device__ Spot row(i64 r) const { return Place(w, r); }
    __device__ T at(const Spot& where, i64, u32 d) const { return element(w, x, where, shared[d]); }
};

template <class T, Spot (*Place)(const Windows&, i64)> struct Spread {
    T* to;
    i64 along;
    const Windows& w;
    __device__ i64 column(i64 c) const { return Place(w, c).other; }
};

// Block `number` of a product of m rows and n columns whose windows are columns by Column and summed over by Sum;
// `from`, `along`: the other factor and its step from row to row; `to_along`: that of the result.
template <class T, Spot (*Column)(const Windows&, i64), Spot (*Sum)(const Windows&, i64)>
INSTRUCTION void windows_product(const Windows& w, i64 number, i64 n, i64 k, const T* x, const T* from, i64 from_group,
                                 i64 along, T* to, i64 to_group, i64 to_along, Spot* shared, T* tile_a, T* tile_b) {
    i64 rest = number;
    const i64 column = split_off(rest, (n + TILE - 1) / TILE), row = split_off(rest, (w.m + TILE - 1) / TILE);
    const i64 group = split_off(rest, w.groups);
    const i64 first = rest * w.length, depth = k - first < w.length ? k - first : w.length;
    Places<Sum> steps = {w, first, depth, shared};
    const Rows<T> left = {from + group * from_group, w.m, depth, along, true, shared};
    const Images<T, Column> right = {w, x + group * w.x_group, n, depth, false, shared};
    const Spread<T, Column> target = {to + rest * w.size + group * to_group, to_along, w};
    product_tile(left, right, steps, row * TILE, column * TILE, target, tile_a, tile_b);
}

INSTRUCTION i64 pixels(const Windows& w) { return w.images * w.axes[0].out * w.axes[1].out * w.axes[2].out; }
INSTRUCTION i64 taps(const Windows& w) { return w.channels * w.axes[0].taps * w.axes[1].taps * w.axes[2].taps; }

// out[image, m, position] = sum over taps of w[m, tap] * x[image, window of the position].
template <class T> INSTRUCTION void convolution(const Windows& w, i64 number, const T* x, const T* filters, T* out,
                                                  Spot* shared, T* tile_a, T* tile_b) {
    windows_product<T, pixel, tap>(w, number, pixels(w), taps(w), x, filters, w.w_group, w.w[0], out, w.out_group,
                                   w.out[1], shared, tile_a, tile_b);
}

// w[m, tap] = sum over images and positions of out[image, m, position] * x[image, window of the position].
template <class T> INSTRUCTION void filter_gradient(const Windows& w, i64 number, const T* x, const T* out, T* filters,
                                                      Spot* shared, T* tile_a, T* tile_b) {
    windows_product<T, tap, pixel>(w, number, taps(w), pixels(w), x, out, w.out_group, w.out[1], filters, w.w_group,
                                   w.w[0], shared, tile_a, tile_b);
}
