// The plan `lanes`, forward and dx: W images side by side in the lanes of a vector, so that every lane works whatever
// the width of a map, and taps that lie in the padding are left out instead of multiplied by zero. A unit of work is W
// images, a group and a band of output rows:
//   in    the rows that the band reads, transposed into [row][channel][column][image], zeros left and right
//   out   [k][row][column][image]: a tile of some k and some columns at a time sums in registers over its taps
// dx is the same with its strides the other way round: input o of the layer is read by output (o + padding - r *
// dilation) / stride where that divides. dw: conv_lanes_weight.h.
#pragma once
#include "conv_tile.h"
#include "transpose.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t LANES_IN = 49152;    // elements of a unit's input: 192 KB, stay in L2 while all k pass over it
constexpr int64_t LANES_OUT = 32768;   // elements of a unit's output
constexpr int64_t LANES_GRAIN = 8192;  // elements of both sides, at least, of units that are claimed together
constexpr int64_t LANES_TAPS = 512;    // taps summed in one pass: with DIRECT_ROWS, 12 KB of weights that stay in L1

// The 16 bytes at p, p + step, ...: as many as fill a vector.
template <class T>
FASTNN_INLINE Vec<T> load_quads(const T* p, int64_t step) {
#if defined(__AVX512F__) && FASTNN_VECTOR_BYTES == 64
  const auto two = [&](const T* q) __attribute__((always_inline)) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + step)), 1);
  };
  return (Vec<T>)_mm512_inserti64x4(_mm512_castsi256_si512(two(p)), two(p + 2 * step), 1);
#elif defined(__AVX2__) && FASTNN_VECTOR_BYTES == 32
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (Vec<T>)_mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + step)), 1);
#else
  Vec<T> v;
  for (int i = 0; i < W<T> / Q<T>; ++i) memcpy(reinterpret_cast<char*>(&v) + 16 * i, p + i * step, 16);
  return v;
#endif
}

// to[j][lane] = from[lane * image_size + j] for j < count. Lanes beyond `images` are zero. `end`: of the whole array,
// within which more than `count` may be read.
template <class T>
void images_to_lanes(const T* from, const T* end, int64_t image_size, int64_t images, int64_t count, T* to) {
  int64_t j = 0;
  if (images == W<T>) {
    const int64_t readable = least(divide_up(count, Q<T>) * Q<T>, end - from - (W<T> - 1) * image_size);
    for (; j + Q<T> <= readable; j += Q<T>) {
      Vec<T> v[Q<T>];
#pragma GCC unroll 4
      for (int i = 0; i < Q<T>; ++i) v[i] = load_quads(from + i * image_size + j, Q<T> * image_size);
      transpose_quads<T>(v);
#pragma GCC unroll 4
      for (int i = 0; i < Q<T>; ++i)
        if (j + i < count) store(to + (j + i) * W<T>, v[i]);
    }
  }
  for (; j < count; j += W<T>) {
    const int64_t n = least(W<T>, count - j);
    Vec<T> v[W<T>];
#pragma GCC unroll 16
    for (int i = 0; i < W<T>; ++i) v[i] = i < images ? load(from + i * image_size + j, n) : Vec<T>{};
    transpose<T>(v);
#pragma GCC unroll 16
    for (int i = 0; i < W<T>; ++i)
      if (i < n) store(to + (j + i) * W<T>, v[i]);
  }
}

// A row between columns of zeros.
template <class T>
FASTNN_INLINE void row_to_lanes(const T* from, const T* end, int64_t image_size, int64_t images, int64_t count,
                                int64_t left, int64_t right, T* to) {
  for (int64_t i = 0; i < left; ++i) store(to + i * W<T>, Vec<T>{});
  images_to_lanes(from, end, image_size, images, count, to + left * W<T>);
  for (int64_t i = 0; i < right; ++i) store(to + (left + count + i) * W<T>, Vec<T>{});
}

// The inverse, through relu if wanted. Returns 0 where all was finite, elsewhere NaN.
template <class T>
Vec<T> lanes_to_images(const T* from, int64_t count, bool relu, T* to, int64_t image_size, int64_t images) {
  Vec<T> doubt{};
  for (int64_t j = 0; j < count; j += W<T>, from += W<T> * W<T>) {
    const int64_t n = least(W<T>, count - j);
    Vec<T> v[W<T>];
#pragma GCC unroll 16
    for (int i = 0; i < W<T>; ++i) v[i] = i < n ? load(from + i * W<T>) : Vec<T>{};
#pragma GCC unroll 16
    for (int i = 0; i < W<T>; ++i) doubt += v[i] - v[i];
    if (relu)
#pragma GCC unroll 16
      for (int i = 0; i < W<T>; ++i) v[i] = relu_of(v[i]);
    transpose<T>(v);
    if (images == W<T> && n == W<T>) {
#pragma GCC unroll 16
      for (int i = 0; i < W<T>; ++i) store(to + i * image_size + j, v[i]);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < W<T>; ++i)
        if (i < images) store_n(to + i * image_size + j, v[i], n);
    }
  }
  return doubt;
}

// The taps of an output along one axis: first, first + Axis::step, ...; the first reads `input`, which may lie outside
// where a tile shares a tap that only some of its columns have.
struct Taps {
  int64_t first, count, input;
};

// One axis of a pass: tap t of output o reads input (o * stride + t * dilation - padding) / divisor, if that divides
// and lies in [0, size). Forward has divisor 1. In dx the divisor is the layer's stride, the dilation negative.
struct Axis {
  int64_t outputs, taps, size, stride, dilation, padding, divisor;
  int64_t step, input_step;  // from one tap that divides to the next, and how far apart their inputs are

  static FASTNN_INLINE Axis forward(int64_t outputs, int64_t taps, int64_t size, int64_t stride, int64_t dilation,
                                    int64_t padding) {
    return {outputs, taps, size, stride, dilation, padding, 1, 1, dilation};
  }
  static FASTNN_INLINE Axis backward(int64_t outputs, int64_t taps, int64_t size, int64_t stride, int64_t dilation,
                                     int64_t padding) {
    int64_t a = stride, b = dilation;  // their greatest common divisor
    while (b != 0) {
      const int64_t rest = a % b;
      a = b, b = rest;
    }
    return {outputs, taps, size, 1, -dilation, -padding, stride, stride / a, -dilation / a};
  }

  FASTNN_INLINE Taps of(int64_t o) const {
    for (int64_t t = 0; t < least(step, taps); ++t) {
      const int64_t at = o * stride + t * dilation - padding;
      if (at % divisor != 0) continue;
      Taps found{t, 0, 0};
      int64_t input = at / divisor;
      for (int64_t tap = t; tap < taps; tap += step, input += input_step) {
        if (input < 0 || input >= size) continue;
        if (found.count++ == 0) found.first = tap, found.input = input;
      }
      return found;
    }
    return {0, 0, 0};
  }
  FASTNN_INLINE int64_t lowest(const Taps& t) const {
    return input_step > 0 ? t.input : t.input + (t.count - 1) * input_step;
  }
  FASTNN_INLINE int64_t highest(const Taps& t) const {
    return input_step > 0 ? t.input + (t.count - 1) * input_step : t.input;
  }
};

// A tile's columns, `divisor` apart so that they share their taps; the taps that any of them has, as the first sees
// them.
struct Columns {
  int64_t column, count;
  Taps taps;
};

// The sums of a tile: y[m * y_row + v * y_step] for m < MR, v < NV. Steps in elements.
template <class T>
struct LaneTile {
  const T *w, *x, *bias;
  T* y;
  struct Loop {
    int64_t count, w, x;
  } outer, middle, inner;  // channels, rows and columns of taps, in an order that makes the inner one long
  int64_t x_step, y_row, y_step;
  bool add;
};

template <class T, int MR, int NV>
void lane_tile(const LaneTile<T>& o) {
  Vec<T> acc[MR][NV];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      acc[m][v] = o.add ? load(o.y + m * o.y_row + v * o.y_step) : o.bias ? set<T>(o.bias[m]) : Vec<T>{};
  const int64_t x_step = o.x_step;
  const auto inner = o.inner;
  for (int64_t i = 0; i < o.outer.count; ++i)
    for (int64_t j = 0; j < o.middle.count; ++j) {
      const T* w = o.w + i * o.outer.w + j * o.middle.w;
      const T* x = o.x + i * o.outer.x + j * o.middle.x;
      for (int64_t t = 0; t < inner.count; ++t, w += inner.w, x += inner.x) {
        if constexpr (MR >= NV) {
          Vec<T> b[NV];
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) b[v] = keep(load(x + v * x_step));
#pragma GCC unroll 8
          for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[m][v] += w[m] * b[v];
        } else {
          Vec<T> a[MR];
#pragma GCC unroll 8
          for (int m = 0; m < MR; ++m) a[m] = set<T>(w[m]);
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) {
            const Vec<T> b = keep(load(x + v * x_step));
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) acc[m][v] += a[m] * b;
          }
        }
      }
    }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) store(o.y + m * o.y_row + v * o.y_step, acc[m][v]);
}

template <class T, int MR, int NV = tile_vectors(MR)>
FASTNN_INLINE void lane_tile_of(int64_t columns, const LaneTile<T>& o) {
  if constexpr (NV > 1)
    if (columns < NV) return lane_tile_of<T, MR, NV - 1>(columns, o);
  lane_tile<T, MR, NV>(o);
}
template <class T>
FASTNN_INLINE void lane_tile_of(int64_t rows, int64_t columns, const LaneTile<T>& o) {
  switch (rows) {
    case 1: return lane_tile_of<T, 1>(columns, o);
    case 2: return lane_tile_of<T, 2>(columns, o);
    case 3: return lane_tile_of<T, 3>(columns, o);
    case 4: return lane_tile_of<T, 4>(columns, o);
    case 5: return lane_tile_of<T, 5>(columns, o);
    default: return lane_tile_of<T, 6>(columns, o);
  }
}

// A pass: both axes, and the channels of a group, those summed over and those written.
struct LanePass {
  Axis rows, columns;
  int64_t N, groups, channels, outputs;
  int64_t c_block;  // channels of one pass over the tiles
  int64_t widest;   // columns of a tile, at most

  FASTNN_INLINE LanePass(const Axis& rows_, const Axis& columns_, int64_t N_, int64_t groups_, int64_t channels_,
                         int64_t outputs_, int64_t lanes)
      : rows(rows_), columns(columns_), N(N_), groups(groups_), channels(channels_), outputs(outputs_) {
    const int64_t row = most(1, height(1) * columns.size * lanes);  // of input, for a row of output
    const int64_t taps = divide_up(rows.taps, rows.step) * divide_up(columns.taps, columns.step);  // of an output
    c_block = most(1, least(LANES_TAPS / taps, LANES_IN / row));
    c_block = most(1, divide_up(channels, most(1, divide_up(channels, c_block))));
    // Columns far apart share no taps: what one of them reads would be far outside for the others.
    widest = columns.stride > columns.size ? 1 : tile_vectors(int(divide_up(outputs, k_blocks())));
  }
  FASTNN_INLINE int64_t k_blocks() const { return divide_up(outputs, DIRECT_ROWS); }
  // Rows of input that `n` neighbouring rows of output read, at most.
  FASTNN_INLINE int64_t height(int64_t n) const {
    const int64_t dilation = rows.dilation < 0 ? -rows.dilation : rows.dilation;
    return least(rows.size, ((n - 1) * rows.stride + (rows.taps - 1) * dilation) / rows.divisor + 2);
  }
  // Elements of the two sides of a band of n rows, and whether one row is bearable.
  FASTNN_INLINE int64_t source(int64_t n, int64_t pitch) const { return height(n) * c_block * pitch; }
  FASTNN_INLINE int64_t product(int64_t n, int64_t lanes) const { return outputs * n * columns.outputs * lanes; }
  FASTNN_INLINE bool possible(int64_t lanes) const {
    const int64_t padding = widest > 1 ? 2 * widest * columns.stride : 0;
    return double(height(1)) * double(c_block) * double((columns.size + padding) * lanes) < double(SCRATCH_LIMIT) &&
           double(outputs) * double(columns.outputs * lanes) < double(SCRATCH_LIMIT);
  }
};

FASTNN_INLINE LanePass lanes_forward(const Geometry& g, int64_t lanes) {
  return {Axis::forward(g.Ho, g.R, g.H, g.sh, g.dh, g.pt),
          Axis::forward(g.Wo, g.S, g.W, g.sw, g.dw, g.pl),
          g.N,
          g.groups,
          g.Cg,
          g.Kg,
          lanes};
}
FASTNN_INLINE LanePass lanes_backward(const Geometry& g, int64_t lanes) {
  return {Axis::backward(g.H, g.R, g.Ho, g.sh, g.dh, g.pt),
          Axis::backward(g.W, g.S, g.Wo, g.sw, g.dw, g.pl),
          g.N,
          g.groups,
          g.Kg,
          g.Cg,
          lanes};
}

// The tiles of a row, at most one for each of its columns, and the columns of zeros that they read left and right.
struct LaneColumns {
  int64_t count = 0, left = 0, right = 0;
  FASTNN_INLINE LaneColumns(const Axis& axis, int64_t widest, Columns* tiles) {
    for (int64_t phase = 0; phase < least(axis.divisor, axis.outputs); ++phase) {
      const int64_t columns = divide_up(axis.outputs - phase, axis.divisor);
      const Split split(columns, divide_up(columns, widest));
      for (int64_t i = 0; i < split.parts; ++i) {
        const int64_t begin = split.begin(i), n = split.begin(i + 1) - begin;
        Columns tile{phase + begin * axis.divisor, n, {0, 0, 0}};
        int64_t end = 0;
        for (int64_t v = 0; v < n; ++v) {
          const Taps one = axis.of(tile.column + v * axis.divisor);
          if (one.count == 0) continue;
          if (end == 0 || one.first < tile.taps.first) tile.taps = {one.first, 0, one.input - v * axis.stride};
          end = most(end, one.first + one.count * axis.step);
        }
        if (end > 0) {
          tile.taps.count = (end - tile.taps.first) / axis.step;
          left = most(left, -axis.lowest(tile.taps));
          right = most(right, axis.highest(tile.taps) + (n - 1) * axis.stride - (axis.size - 1));
        }
        tiles[count++] = tile;
      }
    }
  }
};

// y = bias + sum over taps; weight(group, k, c) points to the R x S weights between two channels.
template <class T, class Weight>
void lanes(const LanePass& p, const T* x, const Weight& weight, const T* bias, bool relu, T* y) {
  const Axis &rows = p.rows, &columns = p.columns;
  const T* const end = x + p.N * p.groups * p.channels * p.rows.size * p.columns.size;
  const int64_t area = rows.taps * columns.taps, taps = p.channels * area;
  const int64_t x_plane = rows.size * columns.size, y_plane = rows.outputs * columns.outputs;
  const Split k_split(p.outputs, p.k_blocks()), c_split(p.channels, divide_up(p.channels, p.c_block));

  // [group][k block][channel block][channel, tap][k]: the one with the longer loop inside.
  const bool channels_inside = p.c_block > columns.taps / columns.step;
  Scratch<T> packed(p.groups * p.outputs * taps);
  parallel_for(p.groups * k_split.parts, divide_up(GRAIN, DIRECT_ROWS * taps + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / k_split.parts, k0 = k_split.begin(i % k_split.parts);
      const int64_t count = k_split.begin(i % k_split.parts + 1) - k0;
      T* to = packed.get() + (group * p.outputs + k0) * taps;
      for (int64_t b = 0; b < c_split.parts; ++b) {
        const int64_t c0 = c_split.begin(b), channels = c_split.begin(b + 1) - c0;
        const int64_t channel = (channels_inside ? 1 : area) * count, tap = (channels_inside ? channels : 1) * count;
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t k = 0; k < count; ++k) {
            const T* from = weight(group, k0 + k, c0 + c);
            for (int64_t t = 0; t < area; ++t) to[c * channel + t * tap + k] = from[t];
          }
        to += channels * area * count;
      }
    }
  });

  Scratch<Columns> tiles(columns.outputs);
  const LaneColumns row_of_tiles(columns, p.widest, tiles.get());
  const int64_t left = row_of_tiles.left, right = row_of_tiles.right, pitch = (left + columns.size + right) * W<T>;

  // Bands of rows whose two sides fit, and enough of them for several threads.
  const int64_t blocks = divide_up(p.N, W<T>);
  int64_t bands = least(rows.outputs, parts_for(blocks * p.groups));
  for (; bands < rows.outputs; ++bands) {
    const int64_t n = divide_up(rows.outputs, bands);
    if (p.source(n, pitch) <= LANES_IN && p.product(n, W<T>) <= LANES_OUT) break;
  }
  const Split band_split(rows.outputs, bands);
  Scratch<Taps> row_taps(rows.outputs);
  for (int64_t i = 0; i < rows.outputs; ++i) row_taps[i] = rows.of(i);
  // The weights of a pass stay in L1 over the rows of a band, or the input of a row over all k.
  const bool row_by_row = p.outputs * p.c_block * area * int64_t(sizeof(T)) <= 16384;

  const int64_t in_size = p.source(band_split.begin(1), pitch), out_size = p.product(band_split.begin(1), W<T>);
  const int64_t grain = most(1, LANES_GRAIN / (in_size + out_size));
  parallel_for(blocks * p.groups * bands, grain, [&](int64_t begin_unit, int64_t end_unit) {
    Scratch<T> source(in_size), product(out_size);
    for (int64_t unit = begin_unit; unit < end_unit; ++unit) {
      const int64_t image = unit / bands / p.groups * W<T>, group = unit / bands % p.groups, band = unit % bands;
      const int64_t images = least(W<T>, p.N - image), i0 = band_split.begin(band), i1 = band_split.begin(band + 1);
      const int64_t positions = (i1 - i0) * columns.outputs;
      Range read{rows.size, 0};
      for (int64_t i = i0; i < i1; ++i)
        if (row_taps[i].count > 0) {
          read.begin = least(read.begin, rows.lowest(row_taps[i]));
          read.end = most(read.end, rows.highest(row_taps[i]) + 1);
        }
      for (int64_t cb = 0; cb < c_split.parts; ++cb) {
        const int64_t c0 = c_split.begin(cb), channels = c_split.begin(cb + 1) - c0;
        const T* from = x + ((image * p.groups + group) * p.channels + c0) * x_plane;
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t h = read.begin; h < read.end; ++h)
            row_to_lanes(from + c * x_plane + h * columns.size, end, p.groups * p.channels * x_plane, images,
                         columns.size, left, right, source.get() + ((h - read.begin) * channels + c) * pitch);
        LaneTile<T> tile;
        tile.x_step = columns.stride * W<T>;
        tile.y_row = positions * W<T>;
        tile.y_step = columns.divisor * W<T>;
        tile.add = cb > 0;
        const auto row = [&](int64_t i, int64_t b) {
          const int64_t k0 = k_split.begin(b), count = k_split.begin(b + 1) - k0, first = row_taps[i].first;
          const int64_t channel = (channels_inside ? 1 : area) * count, tap = (channels_inside ? channels : 1) * count;
          const T* w = packed.get() + (group * p.outputs + k0) * taps + c0 * area * count + first * columns.taps * tap;
          const T* in_row = source.get() + (row_taps[i].input - read.begin) * channels * pitch + left * W<T>;
          T* out_row = product.get() + (k0 * positions + (i - i0) * columns.outputs) * W<T>;
          tile.bias = bias ? bias + group * p.outputs + k0 : nullptr;
          // In the order of the weights. The columns' count changes from tile to tile.
          auto& over_channels = channels_inside ? tile.inner : tile.outer;
          auto& over_rows = channels_inside ? tile.outer : tile.middle;
          auto& over_columns = channels_inside ? tile.middle : tile.inner;
          over_channels = {channels, channel, pitch};
          over_rows = {row_taps[i].count, rows.step * columns.taps * tap, rows.input_step * channels * pitch};
          over_columns = {0, columns.step * tap, columns.input_step * W<T>};
          for (int64_t t = 0; t < row_of_tiles.count; ++t) {
            over_columns.count = tiles[t].taps.count;
            tile.w = w + tiles[t].taps.first * tap;
            tile.x = in_row + tiles[t].taps.input * W<T>;
            tile.y = out_row + tiles[t].column * W<T>;
            lane_tile_of(count, tiles[t].count, tile);
          }
        };
        if (row_by_row)
          for (int64_t i = i0; i < i1; ++i)
            for (int64_t b = 0; b < k_split.parts; ++b) row(i, b);
        else
          for (int64_t b = 0; b < k_split.parts; ++b)
            for (int64_t i = i0; i < i1; ++i) row(i, b);
      }
      T* to = y + (image * p.groups + group) * p.outputs * y_plane + i0 * columns.outputs;
      for (int64_t k = 0; k < p.outputs; ++k)
        lanes_to_images(product.get() + k * positions * W<T>, positions, relu, to + k * y_plane,
                        p.groups * p.outputs * y_plane, images);
    }
  });
}

template <class T>
void forward_lanes(const Geometry& g, const T* x, const T* w, const T* bias, bool relu, T* y) {
  lanes(
      lanes_forward(g, W<T>), x,
      [&](int64_t group, int64_t k, int64_t c) { return w + ((group * g.Kg + k) * g.Cg + c) * g.R * g.S; }, bias, relu,
      y);
}
template <class T>
void backward_input_lanes(const Geometry& g, const T* dy, const T* w, T* dx) {
  const T* none = nullptr;
  lanes(
      lanes_backward(g, W<T>), dy,
      [&](int64_t group, int64_t c, int64_t k) { return w + ((group * g.Kg + k) * g.Cg + c) * g.R * g.S; }, none, false,
      dx);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
