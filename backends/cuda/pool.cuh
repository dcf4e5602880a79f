// Windows over images [planes, d, h, w]: maxima, means, windows laid side by side, and their transposes. An item is one
// element of the result. What adds up does so in an order that the sizes alone decide, the CPU's.
#pragma once
#include "loop.cuh"

// Elements of an image along an axis, windows, elements of a window; steps between windows and between taps.
struct Axis {
    i64 size, windows, taps, step, gap, before;
};

struct Grid {
    i64 planes;
    Axis z, y, x;
};

INSTRUCTION i64 image_size(const Grid& g) { return g.z.size * g.y.size * g.x.size; }

// The window (or image element) `number` of all planes.
struct Place {
    i64 plane, z, y, x;
};

INSTRUCTION Place window_place(const Grid& g, i64 number) {
    const i64 x = split_off(number, g.x.windows), y = split_off(number, g.y.windows), z = split_off(number, g.z.windows);
    return {number, z, y, x};
}

INSTRUCTION Place image_place(const Grid& g, i64 number) {
    const i64 x = split_off(number, g.x.size), y = split_off(number, g.y.size), z = split_off(number, g.z.size);
    return {number, z, y, x};
}

INSTRUCTION i64 window_number(const Grid& g, i64 plane, i64 z, i64 y, i64 x) {
    return ((plane * g.z.windows + z) * g.y.windows + y) * g.x.windows + x;
}

// The coordinate of a window's tap; outside of the image below 0 or from `size` on.
INSTRUCTION i64 coordinate(const Axis& a, i64 window, i64 tap) { return window * a.step + tap * a.gap - a.before; }

// Windows from first to last may have a tap on coordinate i.
INSTRUCTION i64 first_window(const Axis& a, i64 i) {
    const i64 from = i + a.before - (a.taps - 1) * a.gap;
    return from <= 0 ? 0 : (from + a.step - 1) / a.step;
}

INSTRUCTION i64 last_window(const Axis& a, i64 i) {
    const i64 last = (i + a.before) / a.step;
    return last < a.windows ? last : a.windows - 1;
}

// Calls visit(element of the plane) for the taps inside the image in row-major order.
template <class Visit> INSTRUCTION void taps_inside(const Grid& g, const Place& at, Visit visit) {
    for (i64 r = 0; r < g.z.taps; r++) {
        const i64 z = coordinate(g.z, at.z, r);
        if (z < 0 || z >= g.z.size) continue;
        for (i64 s = 0; s < g.y.taps; s++) {
            const i64 y = coordinate(g.y, at.y, s);
            if (y < 0 || y >= g.y.size) continue;
            for (i64 t = 0; t < g.x.taps; t++) {
                const i64 x = coordinate(g.x, at.x, t);
                if (x >= 0 && x < g.x.size) visit((z * g.y.size + y) * g.x.size + x);
            }
        }
    }
}

// ---- maxima: padding counts as -inf, NaN wins

template <class T> INSTRUCTION void pool_max(const Grid& g, i64 number, T lowest, const T* x, T* out) {
    const Place at = window_place(g, number);
    const T* const image = x + at.plane * image_size(g);
    T best = lowest;
    taps_inside(g, at, [&](i64 e) {
        const T v = image[e];
        best = v > best || v != v ? v : best;
    });
    out[number] = best;
}

// The first NaN, else the first of the largest; -1 for a window without elements.
template <class T> INSTRUCTION void pool_max_index(const Grid& g, i64 number, T lowest, const T* x, i64* out) {
    const Place at = window_place(g, number);
    const T* const image = x + at.plane * image_size(g);
    T best = lowest;
    i64 index = -1;
    taps_inside(g, at, [&](i64 e) {
        const T v = image[e];
        if (v > best || (v != v && best == best) || index < 0) {
            best = v;
            index = e;
        }
    });
    out[number] = index;
}

// An image element takes dy of the windows whose maximum it is, in row-major order.
template <class T> INSTRUCTION void pool_max_gradient(const Grid& g, i64 number, const i64* index, const T* dy, T* dx) {
    const Place at = image_place(g, number);
    const i64 own = number - at.plane * image_size(g);
    T total = 0;
    for (i64 z = first_window(g.z, at.z); z <= last_window(g.z, at.z); z++)
        for (i64 y = first_window(g.y, at.y); y <= last_window(g.y, at.y); y++)
            for (i64 x = first_window(g.x, at.x); x <= last_window(g.x, at.x); x++) {
                const i64 window = window_number(g, at.plane, z, y, x);
                if (index[window] == own) total = total + dy[window];
            }
    dx[number] = total;
}

// ---- means

// What a window's sum is divided by: `divisor`, or how many taps lie from `low` to below `high`. `scaled`: its sum is
// multiplied by `factor` instead.
struct Share {
    i64 divisor, low[3], high[3], scaled;
};

INSTRUCTION i64 counted(const Axis& a, i64 window, i64 low, i64 high) {
    i64 count = 0;
    for (i64 t = 0; t < a.taps; t++) {
        const i64 at = coordinate(a, window, t);
        count += at >= low && at < high;
    }
    return count;
}

template <class T> INSTRUCTION T shared_out(const Grid& g, const Share& s, f64 factor, i64 z, i64 y, i64 x, T value) {
    if (s.scaled) return value * (T)factor;
    if (s.divisor) return value / (T)s.divisor;
    const i64 count = counted(g.z, z, s.low[0], s.high[0]) * counted(g.y, y, s.low[1], s.high[1]) *
                      counted(g.x, x, s.low[2], s.high[2]);
    return value / (T)count;
}

template <class T> INSTRUCTION void pool_mean(const Grid& g, i64 number, const Share& s, f64 factor, const T* x, T* out) {
    const Place at = window_place(g, number);
    const T* const image = x + at.plane * image_size(g);
    T total = 0;
    taps_inside(g, at, [&](i64 e) { total = total + image[e]; });
    out[number] = shared_out(g, s, factor, at.z, at.y, at.x, total);
}

// backwards: windows of a line come from the last to the first, which is the order of their taps.
template <class T>
INSTRUCTION void pool_mean_gradient(const Grid& g, i64 number, const Share& s, f64 factor, i64 backwards, const T* dy,
                                    T* dx) {
    const Place at = image_place(g, number);
    T total = 0;
    const i64 low = first_window(g.x, at.x), high = last_window(g.x, at.x);
    for (i64 z = first_window(g.z, at.z); z <= last_window(g.z, at.z); z++) {
        if ((at.z + g.z.before - z * g.z.step) % g.z.gap) continue;
        for (i64 y = first_window(g.y, at.y); y <= last_window(g.y, at.y); y++) {
            if ((at.y + g.y.before - y * g.y.step) % g.y.gap) continue;
            for (i64 turn = low; turn <= high; turn++) {
                const i64 x = backwards ? low + high - turn : turn;
                if ((at.x + g.x.before - x * g.x.step) % g.x.gap) continue;
                total = total + shared_out(g, s, factor, z, y, x, dy[window_number(g, at.plane, z, y, x)]);
            }
        }
    }
    dx[number] = total;
}

// ---- windows side by side [planes, taps, windows], and their sum

template <class T> INSTRUCTION void windows_apart(const Grid& g, i64 number, const T* x, T* out) {
    i64 rest = number;
    const i64 wx = split_off(rest, g.x.windows), wy = split_off(rest, g.y.windows), wz = split_off(rest, g.z.windows);
    const i64 t = split_off(rest, g.x.taps), s = split_off(rest, g.y.taps), r = split_off(rest, g.z.taps);
    const i64 z = coordinate(g.z, wz, r), y = coordinate(g.y, wy, s), e = coordinate(g.x, wx, t);
    const bool inside = z >= 0 && z < g.z.size && y >= 0 && y < g.y.size && e >= 0 && e < g.x.size;
    out[number] = inside ? x[((rest * g.z.size + z) * g.y.size + y) * g.x.size + e] : (T)0;
}

// The window whose tap lies on coordinate i; -1 for none.
INSTRUCTION i64 window_on(const Axis& a, i64 i, i64 tap) {
    const i64 from = i + a.before - tap * a.gap;
    return from >= 0 && from % a.step == 0 && from / a.step < a.windows ? from / a.step : -1;
}

template <class T> INSTRUCTION void windows_together(const Grid& g, i64 number, const T* x, T* out) {
    const Place at = image_place(g, number);
    const i64 windows = g.z.windows * g.y.windows * g.x.windows;
    T total = 0;
    i64 from = at.plane * g.z.taps * g.y.taps * g.x.taps * windows;
    for (i64 r = 0; r < g.z.taps; r++)
        for (i64 s = 0; s < g.y.taps; s++)
            for (i64 t = 0; t < g.x.taps; t++, from += windows) {
                const i64 wz = window_on(g.z, at.z, r), wy = window_on(g.y, at.y, s), wx = window_on(g.x, at.x, t);
                if (wz >= 0 && wy >= 0 && wx >= 0) total = total + x[from + window_number(g, 0, wz, wy, wx)];
            }
    out[number] = total;
}
