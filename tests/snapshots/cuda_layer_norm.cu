// launch: row kept=1 reduced=1
// layer_norm at train.py:14
#include "loop.cuh"
#include "reduce.cuh"

extern "C" __global__ void __launch_bounds__(512)
KERNEL(const __grid_constant__ Slots<15> args) {
    const i64 n0 = args.at[0];
    const i64 n1 = args.at[1];
    const f32* const a0 = (const f32*)args.at[2];
    const i64 s0_0 = args.at[3];
    const f32* const a2 = (const f32*)args.at[6];
    const i64 s2_0 = args.at[7];
    f32* const o0 = (f32*)args.at[9];
    const i64 p0_0 = args.at[10];
    f32* const o1 = (f32*)args.at[12];
    const i64 p1_0 = args.at[13];
    __shared__ f32 shared_f32[ROW_PLACES];
    const i64 items = n0;
    const f32 x1 = (f32)as_float(args.at[5]);
    for (i64 first = (i64)blockIdx.x * blockDim.y; first < items; first += (i64)gridDim.x * blockDim.y) {
        const bool live = first + threadIdx.y < items;
        const i64 j0 = first + threadIdx.y;
        const i64 count = live ? n1 : 0;
        const i64 at0 = j0 * s0_0;
        const i64 at2 = j0 * s2_0;
        const i64 to0 = j0 * p0_0;
        const i64 to1 = j0 * p1_0;
        f32 r0 = 0.0f;
        for (i64 number = threadIdx.x; number < count; number += blockDim.x) {
            const i64 j1 = number;
            const f32 x0 = a0[at0 + j1];
            r0 = Sum::combine(r0, x0);
        }
        r0 = reduce_x<Sum>(r0, shared_f32);
        const f32 t0 = r0 * x1;
        f32 r1 = 0.0f;
        for (i64 number = threadIdx.x; number < count; number += blockDim.x) {
            const i64 j1 = number;
            const f32 x0 = a0[at0 + j1];
            const f32 t1 = x0 - t0;
            const f32 t2 = t1 * t1;
            r1 = Sum::combine(r1, t2);
        }
        r1 = reduce_x<Sum>(r1, shared_f32);
        const f32 t1 = r1 * x1;
        const f32 t2 = t1 + 1e-05f;
        const f32 t3 = sqrtf(t2);
        const f32 t4 = 1.0f / t3;
        for (i64 number = threadIdx.x; number < count; number += blockDim.x) {
            const i64 j1 = number;
            const f32 x0 = a0[at0 + j1];
            const f32 t5 = x0 - t0;
            const f32 t6 = t5 * t4;
            const f32 x2 = a2[at2 + j1];
            const f32 t7 = t6 * x2;
            o0[to0 + j1] = t7;
        }
        if (live && threadIdx.x == 0) {
            o1[to1] = t4;
        }
    }
}
