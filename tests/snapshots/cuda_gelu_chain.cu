// launch: map axes=1 items=4
// gelu at train.py:12
#include "loop.cuh"

extern "C" __global__ void __launch_bounds__(256)
KERNEL(const __grid_constant__ Slots<8> args) {
    const i64 n0 = args.at[0];
    const f32* const a0 = (const f32*)args.at[1];
    const f32* const a1 = (const f32*)args.at[3];
    f32* const o0 = (f32*)args.at[6];
    const f32 x2 = (f32)as_float(args.at[5]);
    for (i64 first = (i64)blockIdx.x * (blockDim.x * 4) + threadIdx.x; first < n0; first += (i64)gridDim.x * (blockDim.x * 4)) {
        f32 v0[4];
        f32 v1[4];
        #pragma unroll
        for (int u = 0; u < 4; ++u) {
            const i64 j0 = first + u * blockDim.x;
            if (j0 < n0) {
                v0[u] = a0[j0];
                v1[u] = a1[j0];
            }
        }
        #pragma unroll
        for (int u = 0; u < 4; ++u) {
            const i64 j0 = first + u * blockDim.x;
            if (j0 < n0) {
                const f32 x0 = v0[u];
                const f32 x1 = v1[u];
                const f32 t0 = x0 * x1;
                const f32 t1 = t0 + x2;
                const f32 t2 = t1 * 0.5f;
                const f32 t3 = t1 * 0.70710677f;
                const f32 t4 = erff(t3);
                const f32 t5 = 1.0f + t4;
                const f32 t6 = t2 * t5;
                o0[j0] = t6;
            }
        }
    }
}
