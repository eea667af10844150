// The plan `lanes_winograd`, dw: the transforms of conv_lanes_transforms.h the other way round, and between them at
// each of 8 points dot products over positions and images, W images side by side (conv_lanes_weight.h). A unit of work
// is a block of dw (some k, some channels, all their taps) and a part of the batch, which it takes W images and a band
// of rows at a time: dy as [point][k][row][tile][image], x as [point][row][channel][tile][image] with zeros all around.
#pragma once
#include "conv_lanes_weight.h"
#include "conv_lanes_winograd.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t POINTS_BOTH = 448 << 10;  // bytes of both sides of a unit: in L2
constexpr int64_t POINTS_BLOCK = 16;        // k and channels of a block of dw
constexpr int64_t POINTS_UNITS = 4;         // pieces of work wanted at least; smaller ones add their lanes too often

template <class T>
void backward_weight_lanes_winograd(const Geometry& g, const T* dy, const T* x, T* dw) {
  constexpr int OUTPUTS = FourOutputs::OUTPUTS, POINTS = FourOutputs::POINTS;
  const int64_t rows_of_taps = g.K * g.Cg * g.R, tiles = divide_up(g.Wo, OUTPUTS), tile_row = tiles * W<T>;
  const Split k_blocks(g.Kg, divide_up(g.Kg, POINTS_BLOCK)), c_blocks(g.Cg, divide_up(g.Cg, POINTS_BLOCK));
  const Split r_split(g.R, divide_up(g.R, DOT_TAPS));
  const int64_t k_most = k_blocks.begin(1), c_most = c_blocks.begin(1),
                blocks = g.groups * k_blocks.parts * c_blocks.parts;
  const int64_t k_parts = divide_up(k_most, dot_outputs(int(r_split.begin(1))));

  const int64_t images = divide_up(g.N, W<T>);
  int64_t bands = least(g.Ho, divide_up(POINTS_UNITS, images * blocks));
  const auto size = [&](int64_t rows) { return POINTS * tile_row * (k_most * rows + c_most * (rows + g.R - 1)); };
  while (bands < g.Ho && size(divide_up(g.Ho, bands)) * int64_t(sizeof(T)) > POINTS_BOTH) ++bands;
  const Split band_split(g.Ho, bands);

  const int64_t chunks = images * bands, parts = least(chunks, divide_up(POINTS_UNITS, blocks));
  const int64_t most_rows = band_split.begin(1), right = RowPass::forward(g).right<FourOutputs>();
  Scratch<T> sums(parts * POINTS * rows_of_taps);  // [part][point][k][channel][row of taps]
  parallel_for(parts * blocks, 1, [&](int64_t begin_unit, int64_t end_unit) {
    Scratch<T> x_points(POINTS * (most_rows + g.R - 1) * c_most * tile_row);
    Scratch<T> dy_points(POINTS * k_most * most_rows * tile_row);
    Scratch<T> line(most(g.pl + g.W + right, g.Wo) * W<T>);
    for (int64_t unit = begin_unit; unit < end_unit; ++unit) {
      const int64_t part = unit / blocks, group = unit % blocks / c_blocks.parts / k_blocks.parts;
      const int64_t kb = unit / c_blocks.parts % k_blocks.parts, cb = unit % c_blocks.parts;
      const int64_t k0 = k_blocks.begin(kb), k_count = k_blocks.begin(kb + 1) - k0;
      const int64_t c0 = c_blocks.begin(cb), c_count = c_blocks.begin(cb + 1) - c0;
      const Split ks(k_count, k_parts);
      T* const to = sums.get() + part * POINTS * rows_of_taps + ((group * g.Kg + k0) * g.Cg + c0) * g.R;
      for (int64_t q = 0; q < POINTS; ++q)
        for (int64_t k = 0; k < k_count; ++k)
          for (int64_t t = 0; t < c_count * g.R; ++t) to[q * rows_of_taps + k * g.Cg * g.R + t] = 0;
      for (int64_t chunk = part * chunks / parts; chunk < (part + 1) * chunks / parts; ++chunk) {
        const int64_t image = chunk / bands * W<T>, count = least(W<T>, g.N - image), band = chunk % bands;
        const int64_t i0 = band_split.begin(band), rows = band_split.begin(band + 1) - i0, height = rows + g.R - 1;
        const int64_t x_row = c_count * tile_row, x_plane = height * x_row, dy_plane = k_count * rows * tile_row;
        for (int64_t k = 0; k < k_count; ++k)
          for (int64_t i = 0; i < rows; ++i) {
            images_to_lanes(dy + (image * g.K + group * g.Kg + k0 + k) * g.P + (i0 + i) * g.Wo, dy + g.N * g.K * g.P,
                            g.K * g.P, count, g.Wo, line.get());
            for (int64_t t = 0; t < tiles; ++t)
              FourOutputs::gradient(line.get() + t * OUTPUTS * W<T>, g.Wo - t * OUTPUTS,
                                    dy_points.get() + ((k * rows + i) * tiles + t) * W<T>, dy_plane);
          }
        for (int64_t i = 0; i < height; ++i)
          for (int64_t c = 0; c < c_count; ++c) {
            const int64_t h = i0 + i - g.pt;
            T* const at = x_points.get() + i * x_row + c * tile_row;
            if (h < 0 || h >= g.H) {
              for (int64_t q = 0; q < POINTS; ++q)
                for (int64_t t = 0; t < tiles; ++t) store(at + q * x_plane + t * W<T>, Vec<T>{});
              continue;
            }
            row_to_lanes(x + ((image * g.C + group * g.Cg + c0 + c) * g.H + h) * g.W, x + g.N * g.C * g.H * g.W,
                         g.C * g.H * g.W, count, g.W, g.pl, right, line.get());
            for (int64_t t = 0; t < tiles; ++t)
              FourOutputs::input(line.get() + t * OUTPUTS * W<T>, at + t * W<T>, x_plane);
          }
        LaneDots<T> dots;
        dots.rows = rows, dots.columns = tiles;
        dots.dy_k = rows * tile_row, dots.dy_row = tile_row;
        dots.x_row = dots.x_tap = x_row, dots.x_column = W<T>;
        dots.to_row = g.Cg * g.R;
        for (int64_t q = 0; q < POINTS; ++q)
          for (int64_t b = 0; b < ks.parts; ++b)  // these rows of dy stay in L1 over all channels
            for (int64_t c = 0; c < c_count; ++c)
              for (int64_t n = 0; n < r_split.parts; ++n) {
                const int64_t k = ks.begin(b), r = r_split.begin(n);
                dots.dy = dy_points.get() + q * dy_plane + k * rows * tile_row;
                dots.x = x_points.get() + q * x_plane + r * x_row + c * tile_row;
                dots.to = to + q * rows_of_taps + (k * g.Cg + c) * g.R + r;
                lane_dots_of(ks.begin(b + 1) - k, r_split.begin(n + 1) - r, dots);
              }
      }
    }
  });
  bool finite = true;
  parallel_for(rows_of_taps, GRAIN / 64, [&](int64_t begin, int64_t end) {
    Vec<T> doubt{};
    each_vector<T>(begin, end, [&](int64_t i, int64_t lanes) {
      Vec<T> s[POINTS] = {}, taps[ROW_TAPS];
      for (int64_t part = 0; part < parts; ++part)
#pragma GCC unroll 8
        for (int q = 0; q < POINTS; ++q) s[q] += load(sums.get() + (part * POINTS + q) * rows_of_taps + i, lanes);
      FourOutputs::taps(s, taps);
#pragma GCC unroll 5
      for (int t = 0; t < ROW_TAPS; ++t) {
        doubt += taps[t] - taps[t];
        for (int64_t l = 0; l < lanes; ++l) dw[(i + l) * ROW_TAPS + t] = taps[t][l];
      }
    });
    const T sum = sum_lanes<T>(doubt);
    if (sum != sum) __atomic_store_n(&finite, false, __ATOMIC_RELAXED);
  });
  if (!finite) backward_weight_lanes(g, dy, x, dw);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
