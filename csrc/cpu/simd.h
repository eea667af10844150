// The vectors that kernels are written in: GCC's vector extension (clang has it too), so that one text serves every
// instruction set. `Vec<T>` is FASTNN_VECTOR_BYTES wide; + - * / < == ?: work lane by lane; a * b + c becomes one FMA.
// Included inside no namespace by the files of csrc/cpu/ only; all names live in fastnn::<isa>.
// Next: math.h (exp, log, tanh on vectors), ../formulas.h (what is computed with them), elementwise.cpp (the loops).
#pragma once
#include <math.h>
#include <string.h>

#include "../kernels.h"

#if defined(__AVX2__)
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

// Lanes are combined in the order of a binary tree over their indices.
template <class T>
FASTNN_INLINE T sum_lanes(Vec<T> v) {
  T lanes[W<T>];
  store(lanes, v);
  for (int half = W<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] + lanes[i + half];
  return lanes[0];
}

// NaN wins, as NumPy's maximum and PyTorch's clamp have it: a comparison with NaN is false, so the second test keeps
// it.
template <class V>
FASTNN_INLINE V maximum(V a, V b) {
  return a > b ? a : (b == b ? (a == a ? b : a) : b);
}
template <class V>
FASTNN_INLINE V minimum(V a, V b) {
  return a < b ? a : (b == b ? (a == a ? b : a) : b);
}

// Calls body(begin, end) over [0, n) in pieces of `grain`: cut by shape alone, whatever the number of threads.
template <class F>
FASTNN_INLINE void parallel_for(int64_t n, int64_t grain, const F& body) {
  struct Context {
    const F* body;
    int64_t n, grain;
  } context{&body, n, grain};
  parallel_run((n + grain - 1) / grain,
               [](void* pointer, int64_t chunk) {
                 const Context& c = *static_cast<const Context*>(pointer);
                 const int64_t begin = chunk * c.grain;
                 (*c.body)(begin, begin + c.grain < c.n ? begin + c.grain : c.n);
               },
               &context);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
