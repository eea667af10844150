// Pooling with planes in lanes: W planes are transposed into [element][plane], where a window of any size, at any edge,
// is a loop over whole vectors, and what comes out is transposed back. For blocks that stay in L2; larger planes, and
// fewer planes than lanes, go by rows (pool.h). Which windows there are, fixed or adaptive, stands in two tables.
#pragma once
#include "pool.h"
#include "transpose.h"

namespace fastnn {
namespace FASTNN_ISA {

// What of a window lies inside the input, along one dimension: `count` elements from `begin`, the first of which is the
// window's element `first`.
struct Span {
  int64_t begin, count, first;
};
FASTNN_INLINE void fixed_spans(const WindowAxis& a, Span* spans) {
  for (int64_t o = 0; o < a.out; ++o)
    spans[o] = {a.start(o) + a.first(o) * a.dilation, a.last(o) - a.first(o), a.first(o)};
}
FASTNN_INLINE void adaptive_spans(int64_t in, int64_t out, Span* spans) {
  for (int64_t o = 0; o < out; ++o) {
    const int64_t begin = adaptive_begin(o, in, out);
    spans[o] = {begin, adaptive_end(o, in, out) - begin, 0};
  }
}

struct Windows {
  int64_t in_h, in_w, out_h, out_w, step_h, step_w;  // steps from element to element of a window
  const Span *rows, *columns;
  FASTNN_INLINE int64_t in() const { return in_h * in_w; }
  FASTNN_INLINE int64_t out() const { return out_h * out_w; }
  FASTNN_INLINE int64_t corner(const Span& r, const Span& c) const { return r.begin * in_w + c.begin; }
  // Calls body(o, r, c) for every output o and what its window covers of rows and columns.
  template <class F>
  FASTNN_INLINE void each(const F& body) const {
    int64_t o = 0;
    for (int64_t i = 0; i < out_h; ++i)
      for (int64_t j = 0; j < out_w; ++j) body(o++, rows[i], columns[j]);
  }
};

// Calls body(i, j, tap) for the elements of a window that lie inside, row by row; without a loop if it is all of K x K.
template <int K, class F>
FASTNN_INLINE void each_element(const Span& r, const Span& c, int64_t kernel_w, const F& body) {
  if (K > 0 && r.count == K && c.count == K) {
#pragma GCC unroll 3
    for (int i = 0; i < K; ++i)
#pragma GCC unroll 3
      for (int j = 0; j < K; ++j) body(i, j, i * K + j);
  } else {
    for (int64_t i = 0; i < r.count; ++i)
      for (int64_t j = 0; j < c.count; ++j) body(i, j, (r.first + i) * kernel_w + c.first + j);
  }
}
// Calls body(integral constant K): the side of the windows if it is a common one, else 0.
template <int K>
struct Side {
  static constexpr int value = K;
};
template <class F>
FASTNN_INLINE void with_side(const WindowAxis& rows, const WindowAxis& columns, const F& body) {
  const int64_t side = rows.kernel == columns.kernel ? rows.kernel : 0;
  side == 2 ? body(Side<2>{}) : side == 3 ? body(Side<3>{}) : body(Side<0>{});
}

// Calls body(windows), their tables filled.
template <class F>
FASTNN_INLINE void with_windows(const WindowAxis& rows, const WindowAxis& columns, const F& body) {
  const Scratch<Span> spans(rows.out + columns.out);
  fixed_spans(rows, spans.get());
  fixed_spans(columns, spans.get() + rows.out);
  body(Windows{rows.in, columns.in, rows.out, columns.out, rows.dilation, columns.dilation, spans.get(),
               spans.get() + rows.out});
}
template <class F>
FASTNN_INLINE void with_adaptive_windows(const Array& x, const Array& y, const F& body) {
  const int64_t h = x.shape[x.ndim - 2], w = x.shape[x.ndim - 1], oh = y.shape[y.ndim - 2], ow = y.shape[y.ndim - 1];
  const Scratch<Span> spans(oh + ow);
  adaptive_spans(h, oh, spans.get());
  adaptive_spans(w, ow, spans.get() + oh);
  body(Windows{h, w, oh, ow, 1, 1, spans.get(), spans.get() + oh});
}

// Whether a block of planes, with two results for each output, stays in L2 beside what streams by.
template <class T>
FASTNN_INLINE bool fits_lanes(int64_t planes, int64_t in, int64_t out) {
  return 2 * planes >= W<T> && in < 8192 && (in + 2 * out) * FASTNN_VECTOR_BYTES <= 384 << 10;
}

// Elements as lanes and back: numbers as they are; integers in the bits, kept as bytes or in 64 bits.
template <class T>
FASTNN_INLINE Vec<T> load_lanes(const T* p, int64_t n) {
  return load(p, n);
}
template <class T>
FASTNN_INLINE Vec<T> load_lanes(const uint8_t* p, int64_t n) {
  return (Vec<T>)load_bytes<T>(p, n);
}
template <class T>
FASTNN_INLINE void store_lanes(T* p, Vec<T> v, int64_t n) {
  store(p, v, n);
}
template <class T>
FASTNN_INLINE void store_lanes(uint8_t* p, Vec<T> v, int64_t n) {
  store_bytes<T>(p, (Bits<T>)v, n);
}
template <class T>
FASTNN_INLINE void store_lanes(int64_t* p, Vec<T> v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = ((Bits<T>)v)[i];
}

// to[element][plane] = planes[plane][element], for `count` planes of `size` elements; the last one stands for those
// that are missing. Returns a sum over all elements: a NaN among them shows in it. Both ways are functions of their
// own: inlined, they would be most of each kernel's code.
template <class T, class E>
__attribute__((noinline)) T planes_to_lanes(const E* planes, int64_t size, int64_t count, T* to) {
  const E* plane[W<T>];
  for (int64_t l = 0; l < W<T>; ++l) plane[l] = planes + least(l, count - 1) * size;
  Vec<T> sum{};
  column_vectors<T>(0, size, false, [&](int64_t p, int64_t n) __attribute__((always_inline)) {
    Vec<T> v[W<T>];
#pragma GCC unroll 16
    for (int l = 0; l < W<T>; ++l) v[l] = load_lanes<T>(plane[l] + p, n);
    transpose<T>(v);
    T* const rows = to + p * W<T>;
    if (n == W<T>) {
#pragma GCC unroll 16
      for (int i = 0; i < W<T>; ++i) store(rows + i * W<T>, v[i]), sum += v[i];
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < W<T>; ++i)
        if (i < n) store(rows + i * W<T>, v[i]), sum += v[i];
    }
  });
  return sum_lanes<T>(sum);
}
template <class T, class E>
__attribute__((noinline)) void lanes_to_planes(const T* from, int64_t size, int64_t count, E* planes) {
  column_vectors<T>(0, size, false, [&](int64_t p, int64_t n) __attribute__((always_inline)) {
    Vec<T> v[W<T>];
#pragma GCC unroll 16
    for (int i = 0; i < W<T>; ++i) v[i] = i < n ? load(from + (p + i) * W<T>) : Vec<T>{};
    transpose<T>(v);
#pragma GCC unroll 16
    for (int l = 0; l < W<T>; ++l)
      if (l < count) store_lanes<T>(planes + l * size + p, v[l], n);
  });
}

// Calls body(first, count) for each block of at most W planes, which take `work` elements each.
template <class T, class F>
FASTNN_INLINE void each_block(int64_t planes, int64_t work, const F& body) {
  parallel_for(divide_up(planes, W<T>), most(1, GRAIN / (W<T> * work)), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) body(b * W<T>, least(W<T>, planes - b * W<T>));
  });
}

// y = one number of each of `planes` planes, W at once: lanes(p) is plane p's in W parts, which combine(a, b) joins.
template <class T, class L, class C, class F>
FASTNN_INLINE void reduce_planes(int64_t planes, T* y, const L& lanes, const C& combine, const F& finish) {
  Vec<T> v[W<T>];
#pragma GCC unroll 16
  for (int64_t l = 0; l < W<T>; ++l) v[l] = lanes(least(l, planes - 1));
  // Lane bit by lane bit: of two vectors one, which has both.
#pragma GCC unroll 4
  for (int half = W<T> / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int l = 0; l < half; ++l) {
      exchange_lanes<T>(v[l], v[l + half], half);
      v[l] = combine(v[l], v[l + half]);
    }
  store(y, finish(v[0]), planes);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
