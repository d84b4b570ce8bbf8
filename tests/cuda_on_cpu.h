// The CUDA words of core/kernels/warp.cu for a host compiler: the grid runs as loops.
// g++ -include cuda_on_cpu.h -x c++ warp.cu
#include <cmath>
#include <cstddef>

struct Dim3 {
    unsigned x, y, z;
};
static Dim3 blockIdx, blockDim, threadIdx;
static inline float __fmul_rn(float a, float b) { return a * b; }
#define __global__
#define __device__

struct Warp;
extern "C" void warp_patches(const unsigned char* frame, int width, int height, const Warp* warps,
                             int side, unsigned char* out);

extern "C" void sum_columns(const unsigned char* patches, int side, int step, unsigned* sums);
extern "C" void brighten_patches(const unsigned char* patches, const unsigned* sums, int side,
                                 int step, float dusk, float day, float most, unsigned char* out);

template <class Kernel> static void run(const unsigned* grid, const unsigned* block, Kernel kernel) {
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
                for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
                    for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x) kernel();
}

extern "C" void run_warp_patches(const unsigned* grid, const unsigned* block,
                                 const unsigned char* frame, int width, int height,
                                 const Warp* warps, int side, unsigned char* out) {
    run(grid, block, [=] { warp_patches(frame, width, height, warps, side, out); });
}

extern "C" void run_sum_columns(const unsigned* grid, const unsigned* block,
                                const unsigned char* patches, int side, int step, unsigned* sums) {
    run(grid, block, [=] { sum_columns(patches, side, step, sums); });
}

extern "C" void run_brighten_patches(const unsigned* grid, const unsigned* block,
                                     const unsigned char* patches, const unsigned* sums, int side,
                                     int step, float dusk, float day, float most,
                                     unsigned char* out) {
    run(grid, block,
        [=] { brighten_patches(patches, sums, side, step, dusk, day, most, out); });
}
