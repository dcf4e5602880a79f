"""Kernel text of Fourier transforms: passes over sixteen lanes, whole lines, lines in two parts; see fft."""

from __future__ import annotations

import functools
import math


def _complex_product(c: str, out: str, x: str, w: str) -> str:
    """out = x * w for wide values named <name>r and <name>i."""
    return (
        f"{out}r = w_sub_{c}(w_mul_{c}({x}r, {w}r), w_mul_{c}({x}i, {w}i)); "
        f"{out}i = w_fma_{c}({x}r, {w}i, w_mul_{c}({x}i, {w}r))"
    )


def _passes_source(c: str) -> str:
    """The passes of one radix after another between two areas, and the radices themselves."""
    add, sub, mul, fma = (f"w_{op}_{c}" for op in ("add", "sub", "mul", "fma"))

    def loads(r: int) -> str:
        return "\n".join(
            f"                x{k}r = w_read_{c}(a, at + {k} * far); x{k}i = w_read_{c}(a, at + {k} * far + 16)"
            for k in range(r)
        )

    def stores(r: int) -> str:
        lines = [f"                w_write_{c}(b, to, y0r); w_write_{c}(b, to + 16, y0i)"]
        for k in range(1, r):
            lines.append(f"                {_complex_product(c, 'z', f'y{k}', f't{k}')}")
            lines.append(
                f"                w_write_{c}(b, to + {k} * near, zr); w_write_{c}(b, to + {k} * near + 16, zi)"
            )
        return "\n".join(lines)

    def twiddles(r: int) -> str:
        return "\n".join(
            f"            t{k}r = w_fill_{c}(load_{c}(table, 2 * {k} * p * step)); "
            f"t{k}i = w_fill_{c}(load_{c}(table, 2 * {k} * p * step + 1))"
            for k in range(1, r)
        )

    def one(r: int, body: str) -> str:
        return f"""        {"if" if r == 4 else "elif"} r == {r}:
            for p in range(m):
{indent(twiddles(r))}
                for q in range(s):
                    at = 32 * (q + s * p)
                    to = 32 * (q + s * {r} * p)
{indent(loads(r))}
{indent(body)}
{indent(stores(r))}
"""

    def indent(text: str) -> str:
        return "\n".join("    " + line for line in text.splitlines())

    pad = " " * 16
    two = f"""{pad}y0r = {add}(x0r, x1r); y0i = {add}(x0i, x1i)
{pad}y1r = {sub}(x0r, x1r); y1i = {sub}(x0i, x1i)"""
    four = f"""{pad}ar = {add}(x0r, x2r); ai = {add}(x0i, x2i)
{pad}br = {sub}(x0r, x2r); bi = {sub}(x0i, x2i)
{pad}cr = {add}(x1r, x3r); ci = {add}(x1i, x3i)
{pad}dr = {sub}(x1r, x3r); di = {sub}(x1i, x3i)
{pad}y0r = {add}(ar, cr); y0i = {add}(ai, ci)
{pad}y1r = {add}(br, di); y1i = {sub}(bi, dr)
{pad}y2r = {sub}(ar, cr); y2i = {sub}(ai, ci)
{pad}y3r = {sub}(br, di); y3i = {add}(bi, dr)"""
    half, root = ("types.float32(-0.5)", "types.float32(0.8660254037844386)")
    if c == "f64":
        half, root = "-0.5", "0.8660254037844386"
    three = f"""{pad}ar = {add}(x1r, x2r); ai = {add}(x1i, x2i)
{pad}br = {mul}({sub}(x1i, x2i), w_fill_{c}({root})); bi = {mul}({sub}(x2r, x1r), w_fill_{c}({root}))
{pad}cr = {fma}(ar, w_fill_{c}({half}), x0r); ci = {fma}(ai, w_fill_{c}({half}), x0i)
{pad}y0r = {add}(x0r, ar); y0i = {add}(x0i, ai)
{pad}y1r = {add}(cr, br); y1i = {add}(ci, bi)
{pad}y2r = {sub}(cr, br); y2i = {sub}(ci, bi)"""
    number = (lambda v: f"types.float32({v})") if c == "f32" else str
    fill_ = lambda v: f"w_fill_{c}({number(v)})"
    c1, c2 = fill_(math.cos(2 * math.pi / 5)), fill_(math.cos(4 * math.pi / 5))
    s1, s2 = fill_(math.sin(2 * math.pi / 5)), fill_(math.sin(4 * math.pi / 5))
    five = f"""{pad}ar = {add}(x1r, x4r); ai = {add}(x1i, x4i)
{pad}br = {add}(x2r, x3r); bi = {add}(x2i, x3i)
{pad}cr = {sub}(x1r, x4r); ci = {sub}(x1i, x4i)
{pad}dr = {sub}(x2r, x3r); di = {sub}(x2i, x3i)
{pad}er = {fma}(br, {c2}, {fma}(ar, {c1}, x0r)); ei = {fma}(bi, {c2}, {fma}(ai, {c1}, x0i))
{pad}fr = {fma}(br, {c1}, {fma}(ar, {c2}, x0r)); fi = {fma}(bi, {c1}, {fma}(ai, {c2}, x0i))
{pad}gr = {fma}(dr, {s2}, {mul}(cr, {s1})); gi = {fma}(di, {s2}, {mul}(ci, {s1}))
{pad}hr = {sub}({mul}(cr, {s2}), {mul}(dr, {s1})); hi = {sub}({mul}(ci, {s2}), {mul}(di, {s1}))
{pad}y0r = {add}(x0r, {add}(ar, br)); y0i = {add}(x0i, {add}(ai, bi))
{pad}y1r = {add}(er, gi); y1i = {sub}(ei, gr)
{pad}y2r = {add}(fr, hi); y2i = {sub}(fi, hr)
{pad}y3r = {sub}(fr, hi); y3i = {add}(fi, hr)
{pad}y4r = {sub}(er, gi); y4i = {add}(ei, gr)"""
    return f"""
@function
def passes(a, b, n, radices, table, scale):
    # table: roots of unity of order n * scale. Returns the area with the result.
    s = 1
    f = 0
    r = load_i64(radices, 0)
    while r != 0:
        m = quotient(n, r * s)
        step = s * scale
        far = 32 * s * m
        near = 32 * s
{one(4, four)}{one(2, two)}{one(3, three)}{one(5, five)}        else:
            # A small odd prime: every output is a sum over all inputs. Its roots are every (m s scale)th.
            turn = m * step
            for p in range(m):
                for q in range(s):
                    at = 32 * (q + s * p)
                    to = 32 * (q + s * r * p)
                    for k in range(r):
                        sr = w_read_{c}(a, at)
                        si = w_read_{c}(a, at + 16)
                        e = 0
                        for j in range(1, r):
                            e += k
                            if e >= r:
                                e -= r
                            xr = w_read_{c}(a, at + j * far)
                            xi = w_read_{c}(a, at + j * far + 16)
                            wr = w_fill_{c}(load_{c}(table, 2 * e * turn))
                            wi = w_fill_{c}(load_{c}(table, 2 * e * turn + 1))
                            sr = {sub}({fma}(xr, wr, sr), {mul}(xi, wi))
                            si = {fma}(xi, wr, {fma}(xr, wi, si))
                        tr = w_fill_{c}(load_{c}(table, 2 * k * p * step))
                        ti = w_fill_{c}(load_{c}(table, 2 * k * p * step + 1))
                        {_complex_product(c, "z", "s", "t")}
                        w_write_{c}(b, to + k * near, zr)
                        w_write_{c}(b, to + k * near + 16, zi)
        a, b = b, a
        s *= r
        f += 1
        r = load_i64(radices, f)
    return a
"""


def _moves_source(c: str) -> str:
    """Sixteen lines at once: pairs taken apart and put together, squares of 16 x 16 transposed."""
    rows = "\n".join(f"    x{k} = w_read_{c}(x, at + {k} * pitch)" for k in range(16))
    rounds = []
    for _ in range(4):  # four times row i between row i + 8
        made = [f"w_{('low', 'high')[k % 2]}_{c}(x{k // 2}, x{k // 2 + 8})" for k in range(16)]
        rounds.append(f"    {', '.join(f'x{k}' for k in range(16))} = {', '.join(made)}")
    stores = "\n".join(f"    w_write_{c}(out, to + {k} * step, x{k})" for k in range(16))
    return f"""from duograd.backends.cpu.wide_pairs import w_even_{c}, w_high_{c}, w_low_{c}, w_odd_{c}

@function
def apart(x, at, out, to, swap):
    # Sixteen complex numbers as real parts and, sixteen places on, imaginary parts; swap: the other way round.
    u = w_read_{c}(x, at)
    v = w_read_{c}(x, at + 16)
    w_write_{c}(out, to + 16 * swap, w_even_{c}(u, v))
    w_write_{c}(out, to + 16 - 16 * swap, w_odd_{c}(u, v))

@function
def together(out, to, re, im, swap):
    if swap == 0:
        w_write_{c}(out, to, w_low_{c}(re, im))
        w_write_{c}(out, to + 16, w_high_{c}(re, im))
    else:
        w_write_{c}(out, to, w_low_{c}(im, re))
        w_write_{c}(out, to + 16, w_high_{c}(im, re))

@function
def transpose(x, at, pitch, out, to, step):
{rows}
{chr(10).join(rounds)}
{stores}
"""


@functools.cache
def whole_source(c: str) -> str:
    return f"""# fft {c}: whole lines, one in each lane
{_passes_source(c)}
{_moves_source(c)}
def kernel(args, chunk, nchunks):
    x, out, table, radices, n, scale = args[0], args[1], args[2], args[3], args[4], bits_f64(args[5])
    outer, lanes, x_outer, x_lane, x_k = args[6], args[7], args[8], args[9], args[10]
    out_outer, out_lane, out_k, swap = args[11], args[12], args[13], args[14]
    a = args[15] + chunk * args[16]
    b = a + args[17]
    square = b + args[17]
    blocks = quotient(lanes + 15, 16)
    factor = w_fill_{c}(types.{"float32" if c == "f32" else "float64"}(scale))
    tasks = outer * blocks
    for task in range(share(tasks, chunk, nchunks), share(tasks, chunk + 1, nchunks)):
        o = quotient(task, blocks)
        first = 16 * remainder(task, blocks)
        mask = w_mask(lanes, first)
        at = 2 * (o * x_outer + first * x_lane)
        # Lanes side by side are loaded as they stand, lines side by side by squares, what is left one by one.
        beside = 0
        by_squares = 0
        if first + 16 <= lanes and x_lane == 1:
            beside = n
        elif first + 16 <= lanes and x_k == 1:
            by_squares = n - remainder(n, 16)
        for k in range(beside):
            apart(x, at + 2 * k * x_k, a, 32 * k, swap)
        for k in range(0, by_squares, 16):
            for lane in range(16):
                apart(x, at + 2 * (lane * x_lane + k), square, 32 * lane, swap)
            transpose(square, 0, 32, a, 32 * k, 32)
            transpose(square, 16, 32, a, 32 * k + 16, 32)
        for k in range(max(beside, by_squares), n):
            w_write_{c}(a, 32 * k, w_gather_{c}(x, at + 2 * k * x_k + swap, 2 * x_lane, mask))
            w_write_{c}(a, 32 * k + 16, w_gather_{c}(x, at + 2 * k * x_k + 1 - swap, 2 * x_lane, mask))
        done = passes(a, b, n, radices, table, 1)
        to = 2 * (o * out_outer + first * out_lane)
        for k in range(beside):
            re = w_mul_{c}(w_read_{c}(done, 32 * k), factor)
            im = w_mul_{c}(w_read_{c}(done, 32 * k + 16), factor)
            together(out, to + 2 * k * out_k, re, im, swap)
        for k in range(0, by_squares, 16):
            transpose(done, 32 * k, 32, square, 0, 32)
            transpose(done, 32 * k + 16, 32, square, 16, 32)
            for lane in range(16):
                re = w_mul_{c}(w_read_{c}(square, 32 * lane), factor)
                im = w_mul_{c}(w_read_{c}(square, 32 * lane + 16), factor)
                together(out, to + 2 * (lane * out_lane + k), re, im, swap)
        for k in range(max(beside, by_squares), n):
            re = w_mul_{c}(w_read_{c}(done, 32 * k), factor)
            im = w_mul_{c}(w_read_{c}(done, 32 * k + 16), factor)
            w_scatter_{c}(out, to + 2 * k * out_k + swap, 2 * out_lane, re, mask)
            w_scatter_{c}(out, to + 2 * k * out_k + 1 - swap, 2 * out_lane, im, mask)
"""


@functools.cache
def split_source(c: str) -> str:
    return f"""# fft {c}: lines as matrices of n1 x n2, lanes are columns and then rows
{_passes_source(c)}
{_moves_source(c)}
@function
def columns(x, at, x_k, swap, first, n1, n2, pitch, table, radices, a, b, turns, to, size):
    # Transforms of 16 columns from number `first` on, turned, to rows of the planes at `to` and `to + size`.
    mask = w_mask(n2, first)
    beside = first + 16 <= n2 and x_k == 1
    for j in range(n1):
        k = at + 2 * (j * n2 + first) * x_k
        if beside:
            apart(x, k, a, 32 * j, swap)
        else:
            w_write_{c}(a, 32 * j, w_gather_{c}(x, k + swap, 2 * x_k, mask))
            w_write_{c}(a, 32 * j + 16, w_gather_{c}(x, k + 1 - swap, 2 * x_k, mask))
    done = passes(a, b, n1, radices, table, n2)
    # The turn of element k, column l is root k l: those of k below 16 are kept, those of multiples of 16 read.
    for k in range(min(16, n1)):
        w_write_{c}(turns, 32 * k, w_gather_{c}(table, 2 * k * first, 2 * k, mask))
        w_write_{c}(turns, 32 * k + 16, w_gather_{c}(table, 2 * k * first + 1, 2 * k, mask))
    for block in range(0, n1, 16):
        hr = w_gather_{c}(table, 2 * block * first, 2 * block, mask)
        hi = w_gather_{c}(table, 2 * block * first + 1, 2 * block, mask)
        for k in range(block, min(block + 16, n1)):
            lr = w_read_{c}(turns, 32 * (k - block))
            li = w_read_{c}(turns, 32 * (k - block) + 16)
            {_complex_product(c, "t", "l", "h")}
            xr = w_read_{c}(done, 32 * k)
            xi = w_read_{c}(done, 32 * k + 16)
            {_complex_product(c, "y", "x", "t")}
            w_store_{c}(to, k * pitch + first, yr, mask)
            w_store_{c}(to, size + k * pitch + first, yi, mask)

@function
def rows(x, size, pitch, first, n1, n2, table, radices, a, b, out, to, out_k, swap, factor):
    mask = w_mask(n1, first)
    squares = n2 - remainder(n2, 16) if first + 16 <= n1 else 0
    for j in range(0, squares, 16):
        transpose(x, first * pitch + j, pitch, a, 32 * j, 32)
        transpose(x, size + first * pitch + j, pitch, a, 32 * j + 16, 32)
    for j in range(squares, n2):
        w_write_{c}(a, 32 * j, w_gather_{c}(x, first * pitch + j, pitch, mask))
        w_write_{c}(a, 32 * j + 16, w_gather_{c}(x, size + first * pitch + j, pitch, mask))
    done = passes(a, b, n2, radices, table, n1)
    beside = first + 16 <= n1 and out_k == 1
    for k in range(n2):
        at = to + 2 * (k * n1 + first) * out_k
        re = w_mul_{c}(w_read_{c}(done, 32 * k), factor)
        im = w_mul_{c}(w_read_{c}(done, 32 * k + 16), factor)
        if beside:
            together(out, at, re, im, swap)
        else:
            w_scatter_{c}(out, at + swap, 2 * out_k, re, mask)
            w_scatter_{c}(out, at + 1 - swap, 2 * out_k, im, mask)

def kernel(args, chunk, nchunks):
    x, out, table, radices1, radices2 = args[0], args[1], args[2], args[3], args[4]
    n1, n2, scale, lines, inner = args[5], args[6], bits_f64(args[7]), args[8], args[9]
    x_outer, x_inner, x_k, out_outer, out_inner, out_k = args[10], args[11], args[12], args[13], args[14], args[15]
    swap, phases, middle, middle_line, pitch = args[16], args[17], args[18], args[19], args[20]
    a = args[21] + chunk * args[22]
    b = a + args[23]
    turns = b + args[23]
    size = n1 * pitch
    factor = w_fill_{c}(types.{"float32" if c == "f32" else "float64"}(scale))
    blocks1 = quotient(n2 + 15, 16)
    blocks2 = quotient(n1 + 15, 16)
    # Phase 1 alone, 2 alone, or both for each line, through an area of the chunk's own.
    tasks = lines
    if phases == 1:
        tasks = lines * blocks1
    if phases == 2:
        tasks = lines * blocks2
    for task in range(share(tasks, chunk, nchunks), share(tasks, chunk + 1, nchunks)):
        line = task
        if phases == 1:
            line = quotient(task, blocks1)
        if phases == 2:
            line = quotient(task, blocks2)
        place = middle + line * middle_line
        if phases == 3:
            place = middle + chunk * middle_line
        o = quotient(line, inner)
        i = remainder(line, inner)
        at = 2 * (o * x_outer + i * x_inner)
        to = 2 * (o * out_outer + i * out_inner)
        if phases == 1:
            columns(x, at, x_k, swap, 16 * remainder(task, blocks1), n1, n2, pitch, table, radices1, a, b, turns,
                    place, size)
        elif phases == 2:
            rows(place, size, pitch, 16 * remainder(task, blocks2), n1, n2, table, radices2, a, b, out, to, out_k,
                 swap, factor)
        else:
            for block in range(blocks1):
                columns(x, at, x_k, swap, 16 * block, n1, n2, pitch, table, radices1, a, b, turns, place, size)
            for block in range(blocks2):
                rows(place, size, pitch, 16 * block, n1, n2, table, radices2, a, b, out, to, out_k, swap, factor)
"""
