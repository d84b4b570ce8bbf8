// The CUDA words of core/kernels/warp.cu for a host compiler: the grid runs as loops.
// g++ -include cuda_on_cpu.h -x c++ warp.cu
#include <cmath>
#include <cstddef>

struct Dim3 {
    unsigned x, y, z;
};
static Dim3 blockIdx, blockDim, threadIdx;
#define __global__
#define __device__

struct Warp;
extern "C" void warp_patches(const unsigned char* frame, int width, int height, const Warp* warps,
                             int side, unsigned char* out);

extern "C" void run_grid(const unsigned* grid, const unsigned* block, const unsigned char* frame,
                         int width, int height, const Warp* warps, int side, unsigned char* out) {
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
                for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
                    for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x)
                        warp_patches(frame, width, height, warps, side, out);
}
