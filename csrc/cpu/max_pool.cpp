// Max pooling, fixed and adaptive windows, forward and backward.
// Which maximum wins: the first in reading order; of several NaN the last, as in PyTorch. Next: pool.h.
#include "pool.h"

namespace fastnn {
namespace FASTNN_ISA {

// What is remembered of the winner: nothing, or its index in the plane.
enum Remember { NOTHING, INDEX };

// Whether v takes the maximum's place when it comes after it.
template <class V>
FASTNN_INLINE auto wins(V v, V best) {
  return (v > best) | (v != v);
}

template <class T>
struct Winner {
  T value;
  int64_t at;
};
struct Steps {
  int64_t count, step;
};

// The maximum of a window from `corner`, which is at index `at`, and where it is. A long row is first looked at in
// vectors, and element by element only if it holds something greater. Without branches otherwise: who wins cannot be
// predicted.
template <class T>
FASTNN_INLINE Winner<T> window_maximum(const T* corner, int64_t at, const Steps& rows, const Steps& columns) {
  T best = *corner;
  for (int64_t i = 0, row = at; i < rows.count; ++i, corner += rows.step, row += rows.step) {
    if (columns.step == 1 && columns.count >= W<T>) {
      Vec<T> v = load(corner);
      for (int64_t j = W<T>; j + W<T> <= columns.count; j += W<T>) v = maximum(v, load(corner + j));
      v = maximum(v, load(corner + columns.count - W<T>));
      bool greater = false;
      for (int j = 0; j < W<T>; ++j) greater |= !(v[j] <= best);
      if (!greater) continue;
    }
    for (int64_t j = 0; j < columns.count; ++j) {
      const T v = corner[j * columns.step];
      const bool better = wins(v, best);
      best = better ? v : best;
      at = better ? row + j * columns.step : at;
    }
  }
  return {best, at};
}

template <class T, int KERNEL, int STRIDE, Remember WHAT>
FASTNN_INLINE void max_row(const Axis& rows, const Axis& columns, const T* plane, const Room& room, int64_t oh, T* y,
                           int64_t* indices) {
  const int64_t kw = KERNEL ? KERNEL : columns.kernel, sw = STRIDE ? STRIDE : columns.stride;
  const int64_t dh = rows.dilation, dw = columns.dilation;
  const int64_t k0 = rows.first(oh), k1 = rows.last(oh), top = rows.start(oh), row_size = columns.in;
  // With few outputs and long windows the vectors run along the window instead (global pooling).
  const bool along_window = dw == 1 && kw >= W<T> && kw > columns.out;
  const int64_t begin = along_window ? columns.out : columns.inner_begin();
  const int64_t end = along_window ? columns.out : columns.inner_end();

  const auto one = [&](int64_t ow) {
    const int64_t j0 = columns.first(ow), count = columns.last(ow) - j0;
    const int64_t corner = (top + k0 * dh) * row_size + columns.start(ow) + j0 * dw;
    const Winner<T> best = window_maximum(plane + corner, corner, {k1 - k0, dh * row_size}, {count, dw});
    y[ow] = best.value;
    if (WHAT == INDEX) indices[ow] = best.at;
  };
  for (int64_t ow = 0; ow < begin; ++ow) one(ow);
  const bool spill = begin < end && may_spill(room, rows, columns, oh, begin, W<T>);
  column_vectors<T>(begin, end, spill, [&](int64_t ow, int64_t n) __attribute__((always_inline)) {
    const int64_t corner = top * row_size + columns.start(ow);
    typedef decltype(Bits<T>{}[0] + 0) I;
    Vec<T> best = load_columns<T, STRIDE>(plane + corner + k0 * dh * row_size, sw, n);
    // A lane holds the winner's index less the corner's: below 2^31, which the caller has checked.
    Bits<T> at = Bits<T>{} + I(k0 * dh * row_size);
    for (int64_t k = k0; k < k1; ++k) {
      const int64_t offset = k * dh * row_size;
#pragma GCC unroll 3
      for (int64_t j = 0; j < kw; ++j) {
        const Vec<T> v = load_columns<T, STRIDE>(plane + corner + offset + j * dw, sw, n);
        const auto better = wins(v, best);
        best = better ? v : best;
        if (WHAT == INDEX) at = better ? Bits<T>{} + I(offset + j * dw) : at;
      }
    }
    store(y + ow, best, n);
    if (WHAT == INDEX)
      for (int64_t i = 0; i < n; ++i) indices[ow + i] = corner + i * sw + at[i];
  });
  for (int64_t ow = end; ow < columns.out; ++ow) one(ow);
}

template <class T, int KERNEL, int STRIDE, Remember WHAT>
FASTNN_INLINE void max_rows(const Axis& rows, const Axis& columns, const Array& x, const Array& y, const Array& at) {
  const int64_t work = columns.out * least(rows.kernel, rows.in) * least(columns.kernel, columns.in);
  parallel_for(planes_of(x) * rows.out, most(1, GRAIN / work), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t plane = r / rows.out * rows.in * columns.in, o = r * columns.out;
      const Room room{x.size - plane, (end - r) * columns.out};
      max_row<T, KERNEL, STRIDE, WHAT>(rows, columns, in<T>(x) + plane, room, r % rows.out, out<T>(y) + o,
                                       WHAT == INDEX ? out<int64_t>(at) + o : nullptr);
    }
  });
}

template <class T, Remember WHAT>
FASTNN_INLINE void max_pool(const Axis& rows, const Axis& columns, const Array& x, const Array& y, const Array& at) {
  if (columns.kernel == 2 && columns.stride == 2)
    max_rows<T, 2, 2, WHAT>(rows, columns, x, y, at);
  else if (columns.kernel == 3 && columns.stride == 2)
    max_rows<T, 3, 2, WHAT>(rows, columns, x, y, at);
  else if (columns.stride == 1)
    max_rows<T, 0, 1, WHAT>(rows, columns, x, y, at);
  else if (columns.stride == 2)
    max_rows<T, 0, 2, WHAT>(rows, columns, x, y, at);
  else
    max_rows<T, 0, 0, WHAT>(rows, columns, x, y, at);
}

template <class T>
void max_pool2d(const Array& x, const Array& y, const Array& indices, int64_t kh, int64_t kw, int64_t sh, int64_t sw,
                int64_t ph, int64_t pw, int64_t dh, int64_t dw) {
  check_arrays(x, y);
  if (indices) check_like(indices, y);
  if (y.size == 0) return;
  const Axis rows = axis(x, y, 2, kh, sh, ph, dh), columns = axis(x, y, 1, kw, sw, pw, dw);
  check_axis(rows);
  check_axis(columns);
  FASTNN_CHECK(!indices || rows.in * columns.in < int64_t(1) << 31, "a plane of more than 2^31 elements");
  if (indices)
    max_pool<T, INDEX>(rows, columns, x, y, indices);
  else
    max_pool<T, NOTHING>(rows, columns, x, y, indices);
}

// 2x2 windows side by side, the common case: the winner's number in its window is kept as a byte, with which the
// gradient is fast. Each row's winner first, then the better of the two: still the first of equals in reading order.
// `room`: elements from `top` to the end of x, from y to the end of the chunk.
template <class T>
FASTNN_INLINE void max_row_2x2(const T* top, int64_t width, int64_t outputs, T* y, uint8_t* taps, const Room& room) {
  const T* const bottom = top + width;
  const bool spill = room.x - width >= 2 * W<T> && room.y >= W<T>;
  column_vectors<T>(0, outputs, spill, [&](int64_t ow, int64_t n) __attribute__((always_inline)) {
    const Pairs<T> t = load_pairs(top + 2 * ow, n), b = load_pairs(bottom + 2 * ow, n);
    const Bits<T> t_right = wins(t.odd, t.even), b_right = wins(b.odd, b.even);  // -1: yes
    const Vec<T> t_best = t_right ? t.odd : t.even, b_best = b_right ? b.odd : b.even;
    const Bits<T> below = wins(b_best, t_best);
    store(y + ow, below ? b_best : t_best, n);
    store_bytes<T>(taps + ow, below ? 2 - b_right : -t_right, n);
  });
}

template <class T>
void max_pool2x2(const Array& x, const Array& y, const Array& taps) {
  check_arrays(x, y);
  check_like(taps, y);
  if (y.size == 0) return;
  const Axis rows = axis(x, y, 2, 2, 2, 0, 1), columns = axis(x, y, 1, 2, 2, 0, 1);
  FASTNN_CHECK(rows.in / 2 == rows.out && columns.in / 2 == columns.out, "y must have half of x's sides");
  const int64_t width = columns.in, outputs = columns.out;
  parallel_for(planes_of(x) * rows.out, most(1, GRAIN / (4 * outputs)), [&](int64_t begin, int64_t end) {
    int64_t oh = begin % rows.out, at = (begin / rows.out * rows.in + 2 * oh) * width;
    for (int64_t r = begin; r < end; ++r) {
      const int64_t o = r * outputs;
      max_row_2x2(in<T>(x) + at, width, outputs, out<T>(y) + o, out<uint8_t>(taps) + o,
                  Room{x.size - at, (end - r) * outputs});
      at += 2 * width;
      if (++oh == rows.out) oh = 0, at += rows.in % 2 * width;
    }
  });
}

// dx = 0, then dx[plane, indices] += dy in reading order.
template <class T>
void max_pool2d_backward(const Array& dy, const Array& indices, const Array& dx) {
  check_arrays(dx, dy);
  check_like(indices, dy);
  if (dx.size == 0) return;
  const int64_t planes = planes_of(dx), size = dx.size / planes, outputs = dy.size / planes;
  int64_t bad = 0;
  parallel_for(planes, most(1, GRAIN / (size + outputs)), [&](int64_t begin, int64_t end) {
    zero(out<T>(dx) + begin * size, (end - begin) * size);
    for (int64_t p = begin; p < end; ++p) {
      const T* g = in<T>(dy) + p * outputs;
      const int64_t* at = in<int64_t>(indices) + p * outputs;
      T* d = out<T>(dx) + p * size;
      for (int64_t i = 0; i < outputs; ++i) {
        if (uint64_t(at[i]) < uint64_t(size))
          d[at[i]] += g[i];
        else
          __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
      }
    }
  });
  FASTNN_CHECK(!bad, "an index lies outside its plane of %lld elements", static_cast<long long>(size));
}

// 2x2 windows side by side: each dy goes to one of four places and the other three are zero, so that dx is written
// once. `room`: elements from dy to the end of dy (x), from dx to the end of the chunk (y).
template <class T>
FASTNN_INLINE void max_backward_2x2(const Axis& rows, const Axis& columns, const T* dy, const uint8_t* taps, T* dx,
                                    Room room) {
  const int64_t width = columns.in;
  for (int64_t oh = 0; oh < rows.out; ++oh) {
    T *top = dx + 2 * oh * width, *bottom = top + width;
    const bool spill = room.x >= W<T> && room.y - (2 * oh + 1) * width >= 2 * W<T>;
    const auto half = [&](T* row, int first) __attribute__((always_inline)) {
      column_vectors<T>(0, columns.out, spill, [&](int64_t ow, int64_t n) __attribute__((always_inline)) {
        const Bits<T> tap = load_bytes<T>(taps + ow, n) - first;
        const Vec<T> g = load(dy + ow, n), none{};
        if (n == W<T>)
          store_zipped(row + 2 * ow, tap == 0 ? g : none, tap == 1 ? g : none);
        else
          store_zipped_n(row + 2 * ow, tap == 0 ? g : none, tap == 1 ? g : none, n);
      });
      for (int64_t w = 2 * columns.out; w < width; ++w) row[w] = T(0);
    };
    half(top, 0);
    half(bottom, 2);
    dy += columns.out;
    taps += columns.out;
    room.x -= columns.out;
  }
  for (int64_t i = 2 * rows.out * width; i < rows.in * width; ++i) dx[i] = T(0);
}

template <class T>
void max_pool2x2_backward(const Array& dy, const Array& taps, const Array& dx) {
  check_arrays(dx, dy);
  check_like(taps, dy);
  if (dx.size == 0) return;
  const Axis rows = axis(dx, dy, 2, 2, 2, 0, 1), columns = axis(dx, dy, 1, 2, 2, 0, 1);
  FASTNN_CHECK(rows.in / 2 == rows.out && columns.in / 2 == columns.out, "dy must have half of dx's sides");
  const int64_t size = rows.in * columns.in, outputs = rows.out * columns.out;
  parallel_for(planes_of(dx), most(1, GRAIN / (size + outputs)), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t o = p * outputs;
      max_backward_2x2(rows, columns, in<T>(dy) + o, in<uint8_t>(taps) + o, out<T>(dx) + p * size,
                       Room{dy.size - o, (end - p) * size});
    }
  });
}

template <class T>
void adaptive_max_pool2d(const Array& x, const Array& y, const Array& indices) {
  check_arrays(x, y);
  check_like(indices, y);
  if (y.size == 0) return;
  const int64_t row_size = x.shape[x.ndim - 1];
  adaptive_windows(x, y, [&](int64_t plane, int64_t o, int64_t h0, int64_t h1, int64_t w0, int64_t w1) {
    const int64_t corner = h0 * row_size + w0;
    const Winner<T> best = window_maximum(in<T>(x) + plane + corner, corner, {h1 - h0, row_size}, {w1 - w0, 1});
    out<T>(y)[o] = best.value;
    out<int64_t>(indices)[o] = best.at;
  });
}
FASTNN_KERNELS(max_pool, FASTNN_KERNEL(max_pool2d, "x -> y, indices:i64? | " FASTNN_WINDOW ", dilation_h, dilation_w"),
               FASTNN_KERNEL(max_pool2d_backward, "dy, indices:i64 -> dx"),
               FASTNN_KERNEL(max_pool2x2, "x -> y, taps:u8"), FASTNN_KERNEL(max_pool2x2_backward, "dy, taps:u8 -> dx"),
               FASTNN_KERNEL(adaptive_max_pool2d, "x -> y, indices:i64"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
