// Average pooling, fixed and adaptive windows, forward and backward: small planes W at a time (pool_lanes.h), 2x2
// windows side by side (pool_pairs.h), 3x3 ones that overlap (windows3.h), whole planes as one run, other windows row
// by row (pool.h).
#include "pool_lanes.h"
#include "pool_pairs.h"
#include "windows3.h"

namespace fastnn {
namespace FASTNN_ISA {

// Rows are added up in double: a window may be a whole image.
template <class T>
FASTNN_INLINE double window_sum(const T* plane, int64_t row_size, int64_t h0, int64_t h1, int64_t w0, int64_t w1) {
  if (w1 - w0 == row_size && (h1 - h0) * row_size <= 4096)  // whole rows, which touch: one run
    return double(sum_of_run(plane + h0 * row_size, (h1 - h0) * row_size));
  double sum = 0;
  for (int64_t h = h0; h < h1; ++h) sum += double(sum_of_run(plane + h * row_size + w0, w1 - w0));
  return sum;
}

struct Divisor {
  int64_t include_padding, override;  // override 0: none
  FASTNN_INLINE double of(const WindowAxis& rows, const WindowAxis& columns, int64_t oh, int64_t ow) const {
    if (override) return double(override);
    if (include_padding) return double(rows.padded_count(oh)) * double(columns.padded_count(ow));
    return double(rows.last(oh) - rows.first(oh)) * double(columns.last(ow) - columns.first(ow));
  }
};

// y = the averages of whole planes of `size` elements; W of them at once, each first in vectors of its own.
template <class T>
FASTNN_INLINE void avg_whole(const T* x, int64_t planes, int64_t size, int64_t row_size, double number, T* y) {
  const bool long_planes = size > 4096;
  each_block<T>(planes, size, [=](int64_t first, int64_t count) {
    if (long_planes) {
      for (int64_t p = first; p < first + count; ++p)
        y[p] = T(window_sum(x + p * size, row_size, 0, size / row_size, 0, row_size) / number);
      return;
    }
    const T* const from = x + first * size;
    reduce_planes<T>(
        count, y + first, [=](int64_t p) __attribute__((always_inline)) { return lanes_of_run(from + p * size, size); },
        [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return a + b; },
        [=](Vec<T> v) __attribute__((always_inline)) { return v / set(T(number)); });
  });
}

// The windows of W planes: x (element, plane), y (output, plane). `share`: one over the divisor of each output.
template <class T, int K>
FASTNN_INLINE void avg_lanes(const Windows& s, const T* share, const T* x, T* y) {
  s.each([&](int64_t o, const Span& r, const Span& c) __attribute__((always_inline)) {
    const T* const first = x + s.corner(r, c) * W<T>;
    Vec<T> total{}, row{};
    each_element<K>(r, c, 0, [&](int64_t i, int64_t j, int64_t) __attribute__((always_inline)) {
      const Vec<T> v = load(first + (i * s.in_w + j) * W<T>);
      row = j > 0 ? row + v : v;
      if (j + 1 == c.count) total += row;
    });
    store(y + o * W<T>, total * share[o]);
  });
}
template <class T, int K>
FASTNN_INLINE void avg_backward_lanes(const Windows& s, const T* share, const T* dy, T* dx) {
  zero(dx, s.in() * W<T>);
  s.each([&](int64_t o, const Span& r, const Span& c) __attribute__((always_inline)) {
    const Vec<T> g = load(dy + o * W<T>) * share[o];
    T* const first = dx + s.corner(r, c) * W<T>;
    each_element<K>(r, c, 0, [&](int64_t i, int64_t j, int64_t) __attribute__((always_inline)) {
      T* const d = first + (i * s.in_w + j) * W<T>;
      store(d, load(d) + g);
    });
  });
}

// Both directions, for all planes: `from` is x or dy, `to` is y or dx; divisor(i, j) is that of output (i, j).
template <class T, bool BACKWARD, int K, class F>
FASTNN_INLINE void avg_planes(const Windows& s, const Array& from, const Array& to, const F& divisor) {
  const int64_t outputs = s.out(), read = BACKWARD ? outputs : s.in(), written = BACKWARD ? s.in() : outputs;
  const Scratch<T> shares(outputs);
  T* const share = shares.get();
  for (int64_t i = 0; i < s.out_h; ++i)
    for (int64_t j = 0; j < s.out_w; ++j) share[i * s.out_w + j] = T(1 / divisor(i, j));
  each_block<T>(planes_of(from), read + written, [&](int64_t first, int64_t count) {
    const Scratch<T> scratch((read + written) * W<T>);
    T *const source = scratch.get(), *const result = source + read * W<T>;
    planes_to_lanes<T>(in<T>(from) + first * read, read, count, source);
    if (BACKWARD)
      avg_backward_lanes<T, K>(s, share, source, result);
    else
      avg_lanes<T, K>(s, share, source, result);
    lanes_to_planes<T>(result, written, count, out<T>(to) + first * written);
  });
}
template <class T, bool BACKWARD>
FASTNN_INLINE void avg_adaptive(const Array& x, const Array& y, const Array& from, const Array& to) {
  with_adaptive_windows(x, y, [&](const Windows& s) {
    avg_planes<T, BACKWARD, 0>(s, from, to,
                               [&](int64_t i, int64_t j) { return double(s.rows[i].count * s.columns[j].count); });
  });
}

template <class T, bool BACKWARD>
FASTNN_INLINE void avg_fixed(const WindowAxis& rows, const WindowAxis& columns, const Divisor& divisor,
                             const Array& from, const Array& to) {
  with_windows(rows, columns, [&](const Windows& s) {
    with_side(rows, columns, [&](auto side) {
      avg_planes<T, BACKWARD, decltype(side)::value>(
          s, from, to, [&](int64_t i, int64_t j) { return divisor.of(rows, columns, i, j); });
    });
  });
}

// 3x3 windows that overlap, without padding.
template <class T>
struct Avg3 {
  Vec<T> share;
  int64_t room;  // outputs from the plane's first that may be written
  T* y;
  static constexpr T fill = 0;
  FASTNN_INLINE Vec<T> none() const { return Vec<T>{}; }
  FASTNN_INLINE Vec<T> across(const Row3<T>& row) const { return row.sum; }
  FASTNN_INLINE void down(int64_t o, int64_t n, Vec<T> first, Vec<T> second, Vec<T> third) const {
    if (o + W<T> <= room) n = W<T>;  // what follows a short row is written later
    store(y + o, (first + second + third) * share, n);
  }
};
FASTNN_INLINE bool is_whole(const WindowAxis& a) { return a.inner_begin() == 0 && a.inner_end() == a.out; }
template <class T, int S>
FASTNN_INLINE void avg_windows3(const WindowAxis& rows, const WindowAxis& columns, Vec<T> share, const Array& x, T* y) {
  each_band<T>(rows, columns, planes_of(x), [&](int64_t p, int64_t begin, int64_t end, int64_t room) {
    const auto margins = margins_of_windows(rows, columns, in<T>(x), planes_of(x));
    down3<T, S>(rows, columns, begin, end, margins.plane(p), Avg3<T>{share, room, y + p * rows.out * columns.out});
  });
}

template <class T, int STRIDE>
FASTNN_INLINE void avg_row(const WindowAxis& rows, const WindowAxis& columns, const Divisor& divisor, const T* plane,
                           const Room& room, int64_t oh, T* y) {
  const int64_t kw = columns.kernel, sw = STRIDE ? STRIDE : columns.stride, row_size = columns.in;
  const int64_t h0 = rows.start(oh) + rows.first(oh), h1 = rows.start(oh) + rows.last(oh);
  const bool along_window = kw >= W<T> && kw > columns.out;
  const int64_t begin = along_window ? columns.out : columns.inner_begin();
  const int64_t end = along_window ? columns.out : columns.inner_end();
  const auto one = [&](int64_t ow) {
    const int64_t left = columns.start(ow);
    const double sum = window_sum(plane, row_size, h0, h1, left + columns.first(ow), left + columns.last(ow));
    y[ow] = T(sum / divisor.of(rows, columns, oh, ow));
  };
  for (int64_t ow = 0; ow < begin; ++ow) one(ow);
  const Vec<T> d = set(T(begin < end ? divisor.of(rows, columns, oh, begin) : 1));
  const bool spill = begin < end && may_spill(room, rows, columns, oh, begin, W<T>);
  column_vectors<T>(begin, end, spill, [&](int64_t ow, int64_t n) __attribute__((always_inline)) {
    Vec<T> sum{};
    for (int64_t h = h0; h < h1; ++h) {
      const T* p = plane + h * row_size + columns.start(ow);
      for (int64_t j = 0; j < kw; ++j) sum += load_columns<T, STRIDE>(p + j, sw, n);
    }
    store(y + ow, sum / d, n);
  });
  for (int64_t ow = end; ow < columns.out; ++ow) one(ow);
}

template <class T>
FASTNN_INLINE void avg_windows(const WindowAxis& rows, const WindowAxis& columns, const Divisor& divisor,
                               const Array& x, const Array& y) {
  if (is_global(rows, columns))
    return avg_whole(in<T>(x), y.size, rows.in * columns.in, columns.in, divisor.of(rows, columns, 0, 0), out<T>(y));
  const Vec<T> share = set(T(1 / divisor.of(rows, columns, 0, 0)));
  T* const py = out<T>(y);
  if (is_2x2(rows, columns)) {
    const T* const px = in<T>(x);
    const int64_t size = x.size;
    return each_rows_of_pairs(rows, columns, planes_of(x), [=](int64_t begin, int64_t end) {
      each_pairs<T>(rows, columns, px, size, begin, end,
                    [=](int64_t o, int64_t n, const Pairs<T>& t, const Pairs<T>& b) __attribute__((always_inline)) {
                      store(py + o, ((t.even + t.odd) + (b.even + b.odd)) * share, n);
                    });
    });
  }
  if (is_3x3(rows, columns) && by_windows3<T>(columns) && is_whole(rows) && is_whole(columns))
    return columns.stride == 1 ? avg_windows3<T, 1>(rows, columns, share, x, py)
                               : avg_windows3<T, 2>(rows, columns, share, x, py);
  if (fits_lanes<T>(planes_of(x), rows.in * columns.in, rows.out * columns.out))
    return avg_fixed<T, false>(rows, columns, divisor, x, y);
  const int64_t work = columns.out * least(rows.kernel, rows.in) * least(columns.kernel, columns.in);
  parallel_for(planes_of(x) * rows.out, most(1, GRAIN / work), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t before = r / rows.out * rows.in * columns.in;
      const T* plane = in<T>(x) + before;
      const Room room{x.size - before, (end - r) * columns.out};
      T* o = out<T>(y) + r * columns.out;
      if (columns.stride == 1)
        avg_row<T, 1>(rows, columns, divisor, plane, room, r % rows.out, o);
      else if (columns.stride == 2)
        avg_row<T, 2>(rows, columns, divisor, plane, room, r % rows.out, o);
      else
        avg_row<T, 0>(rows, columns, divisor, plane, room, r % rows.out, o);
    }
  });
}

template <class T>
void avg_pool2d(const Array& x, const Array& y, int64_t kh, int64_t kw, int64_t sh, int64_t sw, int64_t ph, int64_t pw,
                int64_t count_include_pad, int64_t divisor_override) {
  check_arrays(x, y);
  if (y.size == 0) return;
  const WindowAxis rows = axis(x, y, 2, kh, sh, ph, 1), columns = axis(x, y, 1, kw, sw, pw, 1);
  check_axis(rows);
  check_axis(columns);
  avg_windows<T>(rows, columns, {count_include_pad, divisor_override}, x, y);
}

// Adds one row of windows' shares to one row of dx.
template <class T>
FASTNN_INLINE void avg_backward_row(const WindowAxis& rows, const WindowAxis& columns, const Divisor& divisor,
                                    const T* dy, int64_t oh, T* dx) {
  const int64_t begin = columns.inner_begin(), end = columns.inner_end(), sw = columns.stride, kw = columns.kernel;
  const auto one = [&](int64_t ow) {
    const T g = T(double(dy[ow]) / divisor.of(rows, columns, oh, ow));
    T* d = dx + columns.start(ow);
    for (int64_t j = columns.first(ow), last = columns.last(ow); j < last; ++j) d[j] += g;
  };
  for (int64_t ow = 0; ow < begin; ++ow) one(ow);
  const T divide = T(begin < end ? divisor.of(rows, columns, oh, begin) : 1);
  T* d = dx + (begin * sw - columns.padding);
  int64_t ow = begin;
  if (sw == 1) {
    for (; ow + W<T> <= end; ow += W<T>, d += W<T>) {
      const Vec<T> g = load(dy + ow) / divide;
      for (int64_t j = 0; j < kw; ++j) store(d + j, load(d + j) + g);
    }
  }
  for (; ow < end; ++ow, d += sw) {
    const T g = dy[ow] / divide;
    for (int64_t j = 0; j < kw; ++j) d[j] += g;
  }
  for (ow = end; ow < columns.out; ++ow) one(ow);
}

template <class T>
void avg_pool2d_backward(const Array& dy, const Array& dx, int64_t kh, int64_t kw, int64_t sh, int64_t sw, int64_t ph,
                         int64_t pw, int64_t count_include_pad, int64_t divisor_override) {
  check_arrays(dx, dy);
  if (dx.size == 0) return;
  const WindowAxis rows = axis(dx, dy, 2, kh, sh, ph, 1), columns = axis(dx, dy, 1, kw, sw, pw, 1);
  check_axis(rows);
  check_axis(columns);
  const Divisor divisor{count_include_pad, divisor_override};
  if (is_global(rows, columns)) {
    const int64_t size = rows.in * columns.in;
    const double number = divisor.of(rows, columns, 0, 0);
    const T* g = in<T>(dy);
    T* d = out<T>(dx);
    return parallel_for(dy.size, most(1, GRAIN / size), [=](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const Vec<T> share = set(T(double(g[p]) / number));
        each_vector<T>(p * size, (p + 1) * size, [=](int64_t i, int64_t n) { store(d + i, share, n); });
      }
    });
  }
  const Vec<T> share = set(T(1 / divisor.of(rows, columns, 0, 0)));
  const T* const g = in<T>(dy);
  if (by_pairs_backward<T>(rows, columns))
    return each_pairs_backward<T>(rows, columns, dy, dx, [=](int64_t o, int64_t n, int) __attribute__((always_inline)) {
      const Vec<T> v = load(g + o, n) * share;
      return Pairs<T>{v, v};
    });
  if (fits_lanes<T>(planes_of(dx), rows.in * columns.in, rows.out * columns.out))
    return avg_fixed<T, true>(rows, columns, divisor, dy, dx);
  const int64_t size = rows.in * columns.in, outputs = rows.out * columns.out;
  parallel_for(planes_of(dx), most(1, GRAIN / (size + outputs)), [&](int64_t begin, int64_t end) {
    zero(out<T>(dx) + begin * size, (end - begin) * size);
    for (int64_t p = begin; p < end; ++p) {
      const T* g = in<T>(dy) + p * outputs;
      T* d = out<T>(dx) + p * size;
      // Row h of dx takes from every row of windows that covers it.
      for (int64_t oh = 0; oh < rows.out; ++oh)
        for (int64_t k = rows.first(oh), last = rows.last(oh); k < last; ++k)
          avg_backward_row(rows, columns, divisor, g + oh * columns.out, oh, d + (rows.start(oh) + k) * columns.in);
    }
  });
}

template <class T>
void adaptive_avg_pool2d(const Array& x, const Array& y) {
  check_arrays(x, y);
  if (y.size == 0) return;
  check_adaptive(x, y);
  const WindowAxis rows = fixed_axis(x, y, 2), columns = fixed_axis(x, y, 1);
  if (rows.kernel > 0 && columns.kernel > 0) return avg_windows<T>(rows, columns, {0, 0}, x, y);
  if (fits_lanes<T>(planes_of(x), x.size / planes_of(x), y.size / planes_of(x)))
    return avg_adaptive<T, false>(x, y, x, y);
  const int64_t row_size = x.shape[x.ndim - 1];
  adaptive_windows(x, y, [&](int64_t plane, int64_t o, int64_t h0, int64_t h1, int64_t w0, int64_t w1) {
    out<T>(y)[o] = T(window_sum(in<T>(x) + plane, row_size, h0, h1, w0, w1) / double((h1 - h0) * (w1 - w0)));
  });
}
template <class T>
void adaptive_avg_pool2d_backward(const Array& dy, const Array& dx) {
  check_arrays(dx, dy);
  if (dx.size == 0) return;
  if (dy.size > 0) check_adaptive(dx, dy);
  if (dy.size > 0 && fits_lanes<T>(planes_of(dx), dx.size / planes_of(dx), dy.size / planes_of(dx)))
    return avg_adaptive<T, true>(dx, dy, dy, dx);
  zero(out<T>(dx), dx.size);
  if (dy.size == 0) return;
  const int64_t row_size = dx.shape[dx.ndim - 1];
  adaptive_windows(dx, dy, [&](int64_t plane, int64_t o, int64_t h0, int64_t h1, int64_t w0, int64_t w1) {
    const T g = in<T>(dy)[o] / T((h1 - h0) * (w1 - w0));
    for (int64_t h = h0; h < h1; ++h) {
      T* d = out<T>(dx) + plane + h * row_size;
      for (int64_t w = w0; w < w1; ++w) d[w] += g;
    }
  });
}

FASTNN_KERNELS(avg_pool, FASTNN_KERNEL(avg_pool2d, "x -> y | " FASTNN_WINDOW ", count_include_pad, divisor_override"),
               FASTNN_KERNEL(avg_pool2d_backward, "dy -> dx | " FASTNN_WINDOW ", count_include_pad, divisor_override"),
               FASTNN_KERNEL(adaptive_avg_pool2d, "x -> y"), FASTNN_KERNEL(adaptive_avg_pool2d_backward, "dy -> dx"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
