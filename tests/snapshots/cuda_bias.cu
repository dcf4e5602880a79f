// launch: map axes=3 items=1
#include "loop.cuh"

extern "C" __global__ void __launch_bounds__(256)
KERNEL(const __grid_constant__ Slots<19> args) {
    const i64 n0 = args.at[0];
    const i64 n1 = args.at[1];
    const i64 n2 = args.at[2];
    const f32* const a0 = (const f32*)args.at[3];
    const i64 s0_0 = args.at[4];
    const i64 s0_1 = args.at[5];
    const f32* const a1 = (const f32*)args.at[7];
    const i64 s1_0 = args.at[8];
    const i64 s1_1 = args.at[9];
    const u8* const a2 = (const u8*)args.at[11];
    const i64 s2_0 = args.at[12];
    const i64 s2_1 = args.at[13];
    const i64 s2_2 = args.at[14];
    f32* const o0 = (f32*)args.at[15];
    const i64 p0_0 = args.at[16];
    const i64 p0_1 = args.at[17];
    const i64 total = n0 * n1 * n2;
    for (i64 number = (i64)blockIdx.x * blockDim.x + threadIdx.x; number < total; number += (i64)gridDim.x * blockDim.x) {
        i64 rest0 = number;
        const i64 j2 = split_off(rest0, n2);
        const i64 j1 = split_off(rest0, n1);
        const i64 j0 = rest0;
        const b1 x2 = a2[j0 * s2_0 + j1 * s2_1 + j2 * s2_2] != 0;
        const f32 x0 = a0[j0 * s0_0 + j1 * s0_1 + j2];
        const f32 x1 = a1[j0 * s1_0 + j1 * s1_1];
        const f32 t0 = x0 + x1;
        const f32 t1 = x2 ? t0 : 0.0f;
        o0[j0 * p0_0 + j1 * p0_1 + j2] = t1;
    }
}
