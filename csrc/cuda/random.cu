// Random numbers as a pure function of (seed, stream, index): Philox4x32-10, as csrc/cpu/random.cpp has it, and the
// same numbers (normal ones within rounding). Word i of a stream is word i % 4 of block i / 4. Nothing is stored:
// dropout's gradient makes its mask again from (seed, stream).
#include "common.cuh"
#include "formulas.h"

struct Words {
  uint32_t w[4];
  FASTNN_INLINE uint32_t word(int i) const { return i < 2 ? (i ? w[1] : w[0]) : i == 2 ? w[2] : w[3]; }  // in registers
};

FASTNN_INLINE Words philox(int64_t seed, int64_t stream, int64_t index) {
  uint32_t a = uint32_t(index), b = uint32_t(uint64_t(index) >> 32);
  uint32_t c = uint32_t(stream), d = uint32_t(uint64_t(stream) >> 32);
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(uint64_t(seed) >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t p = uint64_t(a) * 0xD2511F53u, q = uint64_t(c) * 0xCD9E8D57u;
    a = uint32_t(q >> 32) ^ b ^ key0;
    b = uint32_t(q);
    c = uint32_t(p >> 32) ^ d ^ key1;
    d = uint32_t(p);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{a, b, c, d}};
}

FASTNN_INLINE double unit53(uint32_t high, uint32_t low) {  // [0, 1) from two words
  return double((uint64_t(high) << 32 | low) >> 11) * 0x1p-53;
}

// y[first .. first + N) = v, as far as y goes.
template <int N, class T>
FASTNN_INLINE void put(T* y, int64_t n, int64_t first, const T (&v)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j)
    if (first + j < n) y[first + j] = v[j];
}

__global__ void random_bits(int32_t* bits, int64_t n, int64_t seed, int64_t stream) {
  for (int64_t block : grid_stride(divide_up(n, 4))) {
    const Words words = philox(seed, stream, block);
    const int32_t v[4] = {int32_t(words.w[0]), int32_t(words.w[1]), int32_t(words.w[2]), int32_t(words.w[3])};
    put(bits, n, 4 * block, v);
  }
}

// low + u width, u in [0, 1) of 24 bits (float: word i) or 53 bits (double: words 2 i and 2 i + 1); what rounds up to
// high becomes low.
template <class T>
__global__ void uniform(T* y, int64_t n, double low, double width, T high, int64_t seed, int64_t stream) {
  constexpr int EACH = sizeof(T) / 4, N = 4 / EACH;
  for (int64_t block : grid_stride(divide_up(n, N))) {
    const Words words = philox(seed, stream, block);
    T v[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const double u =
          EACH == 1 ? double(words.w[j] >> 8) * 0x1p-24 : unit53(words.w[2 * j % 4], words.w[(2 * j + 1) % 4]);
      const T number = T(fma(u, width, low));
      v[j] = number < high ? number : T(low);
    }
    put(y, n, N * block, v);
  }
}

// sqrt(-2 log u), u = (word + 1) 2^-32 in (0, 1]: close to 1 by the logarithm of 1 - u, which float holds well enough.
FASTNN_INLINE float radius(uint32_t word) {
  const float rest = float(~word) * 0x1p-32f, u = float(word) * 0x1p-32f + 0x1p-32f;
  return sqrt((rest < 0.29f ? log1p(-rest) : log(u)) * -2.0f);
}
// cos and sin of 2 pi word / 2^32: the nearest quarter turn as an integer, a series for the rest.
FASTNN_INLINE void direction(uint32_t word, float& x, float& y) {
  const uint32_t quarter = ((word >> 29) + 1) >> 1;
  const float a = float(int32_t(word << 2) >> 2) * 1.46291807926715968e-9f;  // 2 pi / 2^32
  const float s = sin_of_eighth(a), c = cos_of_eighth(a);
  x = quarter & 1 ? s : c;
  y = quarter & 1 ? c : s;
  if ((quarter + 1) & 2) x = -x;
  if (quarter & 2) y = -y;
}
FASTNN_INLINE void normal_pair(const uint32_t* w, float mean, float std, float& x, float& y) {
  const float r = radius(w[0]) * std;
  direction(w[1], x, y);
  x = r * x + mean;
  y = r * y + mean;
}
FASTNN_INLINE void normal_pair(const uint32_t* w, double mean, double std, double& x, double& y) {
  const double t = 6.283185307179586476925 * unit53(w[2], w[3]), r = sqrt(-2 * log(1.0 - unit53(w[0], w[1]))) * std;
  x = mean + r * cos(t);
  y = mean + r * sin(t);
}

// Box and Muller's pairs r cos t, r sin t, r = sqrt(-2 log u), u in (0, 1]. A pair takes two words (float) or four
// (double).
template <class T>
__global__ void normal(T* y, int64_t n, T mean, T std, int64_t seed, int64_t stream) {
  constexpr int N = 16 / sizeof(T);
  for (int64_t block : grid_stride(divide_up(n, N))) {
    const Words words = philox(seed, stream, block);
    T v[N];
#pragma unroll
    for (int j = 0; j < N; j += 2) normal_pair(words.w + j, mean, std, v[j], v[j + 1]);
    put(y, n, N * block, v);
  }
}

// y = x scale where the word is below the threshold, else 0; scale = 1 / (1 - p), threshold = (1 - p) 2^32, which keeps
// all. A thread makes four words, and reads and writes four elements at once where both arrays allow it.
template <class T>
__global__ void dropout(const T* x, T* y, int64_t n, T scale, int64_t threshold, int64_t seed, int64_t stream) {
  constexpr int N = 16 / sizeof(T);
  const bool aligned = (reinterpret_cast<uint64_t>(x) | reinterpret_cast<uint64_t>(y)) % 16 == 0;
  for (int64_t block : grid_stride(divide_up(n, 4))) {
    const Words words = philox(seed, stream, block);
    const int64_t first = 4 * block;
    if (aligned && first + 4 <= n) {
#pragma unroll
      for (int k = 0; k < 4; k += N) {
        Pack<T, N> pack = load_pack<N>(x + first + k);
#pragma unroll
        for (int j = 0; j < N; ++j) pack.v[j] = int64_t(words.w[k + j]) < threshold ? pack.v[j] * scale : T(0);
        store_pack<N>(y + first + k, pack);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (first + j < n) y[first + j] = int64_t(words.w[j]) < threshold ? x[first + j] * scale : T(0);
    }
  }
}

// The same, `group` neighbours sharing a word (a whole map of dropout2d). A thread takes eight elements in a row, most
// of them of one group.
template <class T>
__global__ void dropout_groups(const T* x, T* y, int64_t n, int64_t group, T scale, int64_t threshold, int64_t seed,
                               int64_t stream) {
  for (int64_t run : grid_stride(divide_up(n, 8))) {
    int64_t g = run * 8 / group, end = 0;
    bool keep = false;
    for (int64_t i = run * 8; i < run * 8 + 8 && i < n; ++i) {
      if (i >= end) {
        if (end > 0) ++g;
        end = (g + 1) * group;
        keep = int64_t(philox(seed, stream, g / 4).word(int(g % 4))) < threshold;
      }
      y[i] = keep ? x[i] * scale : T(0);
    }
  }
}
