// The plan `winograd`: 3x3 and 5x5 with stride and dilation 1 by Winograd's method (Lavin & Gray, 2015, arXiv
// 1509.09308): patches, weights and gradients are transformed by additions, so that for a tile of 2x2 outputs, 16
// multiplications do the work of 36 (3x3), or 49 that of 100 (5x5; conv_winograd_axis.h has the algebra). At each of
// these points one product of matrices is left (tiles run through the batch):
//   forward, dx   y  = A^T [(G w G^T) (B^T x B)] A      M[tile][k] = sum over c     V[tile][c] U[c][k]
//   dw            dw = G^T [(A dy A^T) (B^T x B)] G     S[k][c]    = sum over tiles D[tile][k] V[tile][c]
// The transforms write what the micro-kernel reads in place: nothing is packed. Every element is summed in an order
// that depends on the layer alone (dw's: on the batch too).
//
// A NaN reaches the outputs that see it, and no others (in dw: all taps of its channels). An infinity becomes NaN where
// the sums of a transform meet +inf and -inf.
#pragma once
#include "conv_winograd_transforms.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t CHUNK_TILES = TILE_ROWS * (TILE_ROWS > 8 ? 4 : 8);  // of forward, at most
constexpr int64_t TRANSFORMED = 1 << 20;                              // bytes of V of a chunk: in L2
constexpr int64_t PRODUCTS = 256 << 10;  // bytes of M that wait in L2 for the last transform
constexpr int64_t ROUND = 6 << 20;       // bytes of V and D of dw, made by all threads before they are used: in L3
constexpr int64_t WEIGHTS = 64 << 20;    // bytes of U or S; a layer with more is for other plans
constexpr int64_t PIECES = 8;            // pieces of work wanted at least, so that batch 1 too keeps threads busy

template <class Axis>
constexpr int POINTS = Axis::POINTS * Axis::POINTS;
template <class Axis>
constexpr int AREA = Axis::TAPS * Axis::TAPS;

// A layer whose scratch stays within bounds.
FASTNN_INLINE bool winograd_possible(const Geometry& g) {
  const double lanes = FASTNN_VECTOR_BYTES / 4 * TILE_VECTORS;
  const double weights =
      (g.R == 3 ? POINTS<Taps3> : POINTS<Taps5>)*8.0 * (double(g.Cg) + lanes) * (double(g.Kg) + lanes);
  return (g.R == 3 || g.R == 5) && g.S == g.R && unit_stride(g) && g.dh == 1 && g.dw == 1 && weights <= double(WEIGHTS);
}

// Transforms what the tiles of strips [begin, end) read of a block of NR channels, `channels` of which are left: point
// p of tile t goes to to[p * plane + t * tile].
template <class Transform, class T>
FASTNN_INLINE void transform_block(const Tiles& tiles, int64_t begin, int64_t end, const T* maps, int64_t image_size,
                                   int64_t channels, int64_t H, int64_t width, int64_t pt, int64_t pl, T* window, T* to,
                                   int64_t tile, int64_t plane) {
  tiles.each_band(begin, end, [&](const Tiles::Band& band) {
    const int64_t rows = 2 * band.rows + Transform::SIZE - 2, columns = 2 * tiles.width + Transform::SIZE - 2;
    for (int64_t c = 0; c < NR<T> && c < channels; c += W<T>) {
      window_into_lanes(maps + band.image * image_size + c * H * width, channels - c, H, width, 2 * band.row - pt, rows,
                        2 * band.column - pl, columns, window);
      for (int64_t i = 0; i < band.rows; ++i)
        for (int64_t j = 0; j < tiles.width; ++j)
          Transform::apply(window + (2 * i * columns + 2 * j) * W<T>, columns * W<T>,
                           to + (band.at + i * tiles.width + j) * tile + c, plane);
    }
  });
}
// Elements of `window`: the widest strips, as many as a chunk has.
template <class Axis, class T>
FASTNN_INLINE int64_t window_size(const Tiles& tiles, int64_t strips) {
  return (2 * strips + Axis::PATCH - 2) * (2 * tiles.width + Axis::PATCH - 2) * W<T>;
}

// U[panel][point][c][NR]. `turned` for dx: weights turned by half a circle, channels in and out exchanged.
template <class Axis, class T>
FASTNN_INLINE void transform_weights(const Geometry& g, bool turned, const T* w, T* u, int64_t plane) {
  constexpr int64_t area = AREA<Axis>, step = 288 / area;  // channels at a time: their weights fill 9 KB (AVX2)
  const int64_t steps = divide_up(g.Cg, step);
  parallel_for(divide_up(g.Kg, NR<T>) * steps, 4, [&](int64_t begin, int64_t end) {
    alignas(64) T lanes[step * area * W<T>];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t panel = unit / steps, c0 = unit % steps * step, count = least(step, g.Cg - c0);
      for (int64_t v = 0; v < NR<T>; v += W<T>) {
        const int64_t k = panel * NR<T> + v;
        if (!turned)
          into_lanes(w + (k * g.Cg + c0) * area, g.Cg * area, g.Kg - k, count * area, lanes);
        else
          for (int64_t c = 0; c < count; ++c)
            into_lanes(w + ((c0 + c) * g.Kg + k) * area, area, g.Kg - k, area, lanes + c * area * W<T>);
        for (int64_t c = 0; c < count; ++c)
          weight_transform<Axis>(lanes + (c * area + (turned ? area - 1 : 0)) * W<T>, turned ? -W<T> : W<T>,
                                 u + panel * POINTS<Axis> * plane + (c0 + c) * NR<T> + v, plane);
      }
    }
  });
}

// Vectors of a block of NR channels, `channels` of which are left: what lies beyond is neither written nor read.
template <class T>
FASTNN_INLINE int64_t vectors_of(int64_t channels) {
  return least(TILE_VECTORS, divide_up(channels, W<T>));
}

// c(rows x vectors * W) = a b, a read in place; over depth in blocks that suit L1.
template <class T>
FASTNN_INLINE void product(int64_t rows, int64_t vectors, const T* a, int64_t lda, const T* b, const Split& depths,
                           T* c) {
  const auto micro = Micros<T>::at(true, vectors, rows);
  for (int64_t i = 0; i < depths.parts; ++i) {
    const int64_t k = depths.begin(i);
    micro(depths.begin(i + 1) - k, a + k, lda, b + k * NR<T>, NR<T>, c, NR<T>, i > 0);
  }
}

// M of a panel's tiles to y: of the strips [begin, end), channels [k, k + NR).
template <class Axis, class T>
FASTNN_INLINE void write_outputs(const Geometry& g, const Tiles& tiles, int64_t begin, int64_t end, const T* m,
                                 int64_t plane, int64_t k, const T* bias, bool relu, T* y, T* window) {
  tiles.each_band(begin, end, [&](const Tiles::Band& band) {
    const int64_t h = 2 * band.row, rows = least(2 * band.rows, g.Ho - h);
    const int64_t w = 2 * band.column, columns = least(2 * tiles.width, g.Wo - w);
    for (int64_t c = 0; c < NR<T> && k + c < g.Kg; c += W<T>) {
      const int64_t lanes = least(W<T>, g.Kg - k - c);
      const Vec<T> b = bias ? load(bias + k + c, lanes) : Vec<T>{};
      for (int64_t i = 0; i < band.rows; ++i)
        for (int64_t j = 0; j < tiles.width; ++j) {
          Vec<T> tile[2][2];
          output_transform<Axis>(m + (band.at + i * tiles.width + j) * NR<T> + c, plane, tile);
#pragma GCC unroll 2
          for (int r = 0; r < 2; ++r)
#pragma GCC unroll 2
            for (int s = 0; s < 2; ++s)
              if (2 * i + r < rows && 2 * j + s < columns) {
                const Vec<T> sum = tile[r][s] + b;
                store(window + ((2 * i + r) * columns + 2 * j + s) * W<T>, relu ? relu_of(sum) : sum);
              }
        }
      T* to = y + ((band.image * g.K + k + c) * g.Ho + h) * g.Wo + w;
      if (columns == g.Wo)
        from_lanes(window, rows * columns, to, g.P, lanes);
      else
        for (int64_t r = 0; r < rows; ++r) from_lanes(window + r * columns * W<T>, columns, to + r * g.Wo, g.P, lanes);
    }
  });
}

// Strips of a chunk of `limit` tiles at most. One pass over U, from L3, serves all its tiles, but V is to stay in L2:
// half of the limit measures best, and from there on, the number of tiles that fills the rows of register tiles best.
FASTNN_INLINE int64_t strips_of_chunk(int64_t width, int64_t limit) {
  const auto rows = [=](int64_t strips) { return divide_up(strips * width, TILE_ROWS) * TILE_ROWS; };
  int64_t chosen = most(1, least(divide_up(limit, 2 * width), limit / width));
  for (int64_t strips = chosen + 1; strips * width <= limit; ++strips)
    if (strips * rows(chosen) > chosen * rows(strips)) chosen = strips;
  return chosen;
}

// A chunk of tiles is one piece of work: V of all its channels, then set after set of panels of U: M, and y at once. A
// small batch has few chunks: then V of all is made first, by (chunk, block), and then used by (chunk, set).
template <class Axis, class T>
void forward_points(const Geometry& g, bool turned, const T* x, const T* w, const T* bias, bool relu, T* y) {
  const int64_t panels = divide_up(g.Kg, NR<T>), blocks = divide_up(g.Cg, NR<T>);
  const int64_t tile = spread<T>(blocks * NR<T>);  // V[chunk][point][tile][c]
  const int64_t fitting = TRANSFORMED / (POINTS<Axis> * tile * int64_t(sizeof(T)));
  const int64_t limit = most(1, least(CHUNK_TILES, fitting));
  const Tiles tiles(g, limit);
  const int64_t strips = least(tiles.strips, strips_of_chunk(tiles.width, limit)), most_tiles = strips * tiles.width;
  const int64_t chunks = divide_up(tiles.strips, strips);
  const int64_t plane_v = spread<T>(most_tiles * tile), plane_u = spread<T>(g.Cg * NR<T>);
  const int64_t chunk_v = POINTS<Axis> * plane_v, panel_m = most_tiles * NR<T>;  // M[point][panel of the set][tile][NR]
  const bool few = chunks < PIECES;
  const int64_t most_panels = most(1, PRODUCTS / (POINTS<Axis> * panel_m * int64_t(sizeof(T))));
  const int64_t wanted = few ? least(panels, divide_up(PIECES, chunks)) : 1;
  const Split sets(panels, most(wanted, divide_up(panels, most_panels))), depths(g.Cg, divide_up(g.Cg, KC<T>));
  const int64_t plane_m = spread<T>(divide_up(panels, sets.parts) * panel_m);
  Scratch<T> u(panels * POINTS<Axis> * plane_u), shared_v(few ? chunks * chunk_v : 0);

  for (int64_t group = 0; group < g.groups; ++group) {
    transform_weights<Axis>(g, turned, w + group * g.Kg * g.T, u.get(), plane_u);
    const auto transform = [&](int64_t chunk, int64_t block, T* v) {
      const T* from = x + (group * g.Cg + block * NR<T>)*g.H * g.W;
      Scratch<T> window(window_size<Axis, T>(tiles, strips));
      transform_block<PatchTransform<Axis>>(tiles, chunk * strips, least((chunk + 1) * strips, tiles.strips), from,
                                            g.C * g.H * g.W, g.Cg - block * NR<T>, g.H, g.W, g.pt, g.pl, window.get(),
                                            v + block * NR<T>, tile, plane_v);
    };
    const auto multiply = [&](int64_t chunk, int64_t set, const T* v) {
      const int64_t begin = chunk * strips, end = least(begin + strips, tiles.strips),
                    count = (end - begin) * tiles.width;
      const int64_t first = sets.begin(set), held = sets.begin(set + 1) - first;
      const Split rows(count, divide_up(count, TILE_ROWS));
      Scratch<T> m(POINTS<Axis> * plane_m), window(window_size<Axis, T>(tiles, strips));
      for (int64_t point = 0; point < POINTS<Axis>; ++point)
        for (int64_t panel = 0; panel < held; ++panel) {
          const T *a = v + point * plane_v, *b = u.get() + ((first + panel) * POINTS<Axis> + point) * plane_u;
          T* c = m.get() + point * plane_m + panel * panel_m;
          const int64_t vectors = vectors_of<T>(g.Kg - (first + panel) * NR<T>);
          for (int64_t i = 0; i < rows.parts; ++i) {
            const int64_t height = rows.size + (i < rows.larger);
            product(height, vectors, a, tile, b, depths, c);
            a += height * tile, c += height * NR<T>;
          }
        }
      for (int64_t panel = 0; panel < held; ++panel)
        write_outputs<Axis>(g, tiles, begin, end, m.get() + panel * panel_m, plane_m, (first + panel) * NR<T>,
                            bias ? bias + group * g.Kg : nullptr, relu, y + group * g.Kg * g.P, window.get());
    };
    if (few) {
      parallel_for(chunks * blocks, 1, [&](int64_t unit, int64_t) {
        transform(unit / blocks, unit % blocks, shared_v.get() + unit / blocks * chunk_v);
      });
      parallel_for(chunks * sets.parts, 1, [&](int64_t unit, int64_t) {
        multiply(unit / sets.parts, unit % sets.parts, shared_v.get() + unit / sets.parts * chunk_v);
      });
    } else {
      parallel_for(chunks, 1, [&](int64_t chunk, int64_t) {
        Scratch<T> v(chunk_v);
        for (int64_t block = 0; block < blocks; ++block) transform(chunk, block, v.get());
        for (int64_t set = 0; set < sets.parts; ++set) multiply(chunk, set, v.get());
      });
    }
  }
}

template <class T>
void forward_winograd(const Geometry& g, bool turned, const T* x, const T* w, const T* bias, bool relu, T* y) {
  g.R == 3 ? forward_points<Taps3>(g, turned, x, w, bias, relu, y)
           : forward_points<Taps5>(g, turned, x, w, bias, relu, y);
}

// dx is the convolution of dy with the weights turned by half a circle, channels in and out exchanged.
template <class T>
void backward_input_winograd(const Geometry& g, const T* dy, const T* w, T* dx) {
  Geometry t = g;
  t.H = g.Ho, t.W = g.Wo, t.Ho = g.H, t.Wo = g.W, t.P = g.H * g.W;
  t.C = g.K, t.K = g.C, t.Cg = g.Kg, t.Kg = g.Cg;
  t.T = g.Kg * g.R * g.S, t.pt = g.R - 1 - g.pt, t.pl = g.S - 1 - g.pl;  // may be negative: then dy is cropped
  forward_winograd<T>(t, true, dy, w, nullptr, false, dx);
}

// Round after round of tiles: V and D of all channels, then their products, added to S.
template <class Axis, class T>
void backward_weight_points(const Geometry& g, const T* dy, const T* x, T* dw) {
  const int64_t blocks_k = divide_up(g.Kg, NR<T>), blocks_c = divide_up(g.Cg, NR<T>), blocks = blocks_k + blocks_c;
  // A round's tiles are the products' depth: as many as keep V[point][block][tile][NR] and D, the same, in L3.
  constexpr int64_t points_d = GRADIENTS * GRADIENTS;
  const int64_t tile_bytes = (points_d * blocks_k + POINTS<Axis> * blocks_c) * NR<T> * int64_t(sizeof(T));
  const int64_t fitting = ROUND / tile_bytes;
  const int64_t round_tiles = most(1, least(KC<T>, fitting));
  const Tiles tiles(g, least(CHUNK_TILES, round_tiles));
  const Split rounds(tiles.strips, divide_up(tiles.strips, round_tiles / tiles.width));
  const int64_t strips = divide_up(tiles.strips, rounds.parts), block = strips * tiles.width * NR<T>;
  const Split chunks(strips, divide_up(strips, most(1, CHUNK_TILES / tiles.width)));  // to be transformed
  const int64_t plane_d = spread<T>(blocks_k * block), plane_v = spread<T>(blocks_c * block);
  const int64_t column_s = blocks_k * NR<T> * NR<T>,
                plane_s = spread<T>(blocks_c * column_s);  // S[point][block][k][NR]
  Scratch<T> d(points_d * plane_d), v(POINTS<Axis> * plane_v), s(POINTS<Axis> * plane_s);

  for (int64_t group = 0; group < g.groups; ++group) {
    for (int64_t round = 0; round < rounds.parts; ++round) {
      const int64_t first = rounds.begin(round), count = rounds.begin(round + 1) - first;
      parallel_for(chunks.parts * blocks, 1, [&](int64_t unit, int64_t) {
        const int64_t at = chunks.begin(unit / blocks), until = least(chunks.begin(unit / blocks + 1), count);
        const int64_t begin = first + at, end = first + until, place = at * tiles.width * NR<T>;
        const int64_t i = unit % blocks, k = i * NR<T>, c = (i - blocks_k) * NR<T>;
        Scratch<T> window(window_size<Axis, T>(tiles, divide_up(strips, chunks.parts)));
        if (i < blocks_k)
          transform_block<GradientTransform>(tiles, begin, end, dy + (group * g.Kg + k) * g.P, g.K * g.P, g.Kg - k,
                                             g.Ho, g.Wo, 0, 0, window.get(), d.get() + i * block + place, NR<T>,
                                             plane_d);
        else
          transform_block<PatchTransform<Axis>>(tiles, begin, end, x + (group * g.Cg + c) * g.H * g.W, g.C * g.H * g.W,
                                                g.Cg - c, g.H, g.W, g.pt, g.pl, window.get(),
                                                v.get() + (i - blocks_k) * block + place, NR<T>, plane_v);
      });
      parallel_for(POINTS<Axis> * blocks_c, divide_up(blocks_c, 2), [&](int64_t begin, int64_t end) {
        for (int64_t unit = begin; unit < end; ++unit) {
          const int64_t point = unit / blocks_c, c = unit % blocks_c;
          const int64_t i = point / Axis::POINTS, j = point % Axis::POINTS;
          const int64_t point_d = GRADIENTS * Axis::gradient(int(i)) + Axis::gradient(int(j));
          const T* b = v.get() + point * plane_v + c * block;
          for (int64_t k = 0; k < blocks_k; ++k) {
            const T* a = d.get() + point_d * plane_d + k * block;
            T* to = s.get() + point * plane_s + c * column_s + k * NR<T> * NR<T>;
            const int64_t height = least(NR<T>, g.Kg - k * NR<T>), vectors = vectors_of<T>(g.Cg - c * NR<T>);
            const Split rows(height, divide_up(height, TILE_ROWS));
            for (int64_t i = 0; i < rows.parts; ++i) {
              const int64_t row = rows.begin(i);
              Micros<T>::at(false, vectors, rows.begin(i + 1) - row)(count * tiles.width, a + row, NR<T>, b, NR<T>,
                                                                     to + row * NR<T>, NR<T>, round > 0);
            }
          }
        }
      });
    }
    parallel_for(g.Kg, divide_up(2048, g.Cg), [&](int64_t begin, int64_t end) {
      alignas(64) T taps[AREA<Axis> * W<T>];
      for (int64_t k = begin; k < end; ++k)
        for (int64_t c = 0; c < g.Cg; c += W<T>) {
          tap_transform<Axis>(s.get() + c / NR<T> * column_s + k * NR<T> + c % NR<T>, plane_s, taps);
          from_lanes(taps, AREA<Axis>, dw + ((group * g.Kg + k) * g.Cg + c) * AREA<Axis>, AREA<Axis>,
                     least(W<T>, g.Cg - c));
        }
    });
  }
}

template <class T>
void backward_weight_winograd(const Geometry& g, const T* dy, const T* x, T* dw) {
  g.R == 3 ? backward_weight_points<Taps3>(g, dy, x, dw) : backward_weight_points<Taps5>(g, dy, x, dw);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
