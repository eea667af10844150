// Pooling by 2x2 windows side by side, the common case: two rows are read as pairs, and written as pairs, W windows at
// a time. Of rows of at most W / 2 windows two go into a vector, of rows of at most W / 2 elements four.
#pragma once
#include "pool.h"

namespace fastnn {
namespace FASTNN_ISA {

FASTNN_INLINE bool is_2x2(const WindowAxis& a) {
  return a.kernel == 2 && a.stride == 2 && a.padding == 0 && a.dilation == 1 && a.out == a.in / 2;
}
FASTNN_INLINE bool is_2x2(const WindowAxis& rows, const WindowAxis& columns) { return is_2x2(rows) && is_2x2(columns); }
template <class T>
FASTNN_INLINE bool is_short(const WindowAxis& columns) {
  return 2 * columns.out <= W<T>;
}

// Which lanes make what of short rows: `out` windows of `in` elements in each.
template <class T>
struct ShortRows {
  typedef decltype(Bits<T>{}[0] + 0) I;
  int64_t in, out;
  bool four;
  FASTNN_INLINE explicit ShortRows(const WindowAxis& columns)
      : in(columns.in), out(columns.out), four(2 * columns.in <= W<T>) {}
  FASTNN_INLINE int64_t together() const { return four ? 4 : 2; }
  // lane -> f(lane), 0 for lanes from `count` on.
  template <class F>
  static FASTNN_INLINE Bits<T> lanes(int64_t count, const F& f) {
    Bits<T> index{};
    for (int64_t i = 0; i < count; ++i) index[i] = I(f(i));
    return index;
  }
  // Element `odd` of the windows of a, then of b: of one row each, or (four) of the upper, then of the lower row of
  // both.
  FASTNN_INLINE Bits<T> split(int64_t odd) const {
    return lanes((four ? 4 : 2) * out, [&](int64_t i) {
      const int64_t lower = i / (2 * out), source = i / out % 2;
      return source * W<T> + lower * in + 2 * (i % out) + odd;
    });
  }
  // Four: the upper (`lower` 0) or lower half of a, then that of b.
  FASTNN_INLINE Bits<T> half(int64_t lower) const {
    return lanes(four ? 4 * out : 0, [&](int64_t i) { return i / (2 * out) * W<T> + lower * 2 * out + i % (2 * out); });
  }
  // a[first], b[first], a[first + 1], ...
  FASTNN_INLINE Bits<T> zipped(int64_t first) const {
    return lanes((four ? 4 : 2) * out, [&](int64_t i) { return i % 2 * W<T> + first + i / 2; });
  }
};

// Rows [begin, end) of windows, two or four short ones at a time. As each_pairs.
template <class T, bool FOUR, class F>
FASTNN_INLINE void short_pairs(const WindowAxis& rows, const WindowAxis& columns, const T* x, int64_t size,
                               int64_t begin, int64_t end, const F& body) {
  constexpr int TOGETHER = FOUR ? 4 : 2;
  const ShortRows<T> s(columns);
  const Bits<T> even = s.split(0), odd = s.split(1), upper = s.half(0), lower = s.half(1);
  const int64_t width = s.in, outputs = s.out, skipped = rows.in % 2 * width;
  const auto row = [=](int64_t at) __attribute__((always_inline)) {
    return size - at >= W<T> ? load(x + at) : load_n(x + at, size - at);
  };
  int64_t oh = begin % rows.out, at = (begin / rows.out * rows.in + 2 * oh) * width;
  for (int64_t r = begin; r < end; r += TOGETHER) {
    Vec<T> top[TOGETHER], bottom[TOGETHER];
#pragma GCC unroll 4
    for (int i = 0; i < TOGETHER; ++i) {
      top[i] = row(at);  // four: the bottom row too
      if (!FOUR) bottom[i] = row(at + width);
      if (r + i + 1 >= end) continue;  // the last one stands for those that are missing
      at += 2 * width;
      if (++oh == rows.out) oh = 0, at += skipped;
    }
    Pairs<T> t, b;
    if constexpr (FOUR) {
      const Vec<T> even01 = pick<T>(top[0], top[1], even), even23 = pick<T>(top[2], top[3], even);
      const Vec<T> odd01 = pick<T>(top[0], top[1], odd), odd23 = pick<T>(top[2], top[3], odd);
      t = {pick<T>(even01, even23, upper), pick<T>(odd01, odd23, upper)};
      b = {pick<T>(even01, even23, lower), pick<T>(odd01, odd23, lower)};
    } else {
      t = {pick<T>(top[0], top[1], even), pick<T>(top[0], top[1], odd)};
      b = {pick<T>(bottom[0], bottom[1], even), pick<T>(bottom[0], bottom[1], odd)};
    }
    const int64_t n = least(TOGETHER, end - r) * outputs;
    body(r * outputs, (end - r) * outputs >= W<T> ? W<T> : n, t, b);
  }
}

// Calls body(o, n, top, bottom) for the n windows from output o on, with the pairs of elements of their two rows: all
// windows of rows [begin, end) of windows. Those behind them within the rows may come along: they will come again.
template <class T, class F>
FASTNN_INLINE void each_pairs(const WindowAxis& rows, const WindowAxis& columns, const T* x, int64_t size,
                              int64_t begin, int64_t end, const F& body) {
  const int64_t width = columns.in, outputs = columns.out;
  if (is_short<T>(columns))
    return 2 * width <= W<T> ? short_pairs<T, true>(rows, columns, x, size, begin, end, body)
                             : short_pairs<T, false>(rows, columns, x, size, begin, end, body);
  int64_t oh = begin % rows.out, at = (begin / rows.out * rows.in + 2 * oh) * width;
  for (int64_t r = begin; r < end; ++r) {
    const T* const top = x + at;
    // A row of less than a vector is read and written as one where what follows it is the chunk's own.
    const bool spill = size - at - width >= 2 * W<T> && (end - r) * outputs >= W<T>;
    column_vectors<T>(0, outputs, spill, [&](int64_t ow, int64_t n) __attribute__((always_inline)) {
      body(r * outputs + ow, n, load_pairs(top + 2 * ow, n), load_pairs(top + width + 2 * ow, n));
    });
    at += 2 * width;
    if (++oh == rows.out) oh = 0, at += rows.in % 2 * width;
  }
}
// Calls body(begin, end) for chunks of all rows of windows.
template <class F>
FASTNN_INLINE void each_rows_of_pairs(const WindowAxis& rows, const WindowAxis& columns, int64_t planes,
                                      const F& body) {
  parallel_for(planes * rows.out, most(1, GRAIN / (4 * columns.out)), body);
}

// dx = the n pairs of rows of windows [begin, end), two or four short ones at a time; without odd rows or columns.
template <class T, bool FOUR, class F>
FASTNN_INLINE void short_pairs_backward(const WindowAxis& columns, int64_t all, int64_t begin, int64_t end, T* dx,
                                        const F& pairs_of) {
  const ShortRows<T> s(columns);
  const int64_t outputs = s.out, width = s.in;
  const Bits<T> upper = s.half(0), lower = s.half(1), first = s.zipped(0), second = s.zipped((FOUR ? 2 : 1) * outputs);
  T *row = dx + begin * 2 * width, *const stop = dx + end * 2 * width;
  const auto write = [&](Vec<T> v, int64_t n) __attribute__((always_inline)) {
    if (row < stop) store(row, v, stop - row >= W<T> ? W<T> : n);
    row += n;
  };
  for (int64_t r = begin; r < end; r += FOUR ? 4 : 2) {
    const int64_t o = r * outputs, n = all - o >= W<T> ? W<T> : least(FOUR ? 4 : 2, end - r) * outputs;
    const Pairs<T> t = pairs_of(o, n, 0), b = pairs_of(o, n, 1);
    const Vec<T> t0 = pick<T>(t.even, t.odd, first), t1 = pick<T>(t.even, t.odd, second);
    const Vec<T> b0 = pick<T>(b.even, b.odd, first), b1 = pick<T>(b.even, b.odd, second);
    if constexpr (FOUR) {
      write(pick<T>(t0, b0, upper), 2 * width), write(pick<T>(t0, b0, lower), 2 * width);
      write(pick<T>(t1, b1, upper), 2 * width), write(pick<T>(t1, b1, lower), 2 * width);
    } else {
      write(t0, width), write(b0, width), write(t1, width), write(b1, width);
    }
  }
}

template <class T>
FASTNN_INLINE bool by_pairs_backward(const WindowAxis& rows, const WindowAxis& columns) {
  return is_2x2(rows, columns) && (!is_short<T>(columns) || (rows.in % 2 == 0 && columns.in % 2 == 0));
}
// dx, which is written once: for the n windows from output o on, body(o, n, row) gives the pairs of row 0 or 1.
template <class T, class F>
FASTNN_INLINE void each_pairs_backward(const WindowAxis& rows, const WindowAxis& columns, const Array& dy,
                                       const Array& dx, const F& body) {
  const int64_t width = columns.in, height = rows.out, across = columns.out, size = rows.in * width;
  const int64_t outputs = height * across, all = dy.size;
  T* const first = out<T>(dx);
  parallel_for(planes_of(dx), most(1, GRAIN / (size + outputs)), [=](int64_t begin, int64_t end) {
    const F pairs_of = body;  // as the numbers above a copy: what is behind a reference is read again after each store
    if (is_short<T>(columns))
      return 2 * width <= W<T>
                 ? short_pairs_backward<T, true>(columns, all, begin * height, end * height, first, pairs_of)
                 : short_pairs_backward<T, false>(columns, all, begin * height, end * height, first, pairs_of);
    for (int64_t p = begin; p < end; ++p) {
      T* const plane = first + p * size;
      int64_t o = p * outputs;
      for (int64_t oh = 0; oh < height; ++oh, o += across) {
        T* const top = plane + 2 * oh * width;
        const bool spill = all - o >= W<T> && (end - p) * size - (2 * oh + 1) * width >= 2 * W<T>;
        const auto half = [&](T* row, int which) __attribute__((always_inline)) {
          column_vectors<T>(0, across, spill, [&](int64_t ow, int64_t n) __attribute__((always_inline)) {
            const Pairs<T> pairs = pairs_of(o + ow, n, which);
            if (n == W<T>)
              store_zipped(row + 2 * ow, pairs.even, pairs.odd);
            else
              store_zipped_n(row + 2 * ow, pairs.even, pairs.odd, n);
          });
          for (int64_t w = 2 * across; w < width; ++w) row[w] = T(0);
        };
        half(top, 0);
        half(top + width, 1);
      }
      for (int64_t i = 2 * height * width; i < size; ++i) plane[i] = T(0);
    }
  });
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
