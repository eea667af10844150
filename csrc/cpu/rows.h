// Walking the middle dimension of (outer, n, inner), vector by vector, one text for both layouts:
// inner = 1: a unit is one row and its lanes run along the row; inner > 1: a unit is W neighbouring rows, one a lane.
// Used by softmax.cpp and cross_entropy.cpp. Sums run in one order, fixed by the shape.
#pragma once
#include "math.h"

namespace fastnn {
namespace FASTNN_ISA {

template <class T, bool Along>
struct Row {
  int64_t vectors, step, last;  // vectors, elements from one to the next, lanes of the last (of each, if not Along)

  FASTNN_INLINE int64_t lanes(int64_t i) const { return Along && i + 1 < vectors ? W<T> : last; }
  FASTNN_INLINE Vec<T> get(const T* p, int64_t i) const { return load(p + i * step, lanes(i)); }
  FASTNN_INLINE void put(T* p, int64_t i, Vec<T> v) const { store(p + i * step, v, lanes(i)); }
  // What is common to all rows (class weights): one number per element of the row.
  FASTNN_INLINE Vec<T> common(const T* p, int64_t i) const { return Along ? get(p, i) : set(p[i]); }
  // One number for each row of the unit, in the lanes where that row is.
  FASTNN_INLINE Vec<T> per_row(const T* p) const { return Along ? set(p[0]) : load(p); }
  // v, with `other` in the lanes that lie beyond the row's end.
  FASTNN_INLINE Vec<T> within(Vec<T> v, int64_t i, T other) const {
    if (!Along || lanes(i) == W<T>) return v;
    Bits<T> lane{};
    for (int j = 0; j < W<T>; ++j) lane[j] = j;  // a constant, to the compiler
    return lane < static_cast<decltype(lane[0] + 0)>(last) ? v : set(other);
  }
  // The largest element, in every lane. A NaN is passed over: it shows in the sum of exp(x - top).
  FASTNN_INLINE Vec<T> top(const T* p) const {
    Vec<T> m = set(static_cast<T>(-HUGE_VAL));
    for (int64_t i = 0; i < vectors; ++i) {
      const Vec<T> v = within(get(p, i), i, static_cast<T>(-HUGE_VAL));
      m = v > m ? v : m;
    }
    if (!Along) return m;
    T lanes[W<T>];
    store(lanes, m);
    for (int half = W<T> / 2; half > 0; half /= 2)
      for (int j = 0; j < half; ++j) lanes[j] = lanes[j] > lanes[j + half] ? lanes[j] : lanes[j + half];
    return set(lanes[0]);
  }
  // The sum of f(i) over the row, in every lane: four sums, of every fourth vector each.
  template <class F>
  FASTNN_INLINE Vec<T> sum(const F& f) const {
    Vec<T> s[4] = {};
    int64_t i = 0;
    for (; i + 4 < vectors; i += 4)
      for (int j = 0; j < 4; ++j) s[j] = s[j] + f(i + j);
    for (; i < vectors; ++i) s[0] = s[0] + within(f(i), i, T(0));
    s[0] = (s[0] + s[1]) + (s[2] + s[3]);
    return Along ? set(sum_lanes<T>(s[0])) : s[0];
  }
  // y = f(i) over the row, four vectors at a time, as write_vectors.
  template <class F>
  FASTNN_INLINE void write(T* y, const F& f) const {
    int64_t i = 0;
    for (; i + 4 < vectors; i += 4) {
      Vec<T> v[4];
      for (int j = 0; j < 4; ++j) v[j] = f(i + j);
      for (int j = 0; j < 4; ++j) put(y, i + j, v[j]);
    }
    for (; i < vectors; ++i) put(y, i, f(i));
  }
};

// Calls body(row, offset, first, rows) for each unit: `offset` is where its first row begins in (outer, n, inner),
// `first` that row's number in (outer, inner), `rows` how many it holds.
template <class T, class F>
FASTNN_INLINE void each_unit(int64_t outer, int64_t n, int64_t inner, const F& body) {
  const int64_t budget = 16384;  // elements a chunk
  if (inner == 1) {
    const Row<T, true> row{divide_up(n, W<T>), W<T>, n > 0 ? (n - 1) % W<T> + 1 : 0};
    parallel_for(outer, n < budget ? budget / (n + 1) + 1 : 1, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) body(row, o * n, o, int64_t(1));
    });
  } else if (inner > 0) {
    const int64_t blocks = divide_up(inner, W<T>);
    parallel_for(outer * blocks, n < budget ? budget / (n * W<T> + 1) + 1 : 1, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) {
        const int64_t o = u / blocks, at = u % blocks * W<T>, rows = least(inner - at, W<T>);
        body(Row<T, false>{n, inner, rows}, o * n * inner + at, o * inner + at, rows);
      }
    });
  }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
