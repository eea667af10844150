// Convolution by its definition: the reference of the faster plans, and what does every geometry they do not. Also the
// depthwise layers, which are nothing but reading and writing, and the bias's gradient. Any size, any arch.
#include "conv.cuh"

// One output per thread: its products in the order (c, q, u), then bias and relu. src, w -> dst, as Gather says.
template <class T>
__global__ void conv_direct(const T* src, const T* w, const T* bias, T* dst, Gather g, int relu) {
  const int64_t channels = g.groups * g.M;
  for (int64_t at : grid_stride(g.N * channels * g.Ho * g.Wo)) {
    const int64_t j = at % g.Wo, row = at / g.Wo, i = row % g.Ho, plane = row / g.Ho;
    const int64_t channel = plane % channels, n = plane / channels, group = channel / g.M;
    const T* weights = w + g.w0 + group * g.wg + channel % g.M * g.wm;
    const T* from = src + (n * g.groups + group) * g.C * g.H * g.W;
    T sum = 0;
    for (int64_t c = 0; c < g.C; ++c) {
      for (int64_t q = 0; q < g.R; ++q) {
        const int64_t h = i * g.si + q * g.dq + g.oi;
        if (h < 0 || h >= g.H) continue;
        const T* tap = weights + c * g.wc + q * g.wq;
        const T* const line = from + (c * g.H + h) * g.W;
        int64_t v = j * g.sj + g.oj;
        for (int64_t u = 0; u < g.S; ++u, v += g.du, tap += g.wu)
          if (v >= 0 && v < g.W) sum += *tap * line[v];
      }
    }
    dst[n * g.yn + channel * g.yc + i * g.yi + j * g.yj + g.y0] = activated(sum, bias, channel, relu);
  }
}

// One channel in, a few out (M of them): block y is a channel of dst, and goes over its planes with its weights, R * S
// of them, in shared memory.
template <class T>
__global__ void conv_depthwise(const T* src, const T* w, const T* bias, T* dst, Gather g, int relu) {
  T* weights = dynamic_shared<T>();
  const int64_t channel = blockIdx.y, group = channel / g.M;
  const int R = int(g.R), S = int(g.S), H = int(g.H), W = int(g.W), P = int(g.Ho * g.Wo), Wo = int(g.Wo);
  const int si = int(g.si), sj = int(g.sj), dq = int(g.dq), du = int(g.du), oi = int(g.oi), oj = int(g.oj);
  for (int t = threadIdx.x; t < R * S; t += blockDim.x)
    weights[t] = w[g.w0 + group * g.wg + channel % g.M * g.wm + t / S * g.wq + t % S * g.wu];
  __syncthreads();
  for (int64_t at : grid_stride(g.N * P)) {
    const int n = int(at) / P, p = int(at) % P, i = p / Wo, j = p % Wo;
    const T* from = src + (n * g.groups + group) * H * W;
    T sum = 0;
    for (int q = 0; q < R; ++q) {
      const int h = i * si + q * dq + oi;
      if (h < 0 || h >= H) continue;
      for (int u = 0; u < S; ++u) {
        const int v = j * sj + u * du + oj;
        if (v >= 0 && v < W) sum += weights[q * S + u] * from[h * W + v];
      }
    }
    dst[n * g.yn + channel * g.yc + i * g.yi + j * g.yj + g.y0] = activated(sum, bias, channel, relu);
  }
}

// A part of the weights' gradient: one thread sums a weight over the rows of outputs (n, i) of one split.
// dy, x -> parts (splits, weights), the weights where dw has them.
template <class T>
__global__ void conv_direct_weight(const T* dy, const T* x, T* parts, Gather g, int64_t splits) {
  const int64_t weights = g.groups * g.M * g.C * g.R * g.S, rows = g.N * g.Ho;
  for (int64_t at : grid_stride(weights * splits)) {
    const int64_t split = at / weights, weight = at % weights;
    const int64_t u = weight % g.S, q = weight / g.S % g.R, c = weight / (g.S * g.R) % g.C;
    const int64_t channel = weight / (g.S * g.R * g.C), group = channel / g.M;
    T sum = 0;
    for (int64_t row = rows * split / splits; row < rows * (split + 1) / splits; ++row) {
      const int64_t n = row / g.Ho, i = row % g.Ho, h = i * g.si + q * g.dq + g.oi;
      if (h < 0 || h >= g.H) continue;
      const T* from = x + (((n * g.groups + group) * g.C + c) * g.H + h) * g.W;
      const T* gradient = dy + n * g.yn + channel * g.yc + i * g.yi;
      for (int64_t j = 0; j < g.Wo; ++j) {
        const int64_t v = j * g.sj + u * g.du + g.oj;
        if (v >= 0 && v < g.W) sum += gradient[j] * from[v];
      }
    }
    parts[at] = sum;
  }
}

// out[i] = parts[0, i] + parts[1, i] + ..., in this order. parts (splits, n).
template <class T>
__global__ void conv_sum_parts(const T* parts, T* out, int64_t n, int64_t splits) {
  for (int64_t i : grid_stride(n)) {
    T sum = 0;
    for (int64_t s = 0; s < splits; ++s) sum += parts[s * n + i];
    out[i] = sum;
  }
}

// Depthwise layers have few weights and many positions: block (channel, split) sums each tap of one channel of dy over
// the split's images, first each thread over its positions, then the block. dy, x -> parts (splits, channels, R * S).
template <class T>
__global__ void conv_depthwise_weight(const T* dy, const T* x, T* parts, Gather g) {
  const int64_t channel = blockIdx.x, group = channel / g.M, splits = gridDim.y;
  const int64_t begin = g.N * blockIdx.y / splits, end = g.N * (blockIdx.y + 1) / splits;
  const int H = int(g.H), W = int(g.W), Wo = int(g.Wo), P = int(g.Ho * g.Wo), taps = int(g.R * g.S);
  for (int t = 0; t < taps; ++t) {
    const int h0 = t / int(g.S) * int(g.dq) + int(g.oi), v0 = t % int(g.S) * int(g.du) + int(g.oj);
    T sum = 0;
    for (int64_t n = begin; n < end; ++n) {
      const T* from = x + (n * g.groups + group) * H * W;
      const T* gradient = dy + n * g.yn + channel * g.yc;
      for (int p = threadIdx.x; p < P; p += blockDim.x) {
        const int h = p / Wo * int(g.si) + h0, v = p % Wo * int(g.sj) + v0;
        if (h >= 0 && h < H && v >= 0 && v < W) sum += gradient[p] * from[h * W + v];
      }
    }
    sum = block_reduce(sum, Sum(), T(0));
    if (threadIdx.x == 0) parts[(blockIdx.y * g.groups * g.M + channel) * taps + t] = sum;
  }
}

// The bias's gradient: block (k, split) sums dy (N, K, P) over the split's images, four numbers at a time where maps
// begin at multiples of 16 bytes; threads walk on from image to image, so that small maps leave none idle.
// dy -> parts (splits, K).
template <class T, int V>
__global__ void conv_bias(const T* dy, T* parts, int64_t N, int64_t K, int64_t P) {
  const int64_t splits = gridDim.y, end = N * (blockIdx.y + 1) / splits, packs = P / V;
  const int64_t images = blockDim.x / packs, step = blockDim.x % packs;
  int64_t n = N * blockIdx.y / splits + threadIdx.x / packs, p = threadIdx.x % packs;
  T sums[V] = {};
  while (n < end) {
    const Pack<T, V> pack = load_pack<V>(dy + (n * K + blockIdx.x) * P + p * V);
#pragma unroll
    for (int i = 0; i < V; ++i) sums[i] += pack.v[i];
    n += images, p += step;
    if (p >= packs) p -= packs, ++n;
  }
  T sum = sums[0];
#pragma unroll
  for (int i = 1; i < V; ++i) sum += sums[i];
  sum = block_reduce(sum, Sum(), T(0));
  if (threadIdx.x == 0) parts[blockIdx.y * K + blockIdx.x] = sum;
}
