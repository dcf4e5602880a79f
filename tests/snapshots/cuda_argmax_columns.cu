// launch: col kept=1 reduced=2
#include "loop.cuh"
#include "reduce.cuh"

extern "C" __global__ void __launch_bounds__(256)
KERNEL(const __grid_constant__ Slots<14> args) {
    const i64 n0 = args.at[0];
    const i64 n1 = args.at[1];
    const i64 n2 = args.at[2];
    const i64 n3 = args.at[3];
    const f32* const a0 = (const f32*)args.at[4];
    const i64 s0_0 = args.at[5];
    const i64 s0_1 = args.at[6];
    const i64 s0_2 = args.at[7];
    i64* const o0 = (i64*)args.at[9];
    const i64 p0_0 = args.at[10];
    __shared__ Best<f32> shared_best_f32[COLUMN_PLACES];
    const i64 items = n0 * n3;
    for (i64 first = (i64)blockIdx.x * blockDim.x; first < items; first += (i64)gridDim.x * blockDim.x) {
        const bool live = first + threadIdx.x < items;
        i64 rest0 = first + threadIdx.x;
        const i64 j3 = split_off(rest0, n3);
        const i64 j0 = rest0;
        const i64 count = live ? n1 * n2 : 0;
        const i64 at0 = j0 * s0_0 + j3;
        const i64 to0 = j0 * p0_0 + j3;
        Best<f32> r0 = {0.0f, -1};
        for (i64 number = threadIdx.y; number < count; number += blockDim.y) {
            i64 rest1 = number;
            const i64 j2 = split_off(rest1, n2);
            const i64 j1 = rest1;
            const f32 x0 = a0[at0 + j1 * s0_1 + j2 * s0_2];
            r0 = ArgMax::combine(r0, Best<f32>{x0, number});
        }
        r0 = reduce_y<ArgMax>(r0, shared_best_f32);
        if (live && threadIdx.y == 0) {
            o0[to0] = r0.index;
        }
    }
}
