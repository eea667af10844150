// What max and average pooling share: where windows lie in planes (the last two dimensions, H x W), and rows of
// outputs. Output columns whose windows lie inside the row are computed W at a time (strides 1 and 2 by vector loads);
// those that touch the padding, and adaptive windows, one by one. Forward is cut by output rows, backward by planes.
#pragma once
#include "shuffle.h"

namespace fastnn {
namespace FASTNN_ISA {

FASTNN_INLINE int64_t up(int64_t a, int64_t b) { return a <= 0 ? 0 : divide_up(a, b); }

// One dimension of the pooling: window o covers start(o) + k * dilation, k in [first(o), last(o)) inside the input.
struct WindowAxis {
  int64_t in, out, kernel, stride, padding, dilation;
  FASTNN_INLINE int64_t start(int64_t o) const { return o * stride - padding; }
  FASTNN_INLINE int64_t first(int64_t o) const { return up(-start(o), dilation); }
  FASTNN_INLINE int64_t last(int64_t o) const { return least(kernel, up(in - start(o), dilation)); }
  // Outputs [inner_begin, inner_end) have all of their window inside the input.
  FASTNN_INLINE int64_t inner_begin() const { return least(out, up(padding, stride)); }
  FASTNN_INLINE int64_t inner_end() const {
    const int64_t room = in - 1 - (kernel - 1) * dilation + padding;
    return most(inner_begin(), room < 0 ? 0 : least(out, room / stride + 1));
  }
  // What average pooling counts where padding is included: the window cut at the padded input's end.
  FASTNN_INLINE int64_t padded_count(int64_t o) const { return least(start(o) + kernel, in + padding) - start(o); }
};

// One window, the whole plane.
FASTNN_INLINE bool is_global(const WindowAxis& rows, const WindowAxis& columns) {
  return rows.out == 1 && columns.out == 1 && rows.first(0) == 0 && columns.first(0) == 0 && rows.start(0) == 0 &&
         columns.start(0) == 0 && rows.last(0) == rows.in && columns.last(0) == columns.in && rows.dilation == 1 &&
         columns.dilation == 1;
}

FASTNN_INLINE int64_t planes_of(const Array& x) {
  int64_t n = 1;
  for (int i = 0; i < x.ndim - 2; ++i) n *= x.shape[i];
  return n;
}
FASTNN_INLINE WindowAxis axis(const Array& x, const Array& y, int from_end, int64_t kernel, int64_t stride,
                              int64_t padding, int64_t dilation) {
  return {x.shape[x.ndim - from_end], y.shape[y.ndim - from_end], kernel, stride, padding, dilation};
}
// Every window must start before the input's end and hold at least one element of it.
FASTNN_INLINE void check_axis(const WindowAxis& a) {
  constexpr int64_t LIMIT = int64_t(1) << 31;
  FASTNN_CHECK(a.in > 0 && a.out > 0, "empty plane");
  FASTNN_CHECK(a.kernel > 0 && a.stride > 0 && a.padding >= 0 && a.dilation > 0 && a.kernel < LIMIT &&
                   a.stride < LIMIT && a.dilation < LIMIT && a.padding <= a.kernel / 2,
               "kernel_size, stride, padding or dilation out of range");
  FASTNN_CHECK(a.out <= (a.in + a.padding - 1) / a.stride + 1, "the last window starts after the input's end");
  for (int64_t o = 0; a.dilation > a.in && o < a.out && a.start(o) < 0; ++o)
    FASTNN_CHECK(a.first(o) < a.last(o), "a window holds nothing but padding");
}
FASTNN_INLINE void check_arrays(const Array& x, const Array& y) {
  FASTNN_CHECK(x.ndim >= 3 && x.ndim == y.ndim, "arrays must be (C, H, W) or (N, C, H, W)");
  for (int i = 0; i < x.ndim - 2; ++i) FASTNN_CHECK(x.shape[i] == y.shape[i], "the arrays differ in N or C");
}
FASTNN_INLINE void check_like(const Array& a, const Array& b) {
  FASTNN_CHECK(a.size == b.size, "the arrays differ in size");
}

// Once for all planes of a chunk: memset of one plane of 4 KB costs more in starting than in writing.
template <class T>
FASTNN_INLINE void zero(T* p, int64_t count) {
  memset(p, 0, size_t(count) * sizeof(T));
}

// Lane i reads p[i * stride], for the first n lanes. STRIDE 1 or 2 is known at compile time, 0 is any.
template <class T, int STRIDE>
FASTNN_INLINE Vec<T> load_columns(const T* p, int64_t stride, int64_t n) {
  if (STRIDE == 1) return load(p, n);
  if (STRIDE == 2) return n == W<T> ? load_every_second(p) : load_every_second_n(p, n);
  T lanes[W<T>] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i * stride];
  return load(lanes);
}

// Calls body(begin, n) over columns [begin, end): whole vectors, the last one overlapping its neighbour, which computes
// the same values twice and needs no masks. Fewer than W columns go in one vector: whole too where `spill` says that
// what lies behind may be read and written (the next row, which is written later), else masked.
template <class T, class F>
FASTNN_INLINE void column_vectors(int64_t begin, int64_t end, bool spill, const F& body) {
  if (end - begin < W<T>) {
    if (begin < end) body(begin, spill ? W<T> : end - begin);
    return;
  }
  int64_t i = begin;
  for (; i + W<T> <= end; i += W<T>) body(i, int64_t(W<T>));
  if (i < end) body(end - W<T>, int64_t(W<T>));
}

// What a row may touch: elements from the plane's start to the end of x, from the row's start to the end of its chunk.
struct Room {
  int64_t x, y;
};
FASTNN_INLINE bool may_spill(const Room& room, const WindowAxis& rows, const WindowAxis& columns, int64_t oh,
                             int64_t begin, int64_t lanes) {
  const int64_t bottom = rows.start(oh) + (rows.last(oh) - 1) * rows.dilation;
  const int64_t right = columns.start(begin + lanes - 1) + (columns.kernel - 1) * columns.dilation;
  return begin + lanes <= room.y && bottom * columns.in + right < room.x;
}

// Window o of `out` covers floor(o * in / out) to ceil((o + 1) * in / out).
FASTNN_INLINE int64_t adaptive_begin(int64_t o, int64_t in, int64_t out) { return o * in / out; }
FASTNN_INLINE int64_t adaptive_end(int64_t o, int64_t in, int64_t out) { return ((o + 1) * in + out - 1) / out; }

// The fixed windows that adaptive ones of this size are; with kernel 0 if they differ or lie unevenly.
FASTNN_INLINE WindowAxis fixed_axis(const Array& x, const Array& y, int from_end) {
  const int64_t in = x.shape[x.ndim - from_end], out = y.shape[y.ndim - from_end];
  const int64_t kernel = adaptive_end(0, in, out), stride = out > 1 ? adaptive_begin(1, in, out) : 1;
  bool fixed = stride > 0;
  for (int64_t o = 0; fixed && o < out; ++o)
    fixed = adaptive_begin(o, in, out) == o * stride && adaptive_end(o, in, out) == o * stride + kernel;
  return {in, out, fixed ? kernel : 0, stride, 0, 1};
}

FASTNN_INLINE void check_adaptive(const Array& x, const Array& y) {
  const int64_t h = x.shape[x.ndim - 2], w = x.shape[x.ndim - 1], oh = y.shape[y.ndim - 2], ow = y.shape[y.ndim - 1];
  FASTNN_CHECK(h > 0 && w > 0, "empty plane");
  FASTNN_CHECK((h | w | oh | ow) < int64_t(1) << 31, "a side of more than 2^31 elements");
}

// Calls body(plane, output, h0, h1, w0, w1) for every window.
template <class F>
FASTNN_INLINE void adaptive_windows(const Array& x, const Array& y, const F& body) {
  const int64_t h = x.shape[x.ndim - 2], w = x.shape[x.ndim - 1], oh = y.shape[y.ndim - 2], ow = y.shape[y.ndim - 1];
  parallel_for(planes_of(x), most(1, GRAIN / (h * w + oh * ow)), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t i = 0; i < oh; ++i)
        for (int64_t j = 0; j < ow; ++j)
          body(p * h * w, (p * oh + i) * ow + j, adaptive_begin(i, h, oh), adaptive_end(i, h, oh),
               adaptive_begin(j, w, ow), adaptive_end(j, w, ow));
  });
}

#define FASTNN_WINDOW "kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w"

}  // namespace FASTNN_ISA
}  // namespace fastnn
