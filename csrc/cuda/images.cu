// What training asks of a batch beside the network: windows of stored images (random crops and flips), and where each
// row's target stands among its outputs (accuracy, top 5). Next: python/fastnn/cuda/images.py.
#include "common.cuh"

// y (B, C, h, w) from x (B, C, H, W) with a border of p rows and q columns of `fill` around each image.
struct Windows {
  int64_t total, C, H, W, h, w, p, q;
};

// y[b, c, i, j] = x[b, c, top[b] + i - p, left[b] + j - q], mirrored left to right where flip[b]; top and left without
// an array are 0, flip is no.
template <class T>
__global__ void windows(const T* x, const int* top, const int* left, const uint8_t* flip, T* y, Windows s, T fill) {
  for (int64_t k : grid_stride(s.total)) {
    const int64_t j = k % s.w, i = k / s.w % s.h, plane = k / (s.w * s.h), b = plane / s.C;
    const int64_t column = (flip && flip[b] ? s.w - 1 - j : j) + (left ? left[b] : 0) - s.q;
    const int64_t row = i + (top ? top[b] : 0) - s.p;
    const bool inside = row >= 0 && row < s.H && column >= 0 && column < s.W;
    y[k] = inside ? x[(plane * s.H + row) * s.W + column] : fill;
  }
}

// place[n]: how many of the row's C outputs are ahead of the target's: larger, or equal and of a lower class. The
// largest int where the row holds a NaN or the target is no class: it is beyond any limit. A warp a row.
template <class T>
__global__ void place_of_target(const T* x, const int64_t* target, int* place, int64_t N, int64_t C) {
  const int64_t row = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
  if (row >= N) return;  // whole warps
  const int64_t own = target[row];
  const bool valid = own >= 0 && own < C;
  const T value = valid ? x[row * C + own] : T(0);
  int ahead = 0, bad = valid ? 0 : 1;
  for (int64_t c = threadIdx.x % WARP; c < C; c += WARP) {
    const T v = x[row * C + c];
    bad |= v != v;
    ahead += v > value || (v == value && c < own);
  }
  ahead = warp_reduce(ahead, Sum());
  bad = warp_reduce(bad, Max());
  if (threadIdx.x % WARP == 0) place[row] = bad ? 0x7fffffff : ahead;
}
