// Random bits: Philox4x32-10, the same bits as backends/cpu/vecmath_random.py and core/scalar.py give.
// Source: Salmon, Moraes, Dror, Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
// Plain C++ as well: tests compile it with g++.
#pragma once

#if defined(__CUDACC_RTC__)
#define DG_INLINE __device__ __forceinline__
#elif defined(__CUDACC__)
#define DG_INLINE __host__ __device__ __forceinline__
#else
#define DG_INLINE static inline
#endif

// NVRTC has no <cstdint>; these are the widths on every platform CUDA runs on.
typedef unsigned int dg_u32;
typedef unsigned long long dg_u64;

// Word 0 to 3 of the block for a 128-bit counter and a 64-bit key.
DG_INLINE dg_u32 dg_philox4x32(dg_u64 counter, dg_u64 counter_high, dg_u64 key, int word) {
    dg_u32 c0 = (dg_u32)counter, c1 = (dg_u32)(counter >> 32);
    dg_u32 c2 = (dg_u32)counter_high, c3 = (dg_u32)(counter_high >> 32);
    dg_u32 k0 = (dg_u32)key, k1 = (dg_u32)(key >> 32);
    for (int round = 0; round < 10; ++round) {
        dg_u64 p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = (dg_u32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (dg_u32)p1;
        c2 = (dg_u32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (dg_u32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return word & 2 ? (word & 1 ? c3 : c2) : (word & 1 ? c1 : c0);
}

// The 32 random bits of element `index`: word `word` of counter offset + index, key = seed.
DG_INLINE dg_u32 dg_philox(dg_u64 seed, dg_u64 offset, long long index, int word) {
    return dg_philox4x32(offset + (dg_u64)index, 0, seed, word);
}

// The top 24 bits as a number in [0, 1).
DG_INLINE float dg_uniform_f32(dg_u32 bits) { return (float)(bits >> 8) * 5.9604644775390625e-8f; }

// The top 32 and 21 bits of two words as a number in [0, 1).
DG_INLINE double dg_uniform_f64(dg_u32 high, dg_u32 low) {
    return (double)(((dg_u64)high << 21) | (low >> 11)) * 1.1102230246251565e-16;
}
