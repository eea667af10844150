// The parts of Winograd's method that know of memory: how maps are cut into tiles of 2x2 outputs, how channels get into
// lanes and out of them, and the five transforms of a tile, made of the formulas of one axis (conv_winograd_axis.h).
// Lanes are channels, so that every transform is dense whatever the size of the maps. conv_winograd.h makes the three
// passes of them.
#pragma once
#include "conv_tile.h"
#include "conv_winograd_axis.h"
#include "transpose.h"

namespace fastnn {
namespace FASTNN_ISA {

// Up to an odd number of cache lines: what lies at 16 or 49 points, or in neighbouring rows, then never meets in one
// set of L1.
template <class T>
FASTNN_INLINE int64_t spread(int64_t elements) {
  constexpr int64_t line = 64 / int64_t(sizeof(T));
  return (divide_up(elements, line) | 1) * line;
}

// Tiles are 2x2 outputs, in rows of `columns`. A strip is a row of tiles, or where rows are long, one of `pieces` of
// it; strips are numbered through all images, and every strip has `width` places.
struct Tiles {
  int64_t rows, columns, width, pieces, strips;
  FASTNN_INLINE Tiles(const Geometry& g, int64_t widest) : rows(divide_up(g.Ho, 2)), columns(divide_up(g.Wo, 2)) {
    width = divide_up(columns, divide_up(columns, widest));
    pieces = divide_up(columns, width);
    strips = g.N * rows * pieces;
  }

  // rows x width tiles of an image, from tile (row, column); the first is number `at`. The last piece of a row may
  // reach beyond the map.
  struct Band {
    int64_t image, row, rows, column, at;
  };
  // Calls body(band) for the strips [begin, end), those of one image together.
  template <class F>
  FASTNN_INLINE void each_band(int64_t begin, int64_t end, const F& body) const {
    for (int64_t strip = begin; strip < end;) {
      const int64_t row = strip / pieces % rows, column = strip % pieces * width;
      const int64_t count = pieces > 1 ? 1 : least(end - strip, rows - row);
      body(Band{strip / pieces / rows, row, count, column, (strip - begin) * width});
      strip += count;
    }
  }
};

// to[p * W + l] = from[l * step + p] for l < lanes, 0 in the other lanes: channels, `step` apart, become lanes.
template <class T>
FASTNN_INLINE void into_lanes(const T* from, int64_t step, int64_t lanes, int64_t length, T* to) {
  for (int64_t p = 0; p < length; p += W<T>) {
    if (p + W<T> > length && length >= W<T>) p = length - W<T>;  // the last block overlaps the one before
    const int64_t count = least(W<T>, length);
    Vec<T> v[W<T>];
#pragma GCC unroll 16
    for (int l = 0; l < W<T>; ++l) v[l] = l < lanes ? load(from + l * step + p, count) : Vec<T>{};
    transpose<T>(v);
#pragma GCC unroll 16
    for (int s = 0; s < W<T>; ++s)
      if (s < count) store(to + (p + s) * W<T>, v[s]);
  }
}
// to[l * step + p] = from[p * W + l] for l < lanes.
template <class T>
FASTNN_INLINE void from_lanes(const T* from, int64_t length, T* to, int64_t step, int64_t lanes) {
  for (int64_t p = 0; p < length; p += W<T>) {
    if (p + W<T> > length && length >= W<T>) p = length - W<T>;
    const int64_t count = least(W<T>, length);
    Vec<T> v[W<T>];
#pragma GCC unroll 16
    for (int s = 0; s < W<T>; ++s) v[s] = s < count ? load(from + (p + s) * W<T>) : Vec<T>{};
    transpose<T>(v);
#pragma GCC unroll 16
    for (int l = 0; l < W<T>; ++l)
      if (l < lanes) store(to + l * step + p, v[l], count);
  }
}

// Rows [h, h + rows) and columns [w, w + columns) of H x W maps, `lanes` of them, zero outside: to[row][column][lane].
template <class T>
FASTNN_INLINE void window_into_lanes(const T* maps, int64_t lanes, int64_t H, int64_t width, int64_t h, int64_t rows,
                                     int64_t w, int64_t columns, T* to) {
  const Range range = inside(columns, 1, w, width);
  for (int64_t r = 0; r < rows; ++r, to += columns * W<T>) {
    const bool read = h + r >= 0 && h + r < H;
    const int64_t begin = read ? range.begin : 0, end = read ? range.end : 0;
    for (int64_t p = 0; p < begin; ++p) store(to + p * W<T>, Vec<T>{});
    if (begin < end) into_lanes(maps + (h + r) * width + w + begin, H * width, lanes, end - begin, to + begin * W<T>);
    for (int64_t p = end; p < columns; ++p) store(to + p * W<T>, Vec<T>{});
  }
}

// B^T x B of a patch whose rows are `row` apart; point p goes to to[p * plane].
template <class Axis>
struct PatchTransform {
  static constexpr int SIZE = Axis::PATCH;
  template <class T>
  static FASTNN_INLINE void apply(const T* x, int64_t row, T* to, int64_t plane) {
#pragma GCC unroll 8
    for (int p = 0; p < Axis::POINTS; ++p) {
      Vec<T> t[SIZE];
#pragma GCC unroll 8
      for (int s = 0; s < SIZE; ++s) t[s] = Axis::patch(p, [&](int r) { return load(x + r * row + s * W<T>); });
#pragma GCC unroll 8
      for (int q = 0; q < Axis::POINTS; ++q)
        store(to + (Axis::POINTS * p + q) * plane, Axis::patch(q, [&](int s) { return t[s]; }));
    }
  }
};

// A dy A^T of 2x2 gradients: the 4 x 4 values that differ.
struct GradientTransform {
  static constexpr int SIZE = 2;
  template <class T>
  static FASTNN_INLINE void apply(const T* dy, int64_t row, T* to, int64_t plane) {
#pragma GCC unroll 4
    for (int p = 0; p < GRADIENTS; ++p) {
      const Vec<T> a = gradient(p, load(dy), load(dy + row));
      const Vec<T> b = gradient(p, load(dy + W<T>), load(dy + row + W<T>));
#pragma GCC unroll 4
      for (int q = 0; q < GRADIENTS; ++q) store(to + (GRADIENTS * p + q) * plane, gradient(q, a, b));
    }
  }
};

// A^T m A of a tile's products; y[i][j] of the tile.
template <class Axis, class T>
FASTNN_INLINE void output_transform(const T* m, int64_t plane, Vec<T> (&y)[2][2]) {
  constexpr int N = Axis::POINTS;
  Vec<T> t[2][N];
#pragma GCC unroll 8
  for (int s = 0; s < N; ++s)
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) t[i][s] = Axis::output(i, [&](int r) { return load(m + (N * r + s) * plane); });
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) y[i][j] = Axis::output(j, [&](int s) { return t[i][s]; });
}

// G w G^T of the taps, tap t of which lies at w[t * step].
template <class Axis, class T>
FASTNN_INLINE void weight_transform(const T* w, int64_t step, T* to, int64_t plane) {
#pragma GCC unroll 8
  for (int p = 0; p < Axis::POINTS; ++p) {
    Vec<T> t[Axis::TAPS];
#pragma GCC unroll 8
    for (int s = 0; s < Axis::TAPS; ++s)
      t[s] = Axis::weight(p, [&](int r) { return load(w + (Axis::TAPS * r + s) * step); });
#pragma GCC unroll 8
    for (int q = 0; q < Axis::POINTS; ++q)
      store(to + (Axis::POINTS * p + q) * plane, Axis::weight(q, [&](int s) { return t[s]; }));
  }
}

// G^T s G of the sums at all points: the taps of dw, to[t * W].
template <class Axis, class T>
FASTNN_INLINE void tap_transform(const T* s, int64_t plane, T* to) {
  constexpr int N = Axis::POINTS;
#pragma GCC unroll 8
  for (int p = 0; p < Axis::TAPS; ++p) {
    Vec<T> t[N];
#pragma GCC unroll 8
    for (int q = 0; q < N; ++q) t[q] = Axis::tap(p, [&](int r) { return load(s + (N * r + q) * plane); });
#pragma GCC unroll 8
    for (int q = 0; q < Axis::TAPS; ++q)
      store(to + (Axis::TAPS * p + q) * W<T>, Axis::tap(q, [&](int r) { return t[r]; }));
  }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
