// Draws north-up patches from a raw frame, as s4g/core/warp.py does with OpenCV, and brightens dark
// ones, as s4g/core/dusk.py does.
//
// Drawing takes one thread per patch pixel: the pixel's place in the frame by a homography, the lens's
// distortion, then four taps of a frame that is shrunk by a whole factor on the way. Written for
// NVRTC; a host compiler takes it too, given the CUDA words (tests/cuda_on_cpu.h), so that the
// arithmetic is tested where there is no GPU.

// As WARP_DTYPE in gpu_warp.py. Coefficients are OpenCV's: k1 k2 p1 p2 k3 k4 k5 k6.
struct Warp {
    double frame_from_patch[9];  // row-major, patch pixel to undistorted frame pixel
    float focal_px[2];
    float center_px[2];
    float distortion[8];
    float reach;    // slope off the axis up to which the radial polynomial increases
    int distorted;  // 0: the lens is perfect
    int shrink;     // 1 or more
    int reserved;
};
static_assert(sizeof(Warp) == 136, "gpu_warp.py packs 136 bytes");

// A channel of pixel (column, row) of the shrunk frame: the mean of shrink x shrink pixels,
// rounded as cv2.resize rounds INTER_AREA (halves up for 2 x 2, else to even). 0 outside.
__device__ inline void tap(const unsigned char* frame, int stride, int width, int height,
                           int shrink, int column, int row, float* rgb) {
    rgb[0] = rgb[1] = rgb[2] = 0.0f;
    if (column < 0 || row < 0 || column >= width || row >= height) return;
    const unsigned char* block =
        frame + (size_t)row * shrink * stride + (size_t)column * shrink * 3;
    if (shrink == 1) {
        for (int c = 0; c < 3; ++c) rgb[c] = block[c];
        return;
    }
    unsigned int sum[3] = {0, 0, 0};  // of at most 4096 x 4096 pixels of 255: below 2^32
    for (int y = 0; y < shrink; ++y)
        for (int x = 0; x < shrink; ++x)
            for (int c = 0; c < 3; ++c) sum[c] += block[(size_t)y * stride + 3 * x + c];
    const float share = 1.0f / (float)(shrink * shrink);
    for (int c = 0; c < 3; ++c)
        rgb[c] = shrink == 2 ? (float)((sum[c] + 2) >> 2) : rintf((float)sum[c] * share);
}

// Where an undistorted frame pixel lies in the real frame (Brown 1966, with OpenCV's rational
// radial term); false where the polynomial has turned back.
__device__ inline bool distort(const Warp& warp, float* column, float* row) {
    const float* k = warp.distortion;
    const float x = (*column - warp.center_px[0]) / warp.focal_px[0];
    const float y = (*row - warp.center_px[1]) / warp.focal_px[1];
    const float square = x * x + y * y;
    if (!(square <= warp.reach * warp.reach)) return false;
    const float radial = (1.0f + square * (k[0] + square * (k[1] + square * k[4]))) /
                         (1.0f + square * (k[5] + square * (k[6] + square * k[7])));
    const float dx = 2.0f * k[2] * x * y + k[3] * (square + 2.0f * x * x);
    const float dy = k[2] * (square + 2.0f * y * y) + 2.0f * k[3] * x * y;
    *column = (x * radial + dx) * warp.focal_px[0] + warp.center_px[0];
    *row = (y * radial + dy) * warp.focal_px[1] + warp.center_px[1];
    return true;
}

// frame (height, width, 3), out (patches, side, side, 3), both RGB and row-major; grid (side / 16,
// side / 16, patches) rounded up, blocks of 16 x 16.
extern "C" __global__ void warp_patches(const unsigned char* frame, int width, int height,
                                        const Warp* warps, int side, unsigned char* out) {
    const int u = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    const int v = (int)(blockIdx.y * blockDim.y + threadIdx.y);
    if (u >= side || v >= side) return;
    const Warp& warp = warps[blockIdx.z];
    unsigned char* pixel = out + (((size_t)blockIdx.z * side + v) * side + u) * 3;
    pixel[0] = pixel[1] = pixel[2] = 0;

    const double* h = warp.frame_from_patch;
    const double depth = h[6] * u + h[7] * v + h[8];
    if (!(depth > 0.0)) return;  // behind the camera, it would show up mirrored
    float column = (float)((h[0] * u + h[1] * v + h[2]) / depth);
    float row = (float)((h[3] * u + h[4] * v + h[5]) / depth);
    if (warp.distorted && !distort(warp, &column, &row)) return;

    // Pixel centres are whole numbers in the frame and in the shrunk frame.
    const float shrink = (float)warp.shrink;
    column = (column + 0.5f) / shrink - 0.5f;
    row = (row + 0.5f) / shrink - 0.5f;
    const int shrunk_width = width / warp.shrink;
    const int shrunk_height = height / warp.shrink;
    if (!(column > -1.0f && row > -1.0f && column < shrunk_width && row < shrunk_height)) return;

    const float left = floorf(column), top = floorf(row);
    const float right_share = column - left, below_share = row - top;
    float a[3], b[3], c[3], d[3];
    tap(frame, 3 * width, shrunk_width, shrunk_height, warp.shrink, (int)left, (int)top, a);
    tap(frame, 3 * width, shrunk_width, shrunk_height, warp.shrink, (int)left + 1, (int)top, b);
    tap(frame, 3 * width, shrunk_width, shrunk_height, warp.shrink, (int)left, (int)top + 1, c);
    tap(frame, 3 * width, shrunk_width, shrunk_height, warp.shrink, (int)left + 1, (int)top + 1, d);
    for (int i = 0; i < 3; ++i) {
        const float above = a[i] + right_share * (b[i] - a[i]);
        const float below = c[i] + right_share * (d[i] - c[i]);
        pixel[i] = (unsigned char)rintf(above + below_share * (below - above));
    }
}

// How bright the columns of patches (patches, side, side, 3) are: sums (patches, side); of columns
// and rows only every step-th counts. One thread per column: grid (side / 128 rounded up, 1,
// patches), blocks of 128.
extern "C" __global__ void sum_columns(const unsigned char* patches, int side, int step,
                                       unsigned int* sums) {
    const int u = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (u >= side || u % step != 0) return;
    const unsigned char* column = patches + ((size_t)blockIdx.z * side * side + u) * 3;
    unsigned int sum = 0;
    for (int v = 0; v < side; v += step) {
        const unsigned char* pixel = column + (size_t)v * side * 3;
        sum += (unsigned int)pixel[0] + pixel[1] + pixel[2];
    }
    sums[(size_t)blockIdx.z * side + u] = sum;
}

// out (patches, side, side, 3): patches whose mean is below `dusk` brought to `day` by a factor of
// `most` or less, the others as they are. Grid as above; each thread adds the sums up for itself,
// which is less work than its column and takes no meeting of threads.
extern "C" __global__ void brighten_patches(const unsigned char* patches, const unsigned int* sums,
                                            int side, int step, float dusk, float day, float most,
                                            unsigned char* out) {
    const int u = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (u >= side) return;
    double total = 0.0;
    int columns = 0;
    for (int i = 0; i < side; i += step) {
        total += sums[(size_t)blockIdx.z * side + i];
        ++columns;
    }
    const double mean = total / (3.0 * columns * columns);
    const float gain = mean < dusk ? (float)fmin(day / fmax(mean, 1.0), (double)most) : 1.0f;
    const size_t top = ((size_t)blockIdx.z * side * side + u) * 3;
    for (int v = 0; v < side; ++v)
        for (int c = 0; c < 3; ++c) {
            const size_t at = top + (size_t)v * side * 3 + c;
            // Rounded after the product as numpy does, not fused with the sum.
            out[at] = (unsigned char)fminf(__fmul_rn(patches[at], gain) + 0.5f, 255.0f);
        }
}
