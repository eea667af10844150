// Pooling by 2x2 windows side by side, the common case, in rows of half a vector and more: two rows are read as pairs,
// and written as pairs, W windows at a time. Shorter rows go by pool_lanes.h.
#pragma once
#include "pool.h"

namespace fastnn {
namespace FASTNN_ISA {

FASTNN_INLINE bool is_2x2(const WindowAxis& a) {
  return a.kernel == 2 && a.stride == 2 && a.padding == 0 && a.dilation == 1 && a.out == a.in / 2;
}
FASTNN_INLINE bool is_2x2(const WindowAxis& rows, const WindowAxis& columns) { return is_2x2(rows) && is_2x2(columns); }
template <class T>
FASTNN_INLINE bool by_pairs(const WindowAxis& rows, const WindowAxis& columns) {
  return is_2x2(rows, columns) && 2 * columns.out >= W<T>;
}

// Calls body(o, n, top, bottom) for the n windows from output o on, with the pairs of elements of their two rows.
template <class T, class F>
FASTNN_INLINE void each_pairs(const WindowAxis& rows, const WindowAxis& columns, const Array& x, const F& body) {
  const int64_t width = columns.in, outputs = columns.out;
  parallel_for(planes_of(x) * rows.out, most(1, GRAIN / (4 * outputs)), [&](int64_t begin, int64_t end) {
    int64_t oh = begin % rows.out, at = (begin / rows.out * rows.in + 2 * oh) * width;
    for (int64_t r = begin; r < end; ++r) {
      const T* const top = in<T>(x) + at;
      // A row of less than a vector is read and written as one where what follows it is the chunk's own.
      const bool spill = x.size - at - width >= 2 * W<T> && (end - r) * outputs >= W<T>;
      column_vectors<T>(0, outputs, spill, [&](int64_t ow, int64_t n) __attribute__((always_inline)) {
        body(r * outputs + ow, n, load_pairs(top + 2 * ow, n), load_pairs(top + width + 2 * ow, n));
      });
      at += 2 * width;
      if (++oh == rows.out) oh = 0, at += rows.in % 2 * width;
    }
  });
}

// dx, which is written once: for the n windows from output o on, body(o, n, row) gives the pairs of row 0 or 1. In full
// rows of one vector, two rows of windows are one vector of outputs.
template <class T, class F>
FASTNN_INLINE void each_pairs_backward(const WindowAxis& rows, const WindowAxis& columns, const Array& dy,
                                       const Array& dx, const F& body) {
  const int64_t width = columns.in, height = rows.out, across = columns.out, size = rows.in * width;
  const bool two_rows = width == W<T> && across == W<T> / 2;
  const int64_t outputs = height * across, all = dy.size;
  T* const first = out<T>(dx);
  parallel_for(planes_of(dx), most(1, GRAIN / (size + outputs)), [=](int64_t begin, int64_t end) {
    const F pairs_of = body;  // as the numbers above a copy: what is behind a reference is read again after each store
    for (int64_t p = begin; p < end; ++p) {
      T* const plane = first + p * size;
      int64_t oh = 0, o = p * outputs;
      for (; two_rows && oh + 2 <= height; oh += 2, o += W<T>) {
        T* const row = plane + 2 * oh * W<T>;
        const Pairs<T> top = pairs_of(o, W<T>, 0), bottom = pairs_of(o, W<T>, 1);
        store(row, zip_low<T>(top.even, top.odd, Lanes<T>{}));
        store(row + W<T>, zip_low<T>(bottom.even, bottom.odd, Lanes<T>{}));
        store(row + 2 * W<T>, zip_high<T>(top.even, top.odd, Lanes<T>{}));
        store(row + 3 * W<T>, zip_high<T>(bottom.even, bottom.odd, Lanes<T>{}));
      }
      for (; oh < height; ++oh, o += across) {
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
