// What max and average pooling share: where windows lie in planes (H x W). A launch covers less than 2^31 elements of x
// and of y; the host cuts larger batches into several, so that 32 bits number all. Next: python/fastnn/cuda/pool.py.
#pragma once
#include "divide.cuh"

// `count`, and the divisors `by_h` and `by_w` (divide.cuh), are those of what the threads have one each of: windows,
// elements of dx or cells.
struct Pool {
  int count, in_h, in_w, out_h, out_w;
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  int64_t by_h, by_w;
};

// One dimension of the pooling: window o covers start(o) + k * dilation, k in [first(o), last(o)) inside the input.
// Unsigned where a sum may pass 2^31.
struct Axis {
  int in, out, kernel, stride, padding, dilation;
  FASTNN_INLINE int start(int o) const { return o * stride - padding; }
  FASTNN_INLINE int first(int o) const { return start(o) < 0 ? (-start(o) - 1) / dilation + 1 : 0; }
  FASTNN_INLINE int last(int o) const {
    const unsigned room = unsigned(in) - unsigned(start(o));
    const unsigned steps = dilation == 1 ? room : (room - 1) / unsigned(dilation) + 1;
    return steps < unsigned(kernel) ? int(steps) : kernel;
  }
  FASTNN_INLINE int span() const { return (kernel - 1) * dilation + 1; }
  // What average pooling counts where padding is included: the window cut at the padded input's end.
  FASTNN_INLINE int padded_count(int o) const {
    const unsigned room = unsigned(in) + unsigned(padding) - unsigned(start(o));
    return room < unsigned(kernel) ? int(room) : kernel;
  }
};
// KERNEL and STRIDE are numbers known at compile time, or 0: then p's.
template <int KERNEL, int STRIDE>
FASTNN_INLINE Axis rows_of(const Pool& p) {
  return {p.in_h,
          p.out_h,
          KERNEL ? KERNEL : p.kernel_h,
          STRIDE ? STRIDE : p.stride_h,
          p.padding_h,
          KERNEL ? 1 : p.dilation_h};
}
template <int KERNEL, int STRIDE>
FASTNN_INLINE Axis columns_of(const Pool& p) {
  return {p.in_w,
          p.out_w,
          KERNEL ? KERNEL : p.kernel_w,
          STRIDE ? STRIDE : p.stride_w,
          p.padding_w,
          KERNEL ? 1 : p.dilation_w};
}

struct Place {
  int plane, h, w;
  FASTNN_INLINE int in(int height, int width) const { return (plane * height + h) * width + w; }
};
// Of element i of (planes, height, width).
FASTNN_INLINE Place place(int i, const Pool& p, int height, int width) {
  const int row = divide(i, p.by_w), plane = divide(row, p.by_h);
  return {plane, row - plane * height, i - row * width};
}

// The windows that cover `at` along one dimension: [first, last], and with dilation some that do not.
// `by` divides by the stride.
FASTNN_INLINE int first_cover(const Axis& a, int at, int64_t by) {
  const int before = at - a.span() + a.padding;
  return before < 0 ? 0 : divide(before, by) + 1;
}
FASTNN_INLINE int last_cover(const Axis& a, int at, int64_t by) {
  const int o = divide(at + a.padding, by);
  return o < a.out ? o : a.out - 1;
}

// Window o of an adaptive pooling covers floor(o * in / out) to ceil((o + 1) * in / out).
FASTNN_INLINE int64_t adaptive_begin(int64_t o, int64_t in, int64_t out) { return o * in / out; }
FASTNN_INLINE int64_t adaptive_end(int64_t o, int64_t in, int64_t out) { return ((o + 1) * in + out - 1) / out; }

// Two elements side by side: at once where all rows begin at even elements (PAIRS), else one by one.
template <bool PAIRS, class T>
FASTNN_INLINE Pack<T, 2> load_two(const T* p) {
  if constexpr (PAIRS) return load_pack<2>(p);
  return {{p[0], p[1]}};
}

// The gradient of 2x2 windows side by side is written in cells of 2 x 2 elements, a thread each. Where a side of dx is
// odd, its last cells are cut, and no window covers them.
struct Cell {
  Place at;
  bool covered;
  int window;  // its number, if covered
};
FASTNN_INLINE int cells(int side) { return divide_up(side, 2); }
// The offset of its first element.
FASTNN_INLINE int corner_of(const Place& at, const Pool& p) {
  return (at.plane * p.in_h + 2 * at.h) * p.in_w + 2 * at.w;
}
FASTNN_INLINE Cell cell_of(int i, const Pool& p) {
  const Place at = place(i, p, cells(p.in_h), cells(p.in_w));
  return {at, at.h < p.out_h && at.w < p.out_w, at.in(p.out_h, p.out_w)};
}
template <bool PAIRS, class T>
FASTNN_INLINE void store_cell(T* dx, const Pool& p, const Place& at, Pack<T, 2> top, Pack<T, 2> bottom) {
  T* to = dx + corner_of(at, p);
#pragma unroll
  for (int k = 0; k < 2; ++k, to += p.in_w) {
    if (2 * at.h + k == p.in_h) break;
    const Pack<T, 2> row = k == 0 ? top : bottom;
    if constexpr (PAIRS) {
      store_pack(to, row);
    } else {
      to[0] = row.v[0];
      if (2 * at.w + 1 < p.in_w) to[1] = row.v[1];
    }
  }
}
