// The parts of Winograd's F(2x2, 3x3): how maps are cut into tiles, how channels get into lanes and out of them, and
// the five transforms of a tile. Lanes are channels, so that every transform is dense whatever the size of the maps.
// conv_winograd.h makes the three passes of them.
#pragma once
#include "conv_tile.h"
#include "transpose.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int POINTS = 16;  // 4 x 4

// Up to an odd number of cache lines: what lies at 16 points, or in neighbouring rows, then never meets in one set of
// L1.
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

// B^T x B of a 4x4 patch whose rows are `row` apart; point p goes to to[p * plane].
template <class V>
FASTNN_INLINE V patch_point(int p, V a, V b, V c, V d) {
  return p == 0 ? a - c : p == 1 ? b + c : p == 2 ? c - b : b - d;
}
struct PatchTransform {
  static constexpr int SIZE = 4;
  template <class T>
  static FASTNN_INLINE void apply(const T* x, int64_t row, T* to, int64_t plane) {
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      Vec<T> t[4];
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        const T* at = x + s * W<T>;
        t[s] = patch_point(p, load(at), load(at + row), load(at + 2 * row), load(at + 3 * row));
      }
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) store(to + (4 * p + q) * plane, patch_point(q, t[0], t[1], t[2], t[3]));
    }
  }
};

// A dy A^T of 2x2 gradients.
template <class V>
FASTNN_INLINE V gradient_point(int p, V a, V b) {
  return p == 0 ? a : p == 1 ? a + b : p == 2 ? a - b : -b;
}
struct GradientTransform {
  static constexpr int SIZE = 2;
  template <class T>
  static FASTNN_INLINE void apply(const T* dy, int64_t row, T* to, int64_t plane) {
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      const Vec<T> a = gradient_point(p, load(dy), load(dy + row));
      const Vec<T> b = gradient_point(p, load(dy + W<T>), load(dy + row + W<T>));
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) store(to + (4 * p + q) * plane, gradient_point(q, a, b));
    }
  }
};

// A^T m A of 16 products; y[i][j] of the tile.
template <class V>
FASTNN_INLINE V output(int i, V a, V b, V c, V d) {
  return i == 0 ? a + (b + c) : (b - c) - d;
}
template <class T>
FASTNN_INLINE void output_transform(const T* m, int64_t plane, Vec<T> (&y)[2][2]) {
  Vec<T> t[2][4];
#pragma GCC unroll 4
  for (int s = 0; s < 4; ++s) {
    const T* at = m + s * plane;
    const Vec<T> a = load(at), b = load(at + 4 * plane), c = load(at + 8 * plane), d = load(at + 12 * plane);
    t[0][s] = output(0, a, b, c, d);
    t[1][s] = output(1, a, b, c, d);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) y[i][j] = output(j, t[i][0], t[i][1], t[i][2], t[i][3]);
}

// G w G^T of nine taps, tap t of which lies at w[t * step].
template <class V>
FASTNN_INLINE V weight_point(int p, V a, V b, V c) {
  return p == 0 ? a : p == 1 ? (a + c + b) / 2 : p == 2 ? (a + c - b) / 2 : c;
}
template <class T>
FASTNN_INLINE void weight_transform(const T* w, int64_t step, T* to, int64_t plane) {
#pragma GCC unroll 4
  for (int p = 0; p < 4; ++p) {
    Vec<T> t[3];
#pragma GCC unroll 3
    for (int s = 0; s < 3; ++s)
      t[s] = weight_point(p, load(w + s * step), load(w + (3 + s) * step), load(w + (6 + s) * step));
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) store(to + (4 * p + q) * plane, weight_point(q, t[0], t[1], t[2]));
  }
}

// G^T s G of 16 sums: the nine taps of dw, to[t * W].
template <class V>
FASTNN_INLINE V tap(int t, V a, V b, V c, V d) {
  return t == 0 ? a + (b + c) / 2 : t == 1 ? (b - c) / 2 : (b + c) / 2 + d;
}
template <class T>
FASTNN_INLINE void tap_transform(const T* s, int64_t plane, T* to) {
  Vec<T> t[3][4];
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    const T* at = s + q * plane;
    const Vec<T> a = load(at), b = load(at + 4 * plane), c = load(at + 8 * plane), d = load(at + 12 * plane);
#pragma GCC unroll 3
    for (int p = 0; p < 3; ++p) t[p][q] = tap(p, a, b, c, d);
  }
#pragma GCC unroll 3
  for (int p = 0; p < 3; ++p)
#pragma GCC unroll 3
    for (int q = 0; q < 3; ++q) store(to + (3 * p + q) * W<T>, tap(q, t[p][0], t[p][1], t[p][2], t[p][3]));
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
