// The vectors that kernels are written in: GCC's vector extension (clang has it too), so that one text serves every
// instruction set. `Vec<T>` is FASTNN_VECTOR_BYTES wide; + - * / < == ?: work lane by lane; a * b + c becomes one FMA.
// Included inside no namespace by the files of csrc/cpu/ only; all names live in fastnn::<isa>.
// Next: math.h (exp, log, tanh on vectors), ../formulas.h (what is computed with them), elementwise.cpp (the loops).
#pragma once
#include <math.h>
#include <string.h>

#include "../kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef FASTNN_ISA
#define FASTNN_ISA baseline
#define FASTNN_VECTOR_BYTES 16
#endif

namespace fastnn {
namespace FASTNN_ISA {

template <class T>
struct VecType;
template <>
struct VecType<float> {
  typedef float type __attribute__((vector_size(FASTNN_VECTOR_BYTES)));
  typedef float loose __attribute__((vector_size(FASTNN_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t bits __attribute__((vector_size(FASTNN_VECTOR_BYTES)));
};
template <>
struct VecType<double> {
  typedef double type __attribute__((vector_size(FASTNN_VECTOR_BYTES)));
  typedef double loose __attribute__((vector_size(FASTNN_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t bits __attribute__((vector_size(FASTNN_VECTOR_BYTES)));
};

template <class T>
using Vec = typename VecType<T>::type;
template <class T>
using Bits = typename VecType<T>::bits;  // integers as wide as T: masks, exponents

template <class T>
constexpr int W = FASTNN_VECTOR_BYTES / int(sizeof(T));  // lanes
template <class T>
constexpr int64_t LINE = 64 / int64_t(sizeof(T));  // elements of a cache line

template <class T>
FASTNN_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecType<T>::loose*>(p);
}
template <class T>
FASTNN_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecType<T>::loose*>(p) = v;
}
template <class T>
FASTNN_INLINE Vec<T> set(T s) {
  return s - Vec<T>{};  // x - 0 is x, -0 included: folded into a broadcast, which 0 + x is not
}

// Keeps GCC from reading a vector of memory once for each of its uses, which would leave a loop bound by loads.
#if FASTNN_VECTOR_BYTES <= 32 || defined(__AVX512F__)
template <class V>
FASTNN_INLINE V keep(V v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
  return v;
}
#else
template <class V>
FASTNN_INLINE V keep(V v) {
  return v;
}
#endif

// The first n lanes, 0 <= n <= W; the others read as zero, are never touched in memory, are not written.
#if defined(__AVX512F__) && FASTNN_VECTOR_BYTES == 64
FASTNN_INLINE Vec<float> load_n(const float* p, int64_t n) {
  return (Vec<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
FASTNN_INLINE Vec<double> load_n(const double* p, int64_t n) {
  return (Vec<double>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
}
FASTNN_INLINE void store_n(float* p, Vec<float> v, int64_t n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
}
FASTNN_INLINE void store_n(double* p, Vec<double> v, int64_t n) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), (__m512d)v);
}
#elif defined(__AVX2__) && FASTNN_VECTOR_BYTES == 32
static const int32_t lane_masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
FASTNN_INLINE __m256i lane_mask(int64_t lanes32) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lane_masks + 8 - lanes32));
}
FASTNN_INLINE Vec<float> load_n(const float* p, int64_t n) { return (Vec<float>)_mm256_maskload_ps(p, lane_mask(n)); }
FASTNN_INLINE Vec<double> load_n(const double* p, int64_t n) {
  return (Vec<double>)_mm256_maskload_pd(p, lane_mask(2 * n));
}
FASTNN_INLINE void store_n(float* p, Vec<float> v, int64_t n) { _mm256_maskstore_ps(p, lane_mask(n), (__m256)v); }
FASTNN_INLINE void store_n(double* p, Vec<double> v, int64_t n) {
  _mm256_maskstore_pd(p, lane_mask(2 * n), (__m256d)v);
}
#else
template <class T>
FASTNN_INLINE Vec<T> load_n(const T* p, int64_t n) {
  Vec<T> v{};
  for (int i = 0; i < W<T>; ++i)
    if (i < n) v[i] = p[i];
  return v;
}
template <class T>
FASTNN_INLINE void store_n(T* p, Vec<T> v, int64_t n) {
  for (int i = 0; i < W<T>; ++i)
    if (i < n) p[i] = v[i];
}
#endif

// n lanes, 1 <= n <= W: whole where n is W (in each_vector's main loop the compiler knows that it is), else masked.
template <class T>
FASTNN_INLINE Vec<T> load(const T* p, int64_t n) {
  return n == W<T> ? load(p) : load_n(p, n);
}
template <class T>
FASTNN_INLINE void store(T* p, Vec<T> v, int64_t n) {
  n == W<T> ? store(p, v) : store_n(p, v, n);
}

// Calls body(i, n) for the n lanes at each i of [begin, end): W of them, fewer at the end.
template <class T, class F>
FASTNN_INLINE void each_vector(int64_t begin, int64_t end, const F& body) {
  int64_t i = begin;
  for (; i + W<T> <= end; i += W<T>) body(i, int64_t(W<T>));
  if (i < end) body(i, end - i);
}

// A store past the caches, for arrays that no cache holds: a line written whole need not be read first, which saves a
// third of a copy's traffic. p is aligned to a vector. stream_end() comes before anybody else may read.
template <class T>
FASTNN_INLINE void stream(T* p, Vec<T> v) {
#if defined(__AVX512F__) && FASTNN_VECTOR_BYTES == 64
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__) && FASTNN_VECTOR_BYTES == 32
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#elif defined(__SSE2__) && FASTNN_VECTOR_BYTES == 16
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
#else
  store(p, v);
#endif
}
FASTNN_INLINE void stream_end() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Arrays of this size and more are written past the caches, which they would only sweep out: no line of the output is
// read first, a third less traffic. Copying 8, 16, 64 MB on two cores with 32 MB of L3 then takes 0.9, 0.9, 0.7 of the
// time.
constexpr int64_t STREAM_BYTES = int64_t(16) << 20;
template <class T>
FASTNN_INLINE bool streams(const T* p, int64_t n) {  // p's vectors must be aligned
  return n * int64_t(sizeof(T)) >= STREAM_BYTES && reinterpret_cast<uintptr_t>(p) % FASTNN_VECTOR_BYTES == 0;
}

// Lanes are combined in the order of a binary tree over their indices: the upper half is added to the lower, and so on.
#if defined(__AVX2__) && FASTNN_VECTOR_BYTES >= 32
FASTNN_INLINE float sum_half_lanes(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return two[0] + two[1];
}
FASTNN_INLINE double sum_half_lanes(__m256d v) {
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return two[0] + two[1];
}
#endif
template <class T>
FASTNN_INLINE T sum_lanes(Vec<T> v) {
#if defined(__AVX2__) && FASTNN_VECTOR_BYTES == 32
  return sum_half_lanes(v);
#elif defined(__AVX2__) && FASTNN_VECTOR_BYTES == 64
  typedef T Half __attribute__((vector_size(32)));
  Half halves[2];
  memcpy(halves, &v, sizeof halves);
  return sum_half_lanes(halves[0] + halves[1]);
#else
  T lanes[W<T>];
  store(lanes, v);
  for (int half = W<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] + lanes[i + half];
  return lanes[0];
#endif
}

// p[0] + ... + p[n - 1], lane by lane in four sums; in order where there are fewer than a vector's.
template <class T>
FASTNN_INLINE Vec<T> lanes_of_run(const T* p, int64_t n) {
  Vec<T> sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * W<T> <= n; i += 4 * W<T>)
    for (int j = 0; j < 4; ++j) sum[j] += load(p + i + j * W<T>);
  each_vector<T>(i, n, [&](int64_t j, int64_t lanes) { sum[0] += load(p + j, lanes); });
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
template <class T>
FASTNN_INLINE T sum_of_run(const T* p, int64_t n) {
  if (n >= W<T>) return sum_lanes<T>(lanes_of_run(p, n));
  T sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += p[i];
  return sum;
}

// NaN wins, as NumPy's maximum and PyTorch's clamp have it: a comparison with NaN is false, so the second test keeps
// it.
template <class V>
FASTNN_INLINE V maximum(V a, V b) {
  return a > b ? a : (b == b ? (a == a ? b : a) : b);
}

FASTNN_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
FASTNN_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
FASTNN_INLINE int64_t divide_up(int64_t n, int64_t d) { return (n + d - 1) / d; }

constexpr int64_t GRAIN = 32768;  // elements a chunk: 128 KB of floats, about 10 us at the speed of memory

// Calls body(begin, end) over [0, n) in pieces of `grain`: cut by shape alone, whatever the number of threads.
template <class F>
FASTNN_INLINE void parallel_for(int64_t n, int64_t grain, const F& body) {
  struct Context {
    const F* body;
    int64_t n, grain;
  } context{&body, n, grain};
  parallel_run(
      divide_up(n, grain),
      [](void* pointer, int64_t chunk) {
        const Context& c = *static_cast<const Context*>(pointer);
        const F body = *c.body;  // a copy stays in registers: the kernel's stores might change *c.body
        const int64_t begin = chunk * c.grain;
        body(begin, least(begin + c.grain, c.n));
      },
      &context);
}

// each_vector over [0, n), in parallel.
template <class T, class F>
FASTNN_INLINE void parallel_vectors(int64_t n, const F& body) {
  parallel_for(n, GRAIN, [=](int64_t begin, int64_t end) { each_vector<T>(begin, end, body); });
}

// About GRAIN, so that 2, 4, 8, 16 threads get as many of the chunks of n each: 32 chunks, not 31. Whole cache lines.
FASTNN_INLINE int64_t even_grain(int64_t n) {
  const int64_t chunks = most(1, divide_up(n, GRAIN));
  int64_t step = 1;
  while (step < chunks && step < 16) step *= 2;
  return most(64, divide_up(n, divide_up(chunks, step) * step * 64) * 64);
}

// y[i .. i + lanes) = f(i, lanes) over [0, n), four vectors at a time: what f loads comes before what is stored. Where
// an input lies 16 to 64 bytes before y modulo 4096 (NumPy's arrays do, beside ours), a CPU takes the next load for one
// of what was just stored, and waits: a copy then takes 1.3, a sum of two 1.45 of the time; four at a time 1.05.
template <class T, class F>
FASTNN_INLINE void write_vectors(T* y, int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + 4 * W<T> <= n; i += 4 * W<T>) {
    Vec<T> v[4];
    for (int j = 0; j < 4; ++j) v[j] = f(i + j * W<T>, int64_t(W<T>));
    for (int j = 0; j < 4; ++j) store(y + i + j * W<T>, v[j]);
  }
  each_vector<T>(i, n, [&](int64_t j, int64_t lanes) { store(y + j, f(j, lanes), lanes); });
}

// The same for a piece of an array, which goes past the caches if `past`, by way of a block in L1; y is then aligned.
template <class T, class F>
FASTNN_INLINE void write_piece(T* y, int64_t n, bool past, const F& f) {
  if (!past) return write_vectors(y, n, f);
  constexpr int64_t BLOCK = 256 / int64_t(sizeof(T));
  alignas(64) T block[BLOCK];
  int64_t b = 0;
  for (; b + BLOCK <= n; b += BLOCK) {
    write_vectors(block, BLOCK, [&](int64_t i, int64_t lanes) { return f(b + i, lanes); });
    // line by line: half a line waits in a buffer, of which there are few
    for (int64_t i = 0; i < BLOCK; i += W<T>) stream(y + b + i, load(block + i));
  }
  write_vectors(y + b, n - b, [&](int64_t i, int64_t lanes) { return f(b + i, lanes); });
  stream_end();
}

// y[i .. i + lanes) = f(i, lanes) for all of y[0 .. n), in parallel; a large y past the caches.
template <class T, class F>
FASTNN_INLINE void parallel_write(T* y, int64_t n, const F& f) {
  const bool past = streams(y, n);
  parallel_for(n, even_grain(n), [=](int64_t begin, int64_t end) {
    write_piece(y + begin, end - begin, past, [&](int64_t i, int64_t lanes) { return f(begin + i, lanes); });
  });
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
