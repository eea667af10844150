// A square of W x W elements transposed in registers: how panels are packed without strided scalar loads.
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

template <class T>
constexpr int Q = 16 / int(sizeof(T));  // elements in 16 bytes: shuffles within them are the cheap ones

// Exchanges the S lanes that bit S of the lane number tells apart: a's upper ones for b's lower ones.
template <class T, int S, int... L>
FASTNN_INLINE void exchange(Vec<T>& a, Vec<T>& b, Indices<L...>) {
  const Vec<T> low = FASTNN_SHUFFLE(T, a, b, (L & S ? W<T> + L - S : L)...);
  b = FASTNN_SHUFFLE(T, a, b, (L & S ? W<T> + L : L + S)...);
  a = low;
}
// The same for an S that is a constant only once loops are unrolled.
template <class T>
FASTNN_INLINE void exchange_lanes(Vec<T>& a, Vec<T>& b, int S) {
  using Lanes = typename Count<W<T>>::type;
  if (S == 1) exchange<T, 1>(a, b, Lanes{});
  if (S == 2) exchange<T, 2>(a, b, Lanes{});
  if constexpr (W<T> > 4)
    if (S == 4) exchange<T, 4>(a, b, Lanes{});
  if constexpr (W<T> > 8)
    if (S == 8) exchange<T, 8>(a, b, Lanes{});
}
template <class T, int S>
FASTNN_INLINE void exchange_all(Vec<T> (&v)[W<T>]) {
  if constexpr (S >= Q<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < W<T>; ++i)
      if ((i & S) == 0) exchange<T, S>(v[i], v[i + S], typename Count<W<T>>::type{});
    exchange_all<T, S / 2>(v);
  }
}

// a0 b0 a1 b1 from the lower (HIGH = 0) or the upper half of every 16 bytes.
template <class T, int HIGH, int... L>
FASTNN_INLINE Vec<T> zip(Vec<T> a, Vec<T> b, Indices<L...>) {
  return FASTNN_SHUFFLE(T, a, b, (L / Q<T> * Q<T> + L % Q<T> / 2 + HIGH * Q<T> / 2 + L % 2 * W<T>)...);
}

// The squares of Q x Q in the 16 bytes at the same place of v[0 .. Q), each by itself.
template <class T>
FASTNN_INLINE void transpose_quads(Vec<T>* v) {
  using Lanes = typename Count<W<T>>::type;
#pragma GCC unroll 2
  for (int step = 1; step < Q<T>; step *= 2) {
    Vec<T> t[Q<T>];
#pragma GCC unroll 2
    for (int i = 0; i < Q<T> / 2; ++i) {
      t[2 * i] = zip<T, 0>(v[i], v[i + Q<T> / 2], Lanes{});
      t[2 * i + 1] = zip<T, 1>(v[i], v[i + Q<T> / 2], Lanes{});
    }
#pragma GCC unroll 4
    for (int i = 0; i < Q<T>; ++i) v[i] = t[i];
  }
}

// v[i][j] becomes v[j][i].
template <class T>
FASTNN_INLINE void transpose(Vec<T> (&v)[W<T>]) {
  exchange_all<T, W<T> / 2>(v);
#pragma GCC unroll 8
  for (int i = 0; i < W<T>; i += Q<T>) transpose_quads<T>(v + i);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
