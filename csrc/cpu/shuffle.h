// Lanes that change place or width: every second element of a row, two interleaved rows, integers kept as bytes.
// For kernels that halve or double a row (pooling, a reduction, a convolution). Nothing outside the elements named is
// touched.
#pragma once
#include "simd.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

#if defined(__clang__)
#define FASTNN_SHUFFLE(T, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FASTNN_SHUFFLE(T, a, b, ...) __builtin_shuffle(a, b, Bits<T>{__VA_ARGS__})
#endif

// b starts one element early, so that the last element read is the last one wanted: a[0], a[2], ..., b[1], b[3], ...
template <class T, int... I>
FASTNN_INLINE Vec<T> join_every_second(Vec<T> a, Vec<T> b, Indices<I...>) {
  return FASTNN_SHUFFLE(T, a, b, (2 * I < W<T> ? 2 * I : 2 * I + 1)...);
}
template <int FIRST, class T, int... I>
FASTNN_INLINE Vec<T> every_second(Vec<T> a, Vec<T> b, Indices<I...>) {
  return FASTNN_SHUFFLE(T, a, b, (2 * I + FIRST)...);
}
template <class T, int... I>
FASTNN_INLINE Vec<T> zip_low(Vec<T> a, Vec<T> b, Indices<I...>) {
  return FASTNN_SHUFFLE(T, a, b, (I / 2 + I % 2 * W<T>)...);
}
template <class T, int... I>
FASTNN_INLINE Vec<T> zip_high(Vec<T> a, Vec<T> b, Indices<I...>) {
  return FASTNN_SHUFFLE(T, a, b, (W<T> / 2 + I / 2 + I % 2 * W<T>)...);
}
// a[1], a[2], ..., b[0].
template <class T, int... I>
FASTNN_INLINE Vec<T> next_lanes(Vec<T> a, Vec<T> b, Indices<I...>) {
  return FASTNN_SHUFFLE(T, a, b, (I + 1)...);
}
// Lanes i and i ^ STEP change places.
template <int STEP, class T, int... I>
FASTNN_INLINE Vec<T> exchange(Vec<T> v, Indices<I...>) {
  return FASTNN_SHUFFLE(T, v, v, (I ^ STEP)...);
}
// The lanes of a (from 0) and b (from W) that `index` names, which is known at run time only.
template <class T>
FASTNN_INLINE Vec<T> pick(Vec<T> a, Vec<T> b, Bits<T> index) {
#if defined(__clang__)
  T lanes[2 * W<T>];
  store(lanes, a), store(lanes + W<T>, b);
  for (int i = 0; i < W<T>; ++i) a[i] = lanes[index[i]];
  return a;
#else
  return __builtin_shuffle(a, b, index);
#endif
}
#undef FASTNN_SHUFFLE

template <class T>
using Lanes = typename Count<W<T>>::type;

template <int STEP, class T>
FASTNN_INLINE Vec<T> exchange(Vec<T> v) {
  return exchange<STEP, T>(v, Lanes<T>{});
}

// p[0], p[2], ..., p[2W - 2]; the second form reads only the first n of them, 1 <= n <= W.
template <class T>
FASTNN_INLINE Vec<T> load_every_second(const T* p) {
  return join_every_second<T>(load(p), load(p + W<T> - 1), Lanes<T>{});
}
template <class T>
FASTNN_INLINE Vec<T> load_every_second_n(const T* p, int64_t n) {
  const int64_t count = 2 * n - 1;
  if (count <= W<T>) return join_every_second<T>(load_n(p, count), Vec<T>{}, Lanes<T>{});
  return join_every_second<T>(load(p), load_n(p + W<T> - 1, count - W<T> + 1), Lanes<T>{});
}

// p[0], p[2], ... and p[1], p[3], ...: the first n pairs, 1 <= n <= W.
template <class T>
struct Pairs {
  Vec<T> even, odd;
};
template <class T>
FASTNN_INLINE Pairs<T> load_pairs(const T* p, int64_t n) {
  const Vec<T> a = load(p, n == W<T> ? n : least(2 * n, W<T>));
  const Vec<T> b = n == W<T> ? load(p + W<T>) : 2 * n > W<T> ? load_n(p + W<T>, 2 * n - W<T>) : Vec<T>{};
  return {every_second<0, T>(a, b, Lanes<T>{}), every_second<1, T>(a, b, Lanes<T>{})};
}

// p = a[0], b[0], a[1], b[1], ...
template <class T>
FASTNN_INLINE void store_zipped(T* p, Vec<T> a, Vec<T> b) {
  store(p, zip_low<T>(a, b, Lanes<T>{}));
  store(p + W<T>, zip_high<T>(a, b, Lanes<T>{}));
}
template <class T>
FASTNN_INLINE void store_zipped_n(T* p, Vec<T> a, Vec<T> b, int64_t n) {
  if (2 * n <= W<T>) return store_n(p, zip_low<T>(a, b, Lanes<T>{}), 2 * n);
  store(p, zip_low<T>(a, b, Lanes<T>{}));
  store_n(p + W<T>, zip_high<T>(a, b, Lanes<T>{}), 2 * n - W<T>);
}

// Integer lanes from and to bytes, the first n of them. Where the compiler would go lane by lane, by intrinsics.
template <class T>
struct ByteType;
template <>
struct ByteType<float> {
  typedef uint8_t type __attribute__((vector_size(FASTNN_VECTOR_BYTES / 4)));
};
template <>
struct ByteType<double> {
  typedef uint8_t type __attribute__((vector_size(FASTNN_VECTOR_BYTES / 8)));
};
template <class T>
FASTNN_INLINE Bits<T> widen(typename ByteType<T>::type bytes) {
  return __builtin_convertvector(bytes, Bits<T>);
}
template <class T>
FASTNN_INLINE typename ByteType<T>::type narrow(Bits<T> v) {
  return __builtin_convertvector(v, typename ByteType<T>::type);
}
#if defined(__AVX512F__) && FASTNN_VECTOR_BYTES == 64
template <>
FASTNN_INLINE Bits<float> widen<float>(ByteType<float>::type bytes) {
  return (Bits<float>)_mm512_maskz_cvtepu8_epi32(0xffff, (__m128i)bytes);  // the plain one makes GCC 12 warn
}
#elif defined(__AVX2__) && FASTNN_VECTOR_BYTES == 32
template <>
FASTNN_INLINE Bits<float> widen<float>(ByteType<float>::type bytes) {
  return (Bits<float>)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes));
}
template <>
FASTNN_INLINE ByteType<float>::type narrow<float>(Bits<float> v) {
  const __m256i lows = _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi32(0x0c080400));
  const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(lows), _mm256_extracti128_si256(lows, 1));
  return (ByteType<float>::type)_mm_cvtsi128_si64(both);
}
#endif
template <class T>
FASTNN_INLINE Bits<T> load_bytes(const uint8_t* p, int64_t n) {
  typename ByteType<T>::type bytes{};
  if (n == W<T>)
    memcpy(&bytes, p, W<T>);
  else
    memcpy(&bytes, p, size_t(n));
  return widen<T>(bytes);
}
template <class T>
FASTNN_INLINE void store_bytes(uint8_t* p, Bits<T> v, int64_t n) {
  const typename ByteType<T>::type bytes = narrow<T>(v);
  if (n == W<T>)
    memcpy(p, &bytes, W<T>);
  else
    memcpy(p, &bytes, size_t(n));
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
