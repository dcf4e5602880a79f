// Scalar instructions: what core/scalar.py's operations mean on one number, where C's operators do not say it.
// NumPy's rules: integers wrap, an integer divided by zero is 0, remainders have the divisor's sign, maximum
// and minimum hand on NaN. Plain C++ as well: the emulation compiles it with g++.
#pragma once

typedef bool b1;
typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

// NVRTC has no <cmath> constants.
#define F32_INF __int_as_float(0x7f800000)
#define F32_NAN __int_as_float(0x7fc00000)
#define F64_INF __longlong_as_double(0x7ff0000000000000LL)
#define F64_NAN __longlong_as_double(0x7ff8000000000000LL)
#define I64_MIN (-9223372036854775807LL - 1)

#define INSTRUCTION static __device__ __forceinline__

// ---- arithmetic. Signed overflow is undefined in C++: integers are added and multiplied as unsigned ones.

template <class T> INSTRUCTION T s_add(T a, T b) { return (T)((u64)a + (u64)b); }
template <class T> INSTRUCTION T s_sub(T a, T b) { return (T)((u64)a - (u64)b); }
template <class T> INSTRUCTION T s_mul(T a, T b) { return (T)((u64)a * (u64)b); }
INSTRUCTION f32 s_add(f32 a, f32 b) { return a + b; }
INSTRUCTION f64 s_add(f64 a, f64 b) { return a + b; }
INSTRUCTION b1 s_add(b1 a, b1 b) { return a || b; }
INSTRUCTION f32 s_mul(f32 a, f32 b) { return a * b; }
INSTRUCTION f64 s_mul(f64 a, f64 b) { return a * b; }
INSTRUCTION b1 s_mul(b1 a, b1 b) { return a && b; }
template <class T> INSTRUCTION T s_neg(T x) { return (T)(0 - (u64)x); }
template <class T> INSTRUCTION T s_abs(T x) { return x < 0 ? s_neg(x) : x; }

// ---- extremes and sign

template <class T> INSTRUCTION T s_maximum(T a, T b) { return b != b ? b : b > a ? b : a; }
template <class T> INSTRUCTION T s_minimum(T a, T b) { return b != b ? b : b < a ? b : a; }
template <class T> INSTRUCTION T s_sign(T x) { return x != x ? x : x > 0 ? (T)1 : x < 0 ? (T)-1 : (T)0; }

// ---- bits. In C a count outside 0 .. width - 1 is undefined.

template <class T> INSTRUCTION T s_shl(T x, T n) {
    return (u64)n < 8 * sizeof(T) ? (T)((u64)x << (u64)n) : (T)0;
}

template <class T> INSTRUCTION T s_shr(T x, T n) {
    return (u64)n < 8 * sizeof(T) ? (T)(x >> n) : x < 0 ? (T)-1 : (T)0;
}

// ---- division with remainder

template <class T> INSTRUCTION T s_floordiv(T a, T b) {
    if (b == 0) return 0;
    if (b == (T)-1 && (T)-1 < (T)0) return s_neg(a);  // the lowest number by -1 overflows
    const T q = (T)(a / b);
    return a % b != 0 && ((a < 0) != (b < 0)) ? (T)(q - 1) : q;
}

template <class T> INSTRUCTION T s_mod(T a, T b) {
    if (b == 0 || (b == (T)-1 && (T)-1 < (T)0)) return 0;
    const T r = (T)(a % b);
    return r != 0 && ((r < 0) != (b < 0)) ? (T)(r + b) : r;
}

// The remainder with the dividend's sign.
template <class T> INSTRUCTION T s_fmod(T a, T b) {
    if (b == 0 || (b == (T)-1 && (T)-1 < (T)0)) return 0;
    return (T)(a % b);
}

// Euclid's algorithm on magnitudes, which fit 64 bits without a sign.
template <class T> INSTRUCTION T s_gcd(T a, T b) {
    u64 x = a < 0 ? 0 - (u64)a : (u64)a, y = b < 0 ? 0 - (u64)b : (u64)b;
    while (y) {
        const u64 r = x % y;
        x = y;
        y = r;
    }
    return (T)x;
}

INSTRUCTION f32 s_fmod(f32 a, f32 b) { return fmodf(a, b); }
INSTRUCTION f64 s_fmod(f64 a, f64 b) { return fmod(a, b); }
INSTRUCTION f32 s_floor(f32 x) { return floorf(x); }
INSTRUCTION f64 s_floor(f64 x) { return floor(x); }
INSTRUCTION f32 s_copysign(f32 x, f32 y) { return copysignf(x, y); }
INSTRUCTION f64 s_copysign(f64 x, f64 y) { return copysign(x, y); }

// The floats' quotient is made from the exact remainder, as NumPy makes it.
template <class T> INSTRUCTION T float_floordiv(T a, T b) {
    // Beside an infinity it is the quotient, as the array API standard says.
    if (b == 0 || a - a != 0 || b - b != 0) return a / b;
    const T r = s_fmod(a, b);
    T q = (a - r) / b;
    if (r != 0 && ((b < 0) != (r < 0))) q -= 1;
    if (q == 0) return s_copysign((T)0, a / b);
    const T whole = s_floor(q);
    return q - whole > (T)0.5 ? whole + 1 : whole;
}

template <class T> INSTRUCTION T float_mod(T a, T b) {
    const T r = s_fmod(a, b);
    if (b == 0 || r != r) return r;
    if (r == 0) return s_copysign((T)0, b);
    return (b < 0) != (r < 0) ? r + b : r;
}

INSTRUCTION f32 s_floordiv(f32 a, f32 b) { return float_floordiv(a, b); }
INSTRUCTION f64 s_floordiv(f64 a, f64 b) { return float_floordiv(a, b); }
INSTRUCTION f32 s_mod(f32 a, f32 b) { return float_mod(a, b); }
INSTRUCTION f64 s_mod(f64 a, f64 b) { return float_mod(a, b); }

// x**n for integers, by squaring; a negative n gives what 1 / x**-n truncates to.
template <class T> INSTRUCTION T s_pow(T x, T n) {
    if (n < 0) return x == 1 ? (T)1 : x == (T)-1 ? (T)(n & 1 ? -1 : 1) : (T)0;
    u64 base = (u64)x, result = 1;
    for (u64 power = (u64)n; power; power >>= 1) {
        if (power & 1) result *= base;
        base *= base;
    }
    return (T)result;
}

// ---- 16-bit floats: 16 bits in memory, a float32 in registers, rounded to the nearest, halves to even

struct f16 {
    u16 bits;
};

struct bf16 {
    u16 bits;
};

#ifdef __CUDACC_RTC__
INSTRUCTION f32 s_widen(f16 x) {
    f32 wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}

INSTRUCTION void s_narrow(f16& to, f32 x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }
#else
INSTRUCTION f32 s_widen(f16 x) {
    const u32 sign = (u32)(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
    if (rest >= 0x7c00) return __int_as_float((int)(sign | 0x7f800000 | (rest & 0x3ff) << 13));
    const f32 magnitude = __int_as_float((int)(rest << 13)) * __int_as_float(0x77800000);  // 2**112
    return sign ? -magnitude : magnitude;
}

INSTRUCTION void s_narrow(f16& to, f32 x) {
    const u32 bits = (u32)__float_as_int(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) {
        to.bits = (u16)(sign | 0x7e00);
    } else if (rest >= 0x38800000) {  // normal, or too large
        const u32 up = rest + 0xfff + (rest >> 13 & 1) - 0x38000000;
        to.bits = (u16)(sign | (up >= 0x0f800000 ? 0x7c00 : up >> 13));
    } else {  // adding 2**-1 leaves the number of the smallest steps in the lowest bits, rounded
        const f32 sum = __int_as_float((int)rest) + 0.5f;
        to.bits = (u16)(sign | ((u32)__float_as_int(sum) - 0x3f000000));
    }
}
#endif

INSTRUCTION f32 s_widen(bf16 x) { return __int_as_float((int)((u32)x.bits << 16)); }

INSTRUCTION void s_narrow(bf16& to, f32 x) {
    const u32 bits = (u32)__float_as_int(x);
    to.bits = (u16)((x != x ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <class T> INSTRUCTION f32 s_rounded(f32 x) {
    T bits;
    s_narrow(bits, x);
    return s_widen(bits);
}

INSTRUCTION f32 s_round_f16(f32 x) { return s_rounded<f16>(x); }
INSTRUCTION f32 s_round_bf16(f32 x) { return s_rounded<bf16>(x); }
INSTRUCTION f32 s_round_bf16(f64 x) { return s_rounded<bf16>((f32)x); }

// From float64 through the float32 next to x that is odd, so that nothing is rounded twice.
INSTRUCTION f32 s_round_f16(f64 x) {
    const f32 near = (f32)x;
    const f64 back = (f64)near;
    if (back == x || x != x) return s_rounded<f16>(near);
    const int bits = __float_as_int(near) - (fabs(back) > fabs(x) ? 1 : 0);
    return s_rounded<f16>(__int_as_float(bits | 1));
}

// ---- activations that need care

// exp never sees a positive number, so that nothing overflows and small results stay exact.
INSTRUCTION f32 s_gelu(f32 x) {
    x = x < -1e4f ? -1e4f : x;
    return x * 0.5f * erfcf(x * -0.70710678f);
}
INSTRUCTION f64 s_gelu(f64 x) {
    x = x < -1e4 ? -1e4 : x;
    return x * 0.5 * erfc(x * -0.70710678118654752);
}

INSTRUCTION f32 s_softplus(f32 x) { return (x > 0 ? x : 0.0f) + log1pf(expf(-fabsf(x))); }
INSTRUCTION f64 s_softplus(f64 x) { return (x > 0 ? x : 0.0) + log1p(exp(-fabs(x))); }

INSTRUCTION f32 s_sigmoid(f32 x) {
    const f32 e = expf(-fabsf(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}

INSTRUCTION f64 s_sigmoid(f64 x) {
    const f64 e = exp(-fabs(x));
    return (x < 0 ? e : 1.0) / (1.0 + e);
}

// ---- floats to integers: cut towards 0; NaN is 0; beyond int32 and int64 the nearest number of the range,
// for narrower integers the low bits of that. In C all of these are undefined.

template <class F> INSTRUCTION i32 to_i32(F x) {
    if (x != x) return 0;
    if (x >= (F)2147483648.0) return 2147483647;
    return x < (F)-2147483648.0 ? -2147483647 - 1 : (i32)x;
}

template <class F> INSTRUCTION i64 to_i64(F x) {
    if (x != x) return 0;
    if (x >= (F)9223372036854775808.0) return 9223372036854775807LL;
    return x < (F)-9223372036854775808.0 ? I64_MIN : (i64)x;
}

template <class F> INSTRUCTION u64 to_u64(F x) {
    if (!(x >= (F)9223372036854775808.0)) return (u64)to_i64(x);
    return x >= (F)18446744073709551616.0 ? 18446744073709551615ULL : (u64)x;
}
