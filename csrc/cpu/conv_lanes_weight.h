// The plan `lanes`, dw: dot products over positions and images, W images side by side (conv_lanes.h). A unit of work is
// a block of dw (some k, some channels, all their taps) and a part of the batch, which it takes W images and a band of
// rows at a time: dy as [k][row][column][image], x as [row][channel][column][image] with zeros left and right.
#pragma once
#include "conv_lanes.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t LANES_L1 = 4096;  // elements of dy that stay in L1 over the taps of a channel: 16 KB
// An element of dy or x is transposed again for every block of channels or of k: for so many products at least.
constexpr int64_t DY_USES = 128, X_USES = 256;

// to[m * to_row + t] += sum over rows, columns and lanes of dy[m][row][column] x[row][column + t].
template <class T>
struct LaneDots {
  const T *dy, *x;
  T* to;
  int64_t rows, columns;
  int64_t dy_k, dy_row, x_row, x_column, x_tap, to_row;
};

template <class T, int MR, int NT>
void lane_dots(const LaneDots<T>& o) {
  Vec<T> acc[MR * NT] = {};
  const int64_t dy_k = o.dy_k, x_column = o.x_column, x_tap = o.x_tap;
  for (int64_t i = 0; i < o.rows; ++i) {
    const T *dy = o.dy + i * o.dy_row, *x = o.x + i * o.x_row;
    for (int64_t j = 0; j < o.columns; ++j, dy += W<T>, x += x_column) {
      // The fewer ones of both sides are held in registers, the others pass through one.
      if constexpr (MR < NT) {
        Vec<T> left[MR];
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) left[m] = keep(load(dy + m * dy_k));
#pragma GCC unroll 8
        for (int t = 0; t < NT; ++t) {
          const Vec<T> right = keep(load(x + t * x_tap));
#pragma GCC unroll 8
          for (int m = 0; m < MR; ++m) acc[m * NT + t] += left[m] * right;
        }
      } else {
        Vec<T> right[NT];
#pragma GCC unroll 8
        for (int t = 0; t < NT; ++t) right[t] = keep(load(x + t * x_tap));
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
          const Vec<T> left = keep(load(dy + m * dy_k));
#pragma GCC unroll 8
          for (int t = 0; t < NT; ++t) acc[m * NT + t] += left * right[t];
        }
      }
    }
  }
  add_lane_sums<T, MR, NT>(acc, o.to, o.to_row);
}

constexpr int DOT_TAPS = 5;  // of a row of the kernel: 5 taps by 2 k, 4 by 3, 3 by 4, ... fill the accumulators
FASTNN_INLINE constexpr int dot_outputs(int taps) { return ACCUMULATORS / taps < 6 ? ACCUMULATORS / taps : 6; }

template <class T, int NT, int MR = dot_outputs(NT)>
FASTNN_INLINE void lane_dots_of(int64_t outputs, const LaneDots<T>& o) {
  if constexpr (MR > 1)
    if (outputs < MR) return lane_dots_of<T, NT, MR - 1>(outputs, o);
  lane_dots<T, MR, NT>(o);
}
template <class T>
FASTNN_INLINE void lane_dots_of(int64_t outputs, int64_t taps, const LaneDots<T>& o) {
  switch (taps) {
    case 1: return lane_dots_of<T, 1>(outputs, o);
    case 2: return lane_dots_of<T, 2>(outputs, o);
    case 3: return lane_dots_of<T, 3>(outputs, o);
    case 4: return lane_dots_of<T, 4>(outputs, o);
    default: return lane_dots_of<T, 5>(outputs, o);
  }
}

// Whether the scratch of a band of one row is bearable.
FASTNN_INLINE bool lanes_weight_possible(const Geometry& g, int64_t lanes) {
  const double width = g.dw > g.W ? double(g.W) : double(g.W) + 2 * DOT_TAPS * double(g.dw);
  const double height = double(least(g.H, (g.R - 1) * g.dh + 1));
  const double channels = double(most(1, least(g.Cg, divide_up(DY_USES, g.R * g.S))));
  const double outputs = double(least(g.Kg, most(16, divide_up(X_USES * g.sh * g.sw, g.R * g.S))));
  return (height * channels * width + outputs * double(g.Wo)) * double(lanes) < double(SCRATCH_LIMIT);
}

template <class T>
void backward_weight_lanes(const Geometry& g, const T* dy, const T* x, T* dw) {
  const int64_t area = g.R * g.S, total = g.K * g.T;
  // A block of dw. Taps of one row are taken together, unless the dilation tears them apart.
  const Split k_blocks(g.Kg, divide_up(g.Kg, most(16, divide_up(X_USES * g.sh * g.sw, area))));
  const Split c_blocks(g.Cg, divide_up(g.Cg, divide_up(DY_USES, area)));
  const Split s_split(g.S, divide_up(g.S, g.dw > g.W ? 1 : g.S == 5 ? 5 : 4));
  const Split k_split(k_blocks.begin(1), divide_up(k_blocks.begin(1), dot_outputs(int(s_split.begin(1)))));
  const int64_t blocks = g.groups * k_blocks.parts * c_blocks.parts;

  // Columns of dy for a run of taps: all that any of its taps reads inside. The others read zeros left and right of x.
  const auto columns_of = [&](int64_t s0, int64_t s1) {
    Range all{g.Wo, 0};
    for (int64_t s = s0; s < s1; ++s) {
      const Range one = inside(g.Wo, g.sw, s * g.dw - g.pl, g.W);
      if (one.begin < one.end) all = {least(all.begin, one.begin), most(all.end, one.end)};
    }
    return all;
  };
  int64_t left = 0, right = 0;
  for (int64_t i = 0; i < s_split.parts; ++i) {
    const int64_t s0 = s_split.begin(i), s1 = s_split.begin(i + 1);
    const Range range = columns_of(s0, s1);
    if (range.begin >= range.end) continue;
    left = most(left, g.pl - s0 * g.dw - range.begin * g.sw);
    right = most(right, (range.end - 1) * g.sw + (s1 - 1) * g.dw - g.pl - (g.W - 1));
  }
  const int64_t pitch = (left + g.W + right) * W<T>;

  // Rows of a band, and the rows of x that they read.
  const auto rows_read = [&](int64_t i0, int64_t i1) {
    const int64_t begin = most(0, i0 * g.sh - g.pt), end = least(g.H, (i1 - 1) * g.sh + (g.R - 1) * g.dh - g.pt + 1);
    return Range{begin, most(begin, end)};
  };
  const int64_t k_most = k_blocks.begin(1), c_most = c_blocks.begin(1);
  int64_t bands = 1, height;
  for (;; ++bands) {
    const int64_t rows = divide_up(g.Ho, bands);
    height = least(g.H, (rows - 1) * g.sh + (g.R - 1) * g.dh + 1);
    if (rows == 1 || (rows * k_split.begin(1) * g.Wo * W<T> <= LANES_L1 &&
                      height * c_most * pitch + rows * k_most * g.Wo * W<T> <= LANES_IN))
      break;
  }
  const Split band_split(g.Ho, bands);

  const int64_t chunks = divide_up(g.N, W<T>) * bands;
  const int64_t parts = least(chunks, parts_for(blocks));
  Scratch<T> sums(parts > 1 ? parts * total : 0);
  const int64_t x_size = height * c_most * pitch, dy_size = k_most * band_split.begin(1) * g.Wo * W<T>;
  const int64_t grain = most(1, LANES_GRAIN / ((x_size + dy_size) * divide_up(chunks, parts)));
  parallel_for(parts * blocks, grain, [&](int64_t begin_unit, int64_t end_unit) {
    Scratch<T> x_lanes(x_size), dy_lanes(dy_size);
    for (int64_t unit = begin_unit; unit < end_unit; ++unit) {
      const int64_t part = unit / blocks, group = unit % blocks / c_blocks.parts / k_blocks.parts;
      const int64_t kb = unit / c_blocks.parts % k_blocks.parts, cb = unit % c_blocks.parts;
      const int64_t k0 = k_blocks.begin(kb), k_count = k_blocks.begin(kb + 1) - k0;
      const int64_t c0 = c_blocks.begin(cb), c_count = c_blocks.begin(cb + 1) - c0;
      const Split ks(k_count, k_split.parts);
      T* const to = (parts > 1 ? sums.get() + part * total : dw) + (group * g.Kg + k0) * g.T + c0 * area;
      for (int64_t k = 0; k < k_count; ++k)
        for (int64_t t = 0; t < c_count * area; ++t) to[k * g.T + t] = 0;
      for (int64_t chunk = part * chunks / parts; chunk < (part + 1) * chunks / parts; ++chunk) {
        const int64_t image = chunk / bands * W<T>, images = least(W<T>, g.N - image), band = chunk % bands;
        const int64_t i0 = band_split.begin(band), i1 = band_split.begin(band + 1), positions = (i1 - i0) * g.Wo;
        const Range read = rows_read(i0, i1);
        for (int64_t k = 0; k < k_count; ++k)
          images_to_lanes(dy + (image * g.K + group * g.Kg + k0 + k) * g.P + i0 * g.Wo, dy + g.N * g.K * g.P, g.K * g.P,
                          images, positions, dy_lanes.get() + k * positions * W<T>);
        for (int64_t c = 0; c < c_count; ++c)
          for (int64_t h = read.begin; h < read.end; ++h)
            row_to_lanes(x + ((image * g.C + group * g.Cg + c0 + c) * g.H + h) * g.W, x + g.N * g.C * g.H * g.W,
                         g.C * g.H * g.W, images, g.W, left, right,
                         x_lanes.get() + ((h - read.begin) * c_count + c) * pitch);
        LaneDots<T> dots;
        dots.dy_k = positions * W<T>, dots.dy_row = g.Wo * W<T>;
        dots.x_row = g.sh * c_count * pitch, dots.x_column = g.sw * W<T>, dots.x_tap = g.dw * W<T>;
        dots.to_row = g.T;
        for (int64_t c = 0; c < c_count; ++c)
          for (int64_t b = 0; b < ks.parts; ++b)  // these rows of dy stay in L1 over all taps of a channel
            for (int64_t r = 0; r < g.R; ++r) {
              const int64_t k = ks.begin(b);
              const Range rows = inside(g.Ho, g.sh, r * g.dh - g.pt, g.H);
              const int64_t i = most(rows.begin, i0);
              dots.rows = least(rows.end, i1) - i;
              if (dots.rows <= 0) continue;
              const T* x_row = x_lanes.get() + ((i * g.sh + r * g.dh - g.pt - read.begin) * c_count + c) * pitch;
              for (int64_t n = 0; n < s_split.parts; ++n) {
                const int64_t s0 = s_split.begin(n), s1 = s_split.begin(n + 1);
                const Range columns = columns_of(s0, s1);
                dots.columns = columns.end - columns.begin;
                if (dots.columns <= 0) continue;
                dots.x = x_row + (left + columns.begin * g.sw + s0 * g.dw - g.pl) * W<T>;
                dots.dy = dy_lanes.get() + (k * positions + (i - i0) * g.Wo + columns.begin) * W<T>;
                dots.to = to + k * g.T + c * area + r * g.S + s0;
                lane_dots_of(ks.begin(b + 1) - k, s1 - s0, dots);
              }
            }
      }
    }
  });
  add_parts(sums.get(), parts, total, dw);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
