// Convolution with few channels in, as in a network's first layers: an image, or a band of its rows, with all that the
// band's outputs read, stands in shared memory beside the weights, and each thread makes K channels at P positions in
// registers. One launch and no scratch: it is for LeNet's layers, whose cost is launching, and for 3 channels of 3x3.
#include "conv.cuh"

constexpr int SMALL_THREADS = 128;

// Block (band + bands * n, channels / K, group): `rows` rows of outputs of image n, at most SMALL_THREADS * P
// positions. src, w -> dst, as Gather says. Registers: K * P sums. Shared memory: the weights (tap, K), then `height` x
// `width` of each source channel. `top` and `left` are the lowest of q * dq and u * du.
template <class T, int K, int P>
__global__ void __launch_bounds__(128) conv_small(const T* src, const T* w, const T* bias, T* dst, Gather g, int relu,
                                                  int rows, int height, int width, int top, int left) {
  constexpr int V = 16 / sizeof(T);
  T* const weights = dynamic_shared<T>();
  const int C = int(g.C), R = int(g.R), S = int(g.S), H = int(g.H), W = int(g.W), Wo = int(g.Wo), M = int(g.M);
  const int si = int(g.si), sj = int(g.sj), dq = int(g.dq), du = int(g.du), taps = C * R * S;
  T* const patch = weights + taps * K;
  const int bands = divide_up(int(g.Ho), rows), n = blockIdx.x / bands, row = blockIdx.x % bands * rows;
  const int m0 = blockIdx.y * K, group = blockIdx.z, positions = min(rows, int(g.Ho) - row) * Wo;

  w += g.w0 + group * g.wg;
  for (int i = threadIdx.x; i < taps * K; i += SMALL_THREADS) {
    const int m = m0 + i % K, tap = i / K, u = tap % S, q = tap / S % R, c = tap / (S * R);
    weights[i] = m < M ? w[m * g.wm + c * g.wc + q * g.wq + u * g.wu] : T(0);
  }
  src += (int64_t(n) * g.groups + group) * C * H * W;
  const int h0 = row * si + int(g.oi) + top, v0 = int(g.oj) + left, area = height * width;
  for (int i = threadIdx.x; i < C * area; i += SMALL_THREADS) {
    const int c = i / area, h = h0 + i % area / width, v = v0 + i % width;
    patch[i] = h >= 0 && h < H && v >= 0 && v < W ? src[(c * H + h) * W + v] : T(0);
  }
  __syncthreads();

  T sum[K][P] = {};
  const T* from[P];
#pragma unroll
  for (int e = 0; e < P; ++e) {  // a thread without position reads the first one's
    const int p = threadIdx.x + e * SMALL_THREADS, i = p < positions ? p / Wo : 0, j = p < positions ? p % Wo : 0;
    from[e] = patch + (i * si - top) * width + j * sj - left;
  }
  const T* tap = weights;
  for (int c = 0; c < C; ++c) {
    for (int q = 0; q < R; ++q) {
      const int at = c * area + q * dq * width;
      for (int u = 0; u < S; ++u, tap += K) {
        T x[P];
#pragma unroll
        for (int e = 0; e < P; ++e) x[e] = from[e][at + u * du];
#pragma unroll
        for (int m = 0; m < K; m += V) {
          const Pack<T, V> pack = load_pack<V>(tap + m);
#pragma unroll
          for (int i = 0; i < V; ++i)
#pragma unroll
            for (int e = 0; e < P; ++e) sum[m + i][e] += pack.v[i] * x[e];
        }
      }
    }
  }

#pragma unroll
  for (int e = 0; e < P; ++e) {
    const int p = threadIdx.x + e * SMALL_THREADS;
    if (p >= positions) continue;
    T* to = dst + n * g.yn + (row + p / Wo) * g.yi + p % Wo * g.yj + g.y0;
#pragma unroll
    for (int m = 0; m < K; ++m) {
      const int64_t channel = group * g.M + m0 + m;
      if (m0 + m < M) to[channel * g.yc] = activated(sum[m][e], bias, channel, relu);
    }
  }
}
