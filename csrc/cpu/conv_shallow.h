// The plan `shallow`: forward and dw of 3x3 with stride and dilation 1 for at most four channels (a network's first
// layer), by Winograd's F(2x2, 3x3) as in conv_winograd.h. There channels are lanes and products at a point are a GEMM;
// with so few channels there is none: here tiles are lanes, and what is transformed never leaves registers and L1.
//   forward   y  = A^T m A,  m[p] = sum over c     U[k][c][p] V[c][p][tile]     16 C multiplications for 4 outputs
//   dw        dw = G^T s G,  s[p] = sum over tiles D[k][p][tile] V[c][p][tile]  of a channel, in place of 36 C
// U = G w G^T, V = B^T x B, D = A dy A^T. A vector holds neighbouring tiles of a row: even and odd columns are two
// vectors. Work is cut into bands of rows whose V fits L1; every k passes over it.
//
// NaN and infinities: as under conv_winograd.h.
#pragma once
#include "conv_direct.h"
#include "conv_winograd_axis.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int SHALLOW_POINTS = 16;  // 4 x 4, Taps3's on both axes
constexpr int64_t SHALLOW_CHANNELS = 4;
constexpr int64_t SHALLOW_BAND = 24 << 10;    // bytes of V of a band
constexpr int64_t SHALLOW_COLUMNS = 1 << 13;  // of a map, at most: bounds the V of one row
constexpr int64_t SHALLOW_SUMS = 1 << 20;     // bytes

// For dw a thread's sums, a vector at each point of every pair of channels, must stay in L2.
FASTNN_INLINE bool shallow_possible(const Geometry& g, bool weight) {
  return (!weight || g.Kg * g.Cg * SHALLOW_POINTS * FASTNN_VECTOR_BYTES <= SHALLOW_SUMS) && g.R == 3 && g.S == 3 &&
         unit_stride(g) && g.dh == 1 && g.dw == 1 && g.Cg >= 1 && g.Cg <= SHALLOW_CHANNELS && g.Wo <= SHALLOW_COLUMNS;
}

// A map is written and read in runs of a band's rows: too short for the hardware to see the next coming. So 2 W
// elements of it are fetched into L2 long before their turn; beyond the array that does nothing.
constexpr int64_t SHALLOW_AHEAD = 8;  // maps of dy
template <class T>
FASTNN_INLINE void fetch_pairs(const T* p) {
  for (int64_t i = 0; i < 2 * W<T>; i += LINE<T>) __builtin_prefetch(p + i, 0, 2);
}

// A vector of tiles in a map: `rows` x `columns` elements from `at` on, 2 x 2 W but at the map's edges.
struct ShallowPlace {
  int64_t at, rows, columns;
};

// Bands of `height` rows of tiles, and what is made of x for one: V[vector of tiles][point][channel][lane].
template <class T, int C>
struct Shallow {
  static constexpr int VECTORS = SHALLOW_POINTS * C;  // of V, for a vector of tiles
  const Geometry& g;
  int64_t rows, across;  // of tiles in a map, vectors of tiles in a row
  int64_t height, bands;

  int64_t last;  // first tile of the last vector of a row

  // At least `parts` bands, if there are so many rows. `overlap` lets the last vector of a row begin early enough to
  // end with the row, if it can: then no store is masked.
  FASTNN_INLINE Shallow(const Geometry& g_, int64_t parts, bool overlap) : g(g_), rows(divide_up(g.Ho, 2)) {
    across = divide_up(g.Wo, 2 * W<T>);
    last = overlap && g.Wo % 2 == 0 && g.Wo >= 2 * W<T> ? g.Wo / 2 - W<T> : (across - 1) * W<T>;
    bands = divide_up(rows, most(1, SHALLOW_BAND / (VECTORS * FASTNN_VECTOR_BYTES * across)));
    bands = most(bands, least(rows, parts));
    height = divide_up(rows, bands);
    bands = divide_up(rows, height);
  }
  FASTNN_INLINE int64_t units() const { return g.N * bands; }
  FASTNN_INLINE int64_t vectors() const { return height * across; }  // of the largest band

  struct Band {
    int64_t image, row, vectors;
  };
  // The places of its vectors too.
  FASTNN_INLINE Band band(int64_t unit, ShallowPlace* places) const {
    const int64_t row = unit % bands * height, held = least(height, rows - row);
    for (int64_t i = 2 * row; i < 2 * (row + held); i += 2)
      for (int64_t v = 0; v < across; ++v) {
        const int64_t j = 2 * least(v * W<T>, last);
        *places++ = {i * g.Wo + j, least(2, g.Ho - i), least(2 * W<T>, g.Wo - j)};
      }
    return {unit / bands, row, held * across};
  }

  // Elements of scratch for `transform`: a channel's padded rows, and those transformed by columns, for each point of
  // them [point][row][tile].
  FASTNN_INLINE int64_t padded() const { return (2 * height + 2) * (2 * across * W<T> + 2) + SLACK<T>; }
  FASTNN_INLINE int64_t half() const { return (2 * height + 2) * across * W<T>; }
  FASTNN_INLINE int64_t scratch() const { return padded() + 4 * half(); }

  // V of a band. Columns first: every row serves two rows of tiles. Lanes beyond the map are finite.
  FASTNN_INLINE void transform(const Band& band, const T* x, T* v, T* scratch) const {
    T *padded_rows = scratch, *points = scratch + padded();
    const int64_t tiles = across * W<T>, width = 2 * tiles + 2, count = 2 * band.vectors / across + 2;
    const Range range = inside(divide_up(g.Wo, 2) * 2 + 2, 1, -g.pl, g.W);
    for (int64_t c = 0; c < C; ++c, x += g.H * g.W) {
      for (int64_t r = 0; r < count; ++r) {
        const int64_t h = 2 * band.row + r - g.pt;
        if (h >= 0 && h < g.H)
          copy_row(padded_rows + r * width, x + h * g.W, width, 1, -g.pl, range);
        else
          zero_row(padded_rows + r * width, width);
      }
      for (int64_t r = 0; r < count; ++r)
        for (int64_t j = 0; j < tiles; j += W<T>) {
          const T* from = padded_rows + r * width + 2 * j;
          const Pairs<T> a = load_pairs(from, W<T>), b = load_pairs(from + 2, W<T>);
          const Vec<T> row[] = {a.even, a.odd, b.even, b.odd};
          const auto patch = [&](int s) { return row[s]; };
#pragma GCC unroll 4
          for (int q = 0; q < 4; ++q) store(points + q * half() + r * tiles + j, Taps3::patch(q, patch));
        }
      for (int64_t i = 0; i < band.vectors; ++i) {
        T* to = v + (i * VECTORS + c) * W<T>;
#pragma GCC unroll 4
        for (int q = 0; q < 4; ++q) {
          const T* from = points + q * half() + i / across * 2 * tiles + least(i % across * W<T>, last);
          const Vec<T> column[] = {load(from), load(from + tiles), load(from + 2 * tiles), load(from + 3 * tiles)};
          const auto patch = [&](int r) { return column[r]; };
#pragma GCC unroll 4
          for (int p = 0; p < 4; ++p) store(to + (4 * p + q) * C * W<T>, Taps3::patch(p, patch));
        }
      }
    }
  }
};

// Channels out that share the loads of V: with y and the products at two points, 6 accumulators each.
constexpr int SHALLOW_OUTPUTS = FASTNN_VECTOR_BYTES == 64 ? 4 : 2;

// U[block of k][point][channel][k].
template <class T, int C>
void shallow_weights(const T* w, int64_t K, T* u) {
  constexpr int KB = SHALLOW_OUTPUTS;
  for (int64_t k = 0; k < divide_up(K, KB) * KB; ++k)
    for (int c = 0; c < C; ++c) {
      T* to = u + k / KB * KB * SHALLOW_POINTS * C + c * KB + k % KB;
      const T* from = w + (k * C + c) * 9;
      for (int p = 0; p < 4; ++p) {
        T t[3] = {};
        if (k < K)
          for (int s = 0; s < 3; ++s) t[s] = Taps3::weight(p, [&](int r) { return from[3 * r + s]; });
        for (int q = 0; q < 4; ++q) to[(4 * p + q) * C * KB] = Taps3::weight(q, [&](int s) { return t[s]; });
      }
    }
}

// y[k][i][j] of a vector of tiles.
template <class T, int C, int KB>
FASTNN_INLINE void shallow_outputs(const T* u, const T* v, Vec<T> (&y)[KB][2][2]) {
  // a[k] += the products of point p, b[k] += those of point q: in turns, so that no sum waits for itself.
  const auto add = [&](int p, Vec<T>(&a)[KB], int q, Vec<T>(&b)[KB]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const Vec<T> x = keep(load(v + (p * C + c) * W<T>)), z = keep(load(v + (q * C + c) * W<T>));
#pragma GCC unroll 4
      for (int k = 0; k < KB; ++k) a[k] += u[(p * C + c) * KB + k] * x;
#pragma GCC unroll 4
      for (int k = 0; k < KB; ++k) b[k] += u[(q * C + c) * KB + k] * z;
    }
  };
#pragma GCC unroll 4
  for (int p = 0; p < 4; ++p) {
    Vec<T> m[2][KB] = {}, t[2][KB];
    add(4 * p + 1, m[0], 4 * p + 2, m[1]);
#pragma GCC unroll 4
    for (int k = 0; k < KB; ++k) {
      t[0][k] = m[0][k] + m[1][k];
      t[1][k] = m[0][k] - m[1][k];
    }
    add(4 * p, t[0], 4 * p + 3, t[1]);
#pragma GCC unroll 4
    for (int k = 0; k < KB; ++k)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        if (p == 0) y[k][0][j] = t[j][k];
        if (p == 1) y[k][0][j] += t[j][k], y[k][1][j] = t[j][k];
        if (p == 2) y[k][0][j] += t[j][k], y[k][1][j] -= t[j][k];
        if (p == 3) y[k][1][j] += t[j][k];
      }
  }
}

// The first n elements of a[0], b[0], a[1], b[1], ...
template <class T>
FASTNN_INLINE void store_woven(T* p, Vec<T> a, Vec<T> b, int64_t n) {
  store(p, zip_low<T>(a, b, Lanes<T>{}), least(n, W<T>));
  if (n > W<T>) store(p + W<T>, zip_high<T>(a, b, Lanes<T>{}), n - W<T>);
}

// At `place` of `held` maps, P apart, whose rows are `row` apart: y + bias, relu.
template <class T, int KB>
FASTNN_INLINE void shallow_finish(const Vec<T> (&y)[KB][2][2], const T* bias, bool relu, T* to,
                                  const ShallowPlace& place, int64_t P, int64_t row, int64_t held) {
#pragma GCC unroll 4
  for (int k = 0; k < KB; ++k) {
    if (k >= held) break;
    const Vec<T> b = bias ? set<T>(bias[k]) : Vec<T>{};
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) {
      if (r >= place.rows) break;
      const Vec<T> even = y[k][r][0] + b, odd = y[k][r][1] + b;
      store_woven(to + k * P + place.at + r * row, relu ? relu_of(even) : even, relu ? relu_of(odd) : odd,
                  place.columns);
    }
  }
}

template <class T, int C>
void forward_shallow_of(const Geometry& g, const T* x, const T* w, const T* bias, bool relu, T* y) {
  constexpr int KB = SHALLOW_OUTPUTS;
  const Shallow<T, C> shallow(g, parts_for(g.N * g.groups), true);
  const int64_t blocks = divide_up(g.Kg, KB), block = SHALLOW_POINTS * C * KB;
  Scratch<T> u(g.groups * blocks * block);
  for (int64_t group = 0; group < g.groups; ++group)
    shallow_weights<T, C>(w + group * g.Kg * C * 9, g.Kg, u.get() + group * blocks * block);
  parallel_for(shallow.units() * g.groups, 1, [&](int64_t unit, int64_t) {
    const int64_t group = unit % g.groups;
    Scratch<T> v(shallow.vectors() * SHALLOW_POINTS * C * W<T>), scratch(shallow.scratch());
    Scratch<ShallowPlace> places(shallow.vectors());
    const auto band = shallow.band(unit / g.groups, places.get());
    shallow.transform(band, x + (band.image * g.C + group * C) * g.H * g.W, v.get(), scratch.get());
    for (int64_t k = 0; k < g.Kg; k += KB) {
      const T* from = u.get() + group * blocks * block + k * SHALLOW_POINTS * C;
      const T* b = bias ? bias + group * g.Kg + k : nullptr;
      T* to = y + (band.image * g.K + group * g.Kg + k) * g.P;
      for (int64_t t = 0; t < band.vectors; ++t) {
        const ShallowPlace place = places[t];
        for (int64_t i = KB; i < 2 * KB; ++i)
          for (int64_t r = 0; r < 2; ++r) fetch_pairs(to + i * g.P + place.at + r * g.Wo);
        Vec<T> sums[KB][2][2];
        shallow_outputs<T, C, KB>(from, v.get() + t * SHALLOW_POINTS * C * W<T>, sums);
        if (k + KB <= g.Kg && place.rows == 2 && place.columns == 2 * W<T>)  // all that may vary is known
          shallow_finish<T, KB>(sums, b, relu, to, {place.at, 2, 2 * W<T>}, g.P, g.Wo, KB);
        else
          shallow_finish<T, KB>(sums, b, relu, to, place, g.P, g.Wo, g.Kg - k);
      }
    }
  });
}

template <class T>
void forward_shallow(const Geometry& g, const T* x, const T* w, const T* bias, bool relu, T* y) {
  switch (g.Cg) {
    case 1: return forward_shallow_of<T, 1>(g, x, w, bias, relu, y);
    case 2: return forward_shallow_of<T, 2>(g, x, w, bias, relu, y);
    case 3: return forward_shallow_of<T, 3>(g, x, w, bias, relu, y);
    default: return forward_shallow_of<T, 4>(g, x, w, bias, relu, y);
  }
}

// Channels of dy at a time: the sums at four points of all C channels stay in registers.
template <int C>
constexpr int SHALLOW_GRADIENTS = ACCUMULATORS / (4 * C) > 1 ? ACCUMULATORS / (4 * C) : 1;

// sums[k][c][q] += D[k][p, q] V[c][p, q] over `count` vectors of tiles, of each d[k][row][column] of dy.
template <class T, int C, int KB, int P>
FASTNN_INLINE void shallow_sums(const T* d, const T* v, int64_t count, T* sums) {
  Vec<T> acc[KB][C][4];
#pragma GCC unroll 24
  for (int i = 0; i < KB * C * 4; ++i) acc[i / (4 * C)][i / 4 % C][i % 4] = load(sums + i * W<T>);
  for (int64_t t = 0; t < count; ++t, d += KB * 4 * W<T>, v += SHALLOW_POINTS * C * W<T>) {
    Vec<T> even[KB], odd[KB];
#pragma GCC unroll 6
    for (int k = 0; k < KB; ++k) {
      const T *a = d + 4 * k * W<T>, *b = a + 2 * W<T>;
      even[k] = gradient(P, load(a), load(b));
      odd[k] = gradient(P, load(a + W<T>), load(b + W<T>));
    }
    const auto add = [&](int q, const Vec<T>(&point)[KB]) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const Vec<T> x = keep(load(v + ((4 * P + q) * C + c) * W<T>));
#pragma GCC unroll 6
        for (int k = 0; k < KB; ++k) acc[k][c][q] += point[k] * x;
      }
    };
    add(0, even);
    add(3, odd);
#pragma GCC unroll 6
    for (int k = 0; k < KB; ++k) {
      const Vec<T> sum = even[k] + odd[k];
      odd[k] = even[k] - odd[k];
      even[k] = sum;
    }
    add(1, even);
    add(2, odd);
  }
#pragma GCC unroll 24
  for (int i = 0; i < KB * C * 4; ++i) store(sums + i * W<T>, acc[i / (4 * C)][i / 4 % C][i % 4]);
}

// The lanes of S[block of k][p][k][c][q] added up, in place, and the taps made of them: dw[k][c][9].
template <class T, int C>
void shallow_taps(T* sums, int64_t K, T* dw) {
  constexpr int KB = SHALLOW_GRADIENTS<C>;
  for (int64_t i = 0; i < divide_up(K, KB) * KB * SHALLOW_POINTS * C; i += W<T>) {
    Vec<T> v[W<T>];
#pragma GCC unroll 16
    for (int j = 0; j < W<T>; ++j) v[j] = load(sums + (i + j) * W<T>);
    store(sums + i, sum_lanes_of_each<T>(v));
  }
  for (int64_t k = 0; k < K; ++k)
    for (int64_t c = 0; c < C; ++c, dw += 9) {
      T t[3][4];
      for (int q = 0; q < 4; ++q)
        for (int r = 0; r < 3; ++r)
          t[r][q] = Taps3::tap(r, [&](int p) { return sums[(((k / KB * 4 + p) * KB + k % KB) * C + c) * 4 + q]; });
      for (int r = 0; r < 3; ++r)
        for (int q = 0; q < 3; ++q) dw[3 * r + q] = Taps3::tap(q, [&](int p) { return t[r][p]; });
    }
}

// The gradients at a place of a map, zero beyond it: to[row][even or odd][lane].
template <class T>
FASTNN_INLINE void shallow_gradients(const T* map, const ShallowPlace& place, int64_t row, T* to) {
#pragma GCC unroll 2
  for (int r = 0; r < 2; ++r, to += 2 * W<T>) {
    const T* from = map + place.at + r * row;
    const int64_t n = r < place.rows ? place.columns : 0;
    const Vec<T> a = load(from, least(n, W<T>)), b = load(from + W<T>, most(0, n - W<T>));
    store(to, every_second<0, T>(a, b, Lanes<T>{}));
    store(to + W<T>, every_second<1, T>(a, b, Lanes<T>{}));
  }
}

// Bands are dealt to a fixed number of partial sums, which are added in order.
template <class T, int C>
void backward_weight_shallow_of(const Geometry& g, const T* dy, const T* x, T* dw) {
  constexpr int KB = SHALLOW_GRADIENTS<C>;
  const Shallow<T, C> shallow(g, 1, false);
  const int64_t total = g.K * g.T, parts = least(shallow.units(), UNITS), blocks = divide_up(g.Kg, KB);
  const int64_t block = KB * SHALLOW_POINTS * C * W<T>;
  Scratch<T> partial(parts > 1 ? parts * total : 0);
  parallel_for(parts * g.groups, 1, [&](int64_t job, int64_t) {
    const int64_t part = job / g.groups, group = job % g.groups;
    Scratch<T> v(shallow.vectors() * SHALLOW_POINTS * C * W<T>), scratch(shallow.scratch());
    Scratch<T> d(shallow.vectors() * KB * 4 * W<T>), sums(blocks * block);
    Scratch<ShallowPlace> places(shallow.vectors());
    zero_row(sums.get(), blocks * block);
    zero_row(d.get(), shallow.vectors() * KB * 4 * W<T>);
    for (int64_t unit = part * shallow.units() / parts; unit < (part + 1) * shallow.units() / parts; ++unit) {
      const auto band = shallow.band(unit, places.get());
      shallow.transform(band, x + (band.image * g.C + group * C) * g.H * g.W, v.get(), scratch.get());
      for (int64_t k = 0; k < g.Kg; k += KB) {
        const T* maps = dy + (band.image * g.K + group * g.Kg + k) * g.P;
        for (int64_t t = 0; t < band.vectors; ++t)
          for (int64_t i = 0; i < least(KB, g.Kg - k); ++i) {
            const T* map = maps + i * g.P;
            T* to = d.get() + (t * KB + i) * 4 * W<T>;
            for (int64_t r = 0; r < 2; ++r) fetch_pairs(map + SHALLOW_AHEAD * g.P + places[t].at + r * g.Wo);
            if (places[t].rows == 2 && places[t].columns == 2 * W<T>)
              shallow_gradients(map, {places[t].at, 2, 2 * W<T>}, g.Wo, to);
            else
              shallow_gradients(map, places[t], g.Wo, to);
          }
        T* to = sums.get() + k / KB * block;
        shallow_sums<T, C, KB, 0>(d.get(), v.get(), band.vectors, to);
        shallow_sums<T, C, KB, 1>(d.get(), v.get(), band.vectors, to + block / 4);
        shallow_sums<T, C, KB, 2>(d.get(), v.get(), band.vectors, to + block / 2);
        shallow_sums<T, C, KB, 3>(d.get(), v.get(), band.vectors, to + block / 4 * 3);
      }
    }
    shallow_taps<T, C>(sums.get(), g.Kg, (parts > 1 ? partial.get() + part * total : dw) + group * g.Kg * g.T);
  });
  add_parts(partial.get(), parts, total, dw);
}

template <class T>
void backward_weight_shallow(const Geometry& g, const T* dy, const T* x, T* dw) {
  switch (g.Cg) {
    case 1: return backward_weight_shallow_of<T, 1>(g, dy, x, dw);
    case 2: return backward_weight_shallow_of<T, 2>(g, dy, x, dw);
    case 3: return backward_weight_shallow_of<T, 3>(g, dy, x, dw);
    default: return backward_weight_shallow_of<T, 4>(g, dy, x, dw);
  }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
