// launch: row kept=1 reduced=1 split
#include "loop.cuh"
#include "reduce.cuh"

extern "C" __global__ void __launch_bounds__(512)
KERNEL(const __grid_constant__ Slots<9> args) {
    const i64 n0 = args.at[0];
    const i64 n1 = args.at[1];
    const i64 length = args.at[2];
    const f32* const a0 = (const f32*)args.at[3];
    const i64 s0_0 = args.at[4];
    f32* const o0 = (f32*)args.at[6];
    const i64 p0_0 = args.at[7];
    __shared__ f32 shared_f32[ROW_PLACES];
    const i64 items = n0;
    for (i64 first = (i64)blockIdx.x * blockDim.y; first < items; first += (i64)gridDim.x * blockDim.y) {
        const bool live = first + threadIdx.y < items;
        const i64 j0 = first + threadIdx.y;
        const i64 low = j0 * length;
        const i64 part = n1 - low < length ? n1 - low : length;
        const i64 count = live ? part : 0;
        const i64 at0 = j0 * s0_0;
        const i64 to0 = j0 * p0_0;
        f32 r0 = 0.0f;
        for (i64 number = threadIdx.x; number < count; number += blockDim.x) {
            const i64 inside = number;
            const i64 j1 = low + inside;
            const f32 x0 = a0[at0 + j1];
            const f32 t0 = x0 * x0;
            r0 = Sum::combine(r0, t0);
        }
        r0 = reduce_x<Sum>(r0, shared_f32);
        if (live && threadIdx.x == 0) {
            o0[to0] = r0;
        }
    }
}
