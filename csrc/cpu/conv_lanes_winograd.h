// The plan `lanes_winograd`, forward and dx: 5 taps wide, stride and dilation 1, W images in the lanes of a vector,
// rows by F(4, 5) (conv_lanes_transforms.h). A unit of work is W images, a group and a band of output rows:
//   in    the rows that the band reads, transposed and transformed: [row][channel][tile][point][image]
//   out   [k][row][column][image]: for some k and one or two tiles, the sums at several points stay in registers over
//         all rows of taps and channels, and leave as outputs
// dx is the same with dy in place of x, the weights turned by half a circle, channels in and out exchanged.
// dw: conv_lanes_winograd_weight.h.
//
// Where an output is not finite, the whole pass is done again by the plan `lanes`: the transforms would spread a NaN to
// the other outputs of a tile, make one of an infinity, and overflow a few bits earlier.
#pragma once
#include "conv_lanes_transforms.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t POINTS_IN = 384 << 10;     // bytes of a unit's transformed input: in L2
constexpr int64_t POINTS_OUT = 192 << 10;    // bytes of a unit's output
constexpr int64_t POINT_TERMS = 80;          // products summed at a point before they leave as outputs: for accuracy
constexpr int64_t POINTS_WEIGHTS = 4 << 20;  // bytes of transformed weights; a layer with more is for other plans

// Accumulators: with AVX-512 6 k by 4 of 8 points or 4 k by all 6 points, of one tile; with 16 registers 3 k by 2
// points of 2 tiles. The fewest loads and broadcasts that leave the sums of a pair of points together.
constexpr int FEW_TERMS = 15;
template <class F>
constexpr int AT_ONCE = ACCUMULATORS < 24 ? 2
                        : F::POINTS == 6  ? 6
                                          : 4;  // points
template <class F>
constexpr int TILES = AT_ONCE<F> == 2 ? 2 : 1;
template <class F>
constexpr int ROWS = ACCUMULATORS / (AT_ONCE<F> * TILES<F>);  // k

// y[m][column] = bias[m] + sum of `terms` rows of taps, each of one channel. Steps in elements.
template <class T>
struct PointTile {
  const T *w, *x, *bias;  // w: [group of points][term][point][m]
  T* y;
  int64_t terms, w_group, x_step, y_row, columns;
  bool add;
};

template <class F, class T, int MR, int NT>
void point_tile(const PointTile<T>& o) {
  constexpr int P = AT_ONCE<F>;
  Vec<T> sums[MR][NT][F::POINTS];
  const int64_t terms = o.terms, x_step = o.x_step;
#pragma GCC unroll 8
  for (int group = 0; group < F::POINTS / P; ++group) {
    Vec<T> acc[P][NT][MR] = {};
    const T *w = o.w + group * o.w_group, *x = o.x + group * P * W<T>;
    for (int64_t i = 0; i < terms; ++i, w += P * MR, x += x_step) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        Vec<T> b[NT];
#pragma GCC unroll 8
        for (int t = 0; t < NT; ++t) b[t] = keep(load(x + (t * F::POINTS + p) * W<T>));
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
          const Vec<T> a = NT > 1 ? keep(set<T>(w[p * MR + m])) : set<T>(w[p * MR + m]);
#pragma GCC unroll 8
          for (int t = 0; t < NT; ++t) acc[p][t][m] += a * b[t];
        }
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p += 2)
#pragma GCC unroll 8
      for (int t = 0; t < NT; ++t)
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
          const bool pair = group * P + p < F::POINTS - 2;
          Vec<T>* const to = sums[m][t] + group * P + p;
          to[0] = pair ? acc[p][t][m] + acc[p + 1][t][m] : acc[p][t][m];
          to[1] = pair ? acc[p][t][m] - acc[p + 1][t][m] : acc[p + 1][t][m];
        }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) {
    const Vec<T> bias = o.bias ? set<T>(o.bias[m]) : Vec<T>{};
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t) {
      Vec<T> y[F::OUTPUTS];
      F::output(sums[m][t], y);
      T* to = o.y + m * o.y_row + t * F::OUTPUTS * W<T>;
#pragma GCC unroll 4
      for (int j = 0; j < F::OUTPUTS; ++j)
        if (t * F::OUTPUTS + j < o.columns) store(to + j * W<T>, y[j] + (o.add ? load(to + j * W<T>) : bias));
    }
  }
}

template <class F, int NT, int MR = ROWS<F>, class T>
FASTNN_INLINE void point_tile_of(int64_t rows, const PointTile<T>& o) {
  if constexpr (MR > 1)
    if (rows < MR) return point_tile_of<F, NT, MR - 1>(rows, o);
  point_tile<F, T, MR, NT>(o);
}

// y[n,k,i,j] = sum over c, r, s of w[k,c,r,s] x[n, c, i + r - top, j + s - left].
struct RowPass {
  int64_t N, groups, C, K, H, width, Ho, Wo, R, top, left;  // channels of a group

  FASTNN_INLINE static RowPass forward(const Geometry& g) {
    return {g.N, g.groups, g.Cg, g.Kg, g.H, g.W, g.Ho, g.Wo, g.R, g.pt, g.pl};
  }
  FASTNN_INLINE static RowPass backward(const Geometry& g) {
    return {g.N, g.groups, g.Kg, g.Cg, g.Ho, g.Wo, g.H, g.W, g.R, g.R - 1 - g.pt, ROW_TAPS - 1 - g.pl};
  }
  // Rows of input that rows [i0, i1) of output read.
  FASTNN_INLINE Range read(int64_t i0, int64_t i1) const {
    const int64_t begin = least(H, most(0, i0 - top));
    return {begin, most(begin, least(H, i1 + R - 1 - top))};
  }
  FASTNN_INLINE int64_t height(int64_t rows) const { return least(H, rows + R - 1); }
  template <class F>
  FASTNN_INLINE int64_t tiles() const {
    return divide_up(Wo, F::OUTPUTS);
  }
  // Columns of zeros that the tiles read beyond the right end of a row.
  template <class F>
  FASTNN_INLINE int64_t right() const {
    return most(0, tiles<F>() * F::OUTPUTS + ROW_TAPS - 1 - left - width);
  }
};

// Padding narrower than the kernel on all sides, so that every row and tile reads something; scratch within bounds.
FASTNN_INLINE bool lanes_winograd_possible(const Geometry& g, int64_t lanes) {
  const int64_t below = g.Ho + g.R - 1 - g.H - g.pt, right = g.Wo + g.S - 1 - g.W - g.pl;
  const double row = double(most(g.W, g.Wo) + ROW_TAPS) * double(lanes), taps = double(g.R) * FourOutputs::POINTS;
  const bool some = g.H > 0 && g.W > 0 && g.Cg > 0 && g.Kg > 0;
  return some && g.S == ROW_TAPS && unit_stride(g) && g.dh == 1 && g.dw == 1 && g.pt < g.R && g.pl < g.S &&
         below >= 0 && below < g.R && right >= 0 && right < g.S &&
         double(g.K) * double(g.Cg) * taps * 8 <= double(POINTS_WEIGHTS) &&
         (16 * taps + double(most(g.Kg, g.Cg))) * row < double(SCRATCH_LIMIT);
}

// Whether products are saved, the last tile counted whole. `row`: outputs of the pass in a row.
FASTNN_INLINE bool lanes_winograd_pays(const Geometry& g, int64_t row, int64_t terms) {
  const int64_t products =
      terms < FEW_TERMS ? divide_up(row, 2) * TwoOutputs::POINTS : divide_up(row, 4) * FourOutputs::POINTS;
  return 10 * products <= 7 * ROW_TAPS * g.Wo && terms >= 5;
}

// weight(group, k, c, r): the five taps of a row, `step` apart. False if not all of y is finite.
template <class F, class T, class Weight>
bool lanes_winograd(const RowPass& p, const T* x, const Weight& weight, int64_t step, const T* bias, bool relu, T* y) {
  const int64_t in = POINTS_IN / int64_t(sizeof(T)), out = POINTS_OUT / int64_t(sizeof(T));
  const int64_t tiles = p.tiles<F>(), pitch = tiles * F::POINTS * W<T>;
  const int64_t c_most = most(1, least(POINT_TERMS / p.R, in / (p.height(3) * pitch)));
  const Split k_split(p.K, divide_up(p.K, ROWS<F>)), c_split(p.C, divide_up(p.C, c_most));

  // [group][channel block][k block][group of points][row of taps][channel][point][k]
  const int64_t taps = p.R * F::POINTS;  // of a channel, transformed
  Scratch<T> packed(p.groups * p.K * p.C * taps);
  parallel_for(p.groups * p.K, divide_up(GRAIN / 8, p.C * taps), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / p.K, k = i % p.K;
      int64_t kb = 0;
      while (k >= k_split.begin(kb + 1)) ++kb;
      const int64_t k0 = k_split.begin(kb), count = k_split.begin(kb + 1) - k0;
      for (int64_t cb = 0; cb < c_split.parts; ++cb) {
        const int64_t c0 = c_split.begin(cb), channels = c_split.begin(cb + 1) - c0;
        T* to = packed.get() + (group * p.K * p.C + c0 * p.K + k0 * channels) * taps + k - k0;
        const int64_t points = p.R * channels * AT_ONCE<F> * count;  // from one group of points to the next
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t r = 0; r < p.R; ++r) {
            const T* from = weight(group, k, c0 + c, r);
            double w[ROW_TAPS], u[F::POINTS];  // in double, so that each is rounded once
            for (int i = 0; i < ROW_TAPS; ++i) w[i] = double(from[i * step]);
            F::weights(w, u);
            T* at = to + (r * channels + c) * AT_ONCE<F> * count;
#pragma GCC unroll 8
            for (int q = 0; q < F::POINTS; ++q) at[q / AT_ONCE<F> * points + q % AT_ONCE<F> * count] = T(u[q]);
          }
      }
    }
  });

  const int64_t blocks = divide_up(p.N, W<T>), right = p.right<F>();
  int64_t bands = least(p.Ho, parts_for(blocks * p.groups));
  for (; bands < p.Ho; ++bands) {
    const int64_t n = divide_up(p.Ho, bands);
    if (p.height(n) * c_split.begin(1) * pitch <= in && p.K * n * p.Wo * W<T> <= out) break;
  }
  const Split band_split(p.Ho, bands);
  // The weights of a pass stay in L1 over the rows of a band, or the input of a row over all k.
  const bool row_by_row = p.K * c_split.begin(1) * taps * int64_t(sizeof(T)) <= 16384;
  const int64_t in_size = p.height(band_split.begin(1)) * c_split.begin(1) * pitch;
  const int64_t out_size = p.K * band_split.begin(1) * p.Wo * W<T>;
  const int64_t grain = most(1, LANES_GRAIN / (in_size + out_size));
  bool finite = true;
  parallel_for(blocks * p.groups * bands, grain, [&](int64_t begin_unit, int64_t end_unit) {
    Vec<T> doubt{};
    Scratch<T> source(in_size), product(out_size), line((p.left + p.width + right) * W<T>);
    for (int64_t unit = begin_unit; unit < end_unit; ++unit) {
      const int64_t image = unit / bands / p.groups * W<T>, group = unit / bands % p.groups, band = unit % bands;
      const int64_t images = least(W<T>, p.N - image), i0 = band_split.begin(band), i1 = band_split.begin(band + 1);
      const int64_t positions = (i1 - i0) * p.Wo;
      const Range read = p.read(i0, i1);
      for (int64_t cb = 0; cb < c_split.parts; ++cb) {
        const int64_t c0 = c_split.begin(cb), channels = c_split.begin(cb + 1) - c0;
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t h = read.begin; h < read.end; ++h) {
            const int64_t channel = (image * p.groups + group) * p.C + c0 + c;
            row_to_lanes(x + (channel * p.H + h) * p.width, x + p.N * p.groups * p.C * p.H * p.width,
                         p.groups * p.C * p.H * p.width, images, p.width, p.left, right, line.get());
            T* to = source.get() + ((h - read.begin) * channels + c) * pitch;
            for (int64_t t = 0; t < tiles; ++t)
              F::input(line.get() + t * F::OUTPUTS * W<T>, to + t * F::POINTS * W<T>, W<T>);
          }
        PointTile<T> tile;
        tile.x_step = pitch;
        tile.y_row = positions * W<T>;
        tile.add = cb > 0;
        const auto row = [&](int64_t i, int64_t b) {
          const int64_t k0 = k_split.begin(b), count = k_split.begin(b + 1) - k0;
          const int64_t r0 = most(0, p.top - i), r1 = most(r0, least(p.R, p.H + p.top - i));
          tile.terms = (r1 - r0) * channels;
          tile.w_group = p.R * channels * AT_ONCE<F> * count;
          tile.w =
              packed.get() + (group * p.K * p.C + c0 * p.K + k0 * channels) * taps + r0 * channels * AT_ONCE<F> * count;
          tile.bias = bias ? bias + group * p.K + k0 : nullptr;
          for (int64_t t = 0; t < tiles; t += TILES<F>) {
            tile.x = source.get() + (i + r0 - p.top - read.begin) * channels * pitch + t * F::POINTS * W<T>;
            tile.y = product.get() + (k0 * positions + (i - i0) * p.Wo + t * F::OUTPUTS) * W<T>;
            tile.columns = p.Wo - t * F::OUTPUTS;
            if (t + TILES<F> <= tiles)
              point_tile_of<F, TILES<F>>(count, tile);
            else
              point_tile_of<F, 1>(count, tile);
          }
        };
        if (row_by_row)
          for (int64_t i = i0; i < i1; ++i)
            for (int64_t b = 0; b < k_split.parts; ++b) row(i, b);
        else
          for (int64_t b = 0; b < k_split.parts; ++b)
            for (int64_t i = i0; i < i1; ++i) row(i, b);
      }
      T* to = y + (image * p.groups + group) * p.K * p.Ho * p.Wo + i0 * p.Wo;
      for (int64_t k = 0; k < p.K; ++k)
        doubt += lanes_to_images(product.get() + k * positions * W<T>, positions, relu, to + k * p.Ho * p.Wo,
                                 p.groups * p.K * p.Ho * p.Wo, images);
    }
    const T sum = sum_lanes<T>(doubt);
    if (sum != sum) __atomic_store_n(&finite, false, __ATOMIC_RELAXED);
  });
  return finite;
}

template <class T, class Weight>
bool lanes_winograd_of_any(const RowPass& p, const T* x, const Weight& weight, int64_t step, const T* bias, bool relu,
                           T* y) {
  return p.C * p.R < FEW_TERMS ? lanes_winograd<TwoOutputs>(p, x, weight, step, bias, relu, y)
                               : lanes_winograd<FourOutputs>(p, x, weight, step, bias, relu, y);
}

template <class T>
void forward_lanes_winograd(const Geometry& g, const T* x, const T* w, const T* bias, bool relu, T* y) {
  const auto row = [&](int64_t group, int64_t k, int64_t c, int64_t r) {
    return w + (((group * g.Kg + k) * g.Cg + c) * g.R + r) * ROW_TAPS;
  };
  if (!lanes_winograd_of_any(RowPass::forward(g), x, row, 1, bias, relu, y)) forward_lanes(g, x, w, bias, relu, y);
}
template <class T>
void backward_input_lanes_winograd(const Geometry& g, const T* dy, const T* w, T* dx) {
  const auto row = [&](int64_t group, int64_t c, int64_t k, int64_t r) {
    return w + (((group * g.Kg + k) * g.Cg + c) * g.R + g.R - 1 - r) * ROW_TAPS + ROW_TAPS - 1;
  };
  const T* none = nullptr;
  if (!lanes_winograd_of_any(RowPass::backward(g), dy, row, -1, none, false, dx)) backward_input_lanes(g, dy, w, dx);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
