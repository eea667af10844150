// The plan `depthwise`: 3x3 kernels, one channel in and one out to a group, stride 1 or 2, a plane at a time. The plane
// is copied between zeros into L1 (with stride 2 its even and odd columns apart), so that nothing is tested inside; a
// lane is a column, and going down the rows, the three vectors of a row of x serve its nine products.
//   forward   y = w * x           dx   the same, of dy (with stride 2 between zeros) and w turned by half a circle
//   dw        nine sums that stay in registers over a plane and, image by image, over the batch
#pragma once
#include "conv_direct.h"
#include "shuffle.h"

namespace fastnn {
namespace FASTNN_ISA {

// A plane between zeros: rows + 2 (stride 2: 2 * rows + 1) rows, the taps of `columns` outputs each. `odd`: from a
// row's even columns to its odd ones.
template <class T>
struct DepthwisePlane {
  int64_t rows, columns, stride, width, odd, pitch;
  FASTNN_INLINE DepthwisePlane(int64_t rows_, int64_t columns_, int64_t stride_)
      : rows(rows_), columns(columns_), stride(stride_), width(divide_up(columns_, W<T>) * W<T> + 2) {
    odd = width + 2 * W<T>;  // copy_row writes beyond the width
    pitch = stride * odd;
  }
  FASTNN_INLINE int64_t read_rows() const { return (rows - 1) * stride + 3; }
  FASTNN_INLINE int64_t size() const { return read_rows() * pitch; }

  // x (H x W), whose row `top` and column `left` lie at the origin: negative ones are padding.
  void fill(const T* x, int64_t H, int64_t width_of_x, int64_t top, int64_t left, T* to) const {
    if (stride == 2) return fill_halves(x, H, width_of_x, top, -left, to);
    const Range range = inside(width, 1, left, width_of_x);
    for (int64_t h = top; h < top + read_rows(); ++h, to += pitch)
      if (h >= 0 && h < H && range.begin < range.end)
        copy_row(to, x + h * width_of_x, width, 1, left, range);
      else
        zero_row(to, width);
  }
  // Which columns of x are the even ones depends on the padding before them.
  void fill_halves(const T* x, int64_t H, int64_t width_of_x, int64_t top, int64_t pl, T* to) const {
    const int64_t first = pl % 2 * odd + pl / 2, second = (1 - pl % 2) * odd + (pl + 1) / 2;
    const int64_t room = most(0, width - (pl + 1) / 2), pairs = least(width_of_x / 2, room);
    for (int64_t h = top; h < top + read_rows(); ++h, to += pitch) {
      zero_row(to, width);
      zero_row(to + odd, width);
      if (h < 0 || h >= H) continue;
      const T* row = x + h * width_of_x;
      each_vector<T>(0, pairs, [&](int64_t j, int64_t n) {
        const Pairs<T> pair = load_pairs(row + 2 * j, n);
        store(to + first + j, pair.even, n);
        store(to + second + j, pair.odd, n);
      });
      if (2 * pairs < width_of_x && pairs < room) to[first + pairs] = row[2 * pairs];
    }
  }
  // dy (Ho x Wo) with a zero after each of its rows and columns; stride 1.
  void fill_apart(const T* dy, int64_t Ho, int64_t Wo, int64_t top, int64_t left, T* to) const {
    for (int64_t h = 0; h < read_rows(); ++h) {
      T* row = to + h * pitch;
      zero_row(row, width);
      const int64_t from = top + h;
      if (from < 0 || from % 2 != 0 || from / 2 >= Ho) continue;
      each_vector<T>(0, Wo, [&](int64_t j, int64_t n) {
        const Vec<T> v = load(dy + from / 2 * Wo + j, n);
        if (n == W<T>)
          store_zipped(row - left + 2 * j, v, Vec<T>{});
        else
          store_zipped_n(row - left + 2 * j, v, Vec<T>{}, n);
      });
    }
  }
};

// Handed over by value, as the plane is: stores to y could change what a reference names.
template <class T>
struct DepthwiseWeights {
  Vec<T> tap[9];
};

// NV vectors of columns of all rows, with stride 1: a row of x is the third of one output, the second of the next and
// the first of the one after, whose sums are under way together.
template <class T, int NV>
void depthwise_columns(const DepthwisePlane<T> p, const T* x, const DepthwiseWeights<T> w, Vec<T> bias, bool relu, T* y,
                       int64_t last) {
  Vec<T> upper[NV] = {}, lower[NV] = {};
  for (int64_t h = 0; h < p.rows + 2; ++h, x += p.pitch) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      Vec<T> tap[3];
#pragma GCC unroll 3
      for (int s = 0; s < 3; ++s) tap[s] = keep(load(x + v * W<T> + s));
      Vec<T> sum = upper[v];
      upper[v] = lower[v];
      lower[v] = bias;
#pragma GCC unroll 3
      for (int s = 0; s < 3; ++s) {
        lower[v] += w.tap[s] * tap[s];
        upper[v] += w.tap[3 + s] * tap[s];
        sum += w.tap[6 + s] * tap[s];
      }
      if (h >= 2) store(y + (h - 2) * p.columns + v * W<T>, relu ? relu_of(sum) : sum, v + 1 < NV ? W<T> : last);
    }
  }
}

// A vector of columns with stride 2: the last row of an output is the first of the next one.
template <class T>
void depthwise_columns_apart(const DepthwisePlane<T> p, const T* x, const DepthwiseWeights<T> w, Vec<T> bias, bool relu,
                             T* y, int64_t last) {
  const auto row = [&](const T* at, int r, Vec<T> sum) __attribute__((always_inline)) {
    return sum + w.tap[3 * r] * load(at) + w.tap[3 * r + 1] * load(at + p.odd) + w.tap[3 * r + 2] * load(at + 1);
  };
  Vec<T> first = row(x, 0, bias);
  for (int64_t i = 0; i < p.rows; ++i, x += 2 * p.pitch) {
    const Vec<T> sum = row(x + 2 * p.pitch, 2, row(x + p.pitch, 1, first));
    if (i + 1 < p.rows) first = row(x + 2 * p.pitch, 0, bias);
    store(y + i * p.columns, relu ? relu_of(sum) : sum, last);
  }
}

template <class T>
FASTNN_INLINE void depthwise_plane(const DepthwisePlane<T>& p, const T* x, const T* w, bool turned, T bias, bool relu,
                                   T* y) {
  DepthwiseWeights<T> taps;
  for (int t = 0; t < 9; ++t) taps.tap[t] = set<T>(w[turned ? 8 - t : t]);
  int64_t j = 0;
  if (p.stride == 1)
    for (; j + W<T> < p.columns; j += 2 * W<T>)
      depthwise_columns<T, 2>(p, x + j, taps, set<T>(bias), relu, y + j, least(W<T>, p.columns - j - W<T>));
  for (; j < p.columns; j += W<T>) {
    const int64_t last = least(W<T>, p.columns - j);
    if (p.stride == 1)
      depthwise_columns<T, 1>(p, x + j, taps, set<T>(bias), relu, y + j, last);
    else
      depthwise_columns_apart<T>(p, x + j, taps, set<T>(bias), relu, y + j, last);
  }
}

// acc[t] += dy times what tap t reads, over a plane. With stride 1 a row of x meets three rows of dy.
template <class T>
FASTNN_INLINE void depthwise_dots(const DepthwisePlane<T>& p, const T* x, const T* dy, Vec<T> (&acc)[9]) {
  for (int64_t j = 0; j < p.columns; j += W<T>) {
    const int64_t n = least(W<T>, p.columns - j);
    const T* at = x + j;
    if (p.stride == 1) {
      Vec<T> above[2] = {};
      for (int64_t h = 0; h < p.rows + 2; ++h, at += p.pitch) {
        const Vec<T> d = h < p.rows ? load(dy + h * p.columns + j, n) : Vec<T>{};
#pragma GCC unroll 3
        for (int s = 0; s < 3; ++s) {
          const Vec<T> tap = keep(load(at + s));
          acc[s] += d * tap;
          acc[3 + s] += above[0] * tap;
          acc[6 + s] += above[1] * tap;
        }
        above[1] = above[0];
        above[0] = d;
      }
    } else {
      for (int64_t i = 0; i < p.rows; ++i) {
        const Vec<T> d = load(dy + i * p.columns + j, n);
#pragma GCC unroll 3
        for (int r = 0; r < 3; ++r, at += p.pitch) {
          acc[3 * r] += d * load(at);
          acc[3 * r + 1] += d * load(at + p.odd);
          acc[3 * r + 2] += d * load(at + 1);
        }
        at -= p.pitch;
      }
    }
  }
}

FASTNN_INLINE bool depthwise_possible(const Geometry& g) {
  return g.Cg == 1 && g.Kg == 1 && g.R == 3 && g.S == 3 && g.dh == 1 && g.dw == 1 && g.sh == g.sw && g.sh <= 2 &&
         double(g.Ho + g.H + 6) * 2 * double(g.Wo + g.W + 64) < double(SCRATCH_LIMIT);
}
// With stride 2, dy lies between zeros, and must not reach beyond them.
FASTNN_INLINE bool depthwise_input_possible(const Geometry& g) {
  return depthwise_possible(g) && (g.sh == 1 || (g.pl <= 2 && 2 * g.Wo - g.pl <= g.W + 1));
}

template <class T>
void forward_depthwise(const Geometry& g, const T* x, const T* w, const T* bias, bool relu, T* y) {
  const DepthwisePlane<T> plane(g.Ho, g.Wo, g.sh);
  parallel_for(g.N * g.C, divide_up(GRAIN, g.P + g.H * g.W), [&](int64_t begin, int64_t end) {
    Scratch<T> padded(plane.size());
    for (int64_t i = begin; i < end; ++i) {
      plane.fill(x + i * g.H * g.W, g.H, g.W, -g.pt, -g.pl, padded.get());
      const int64_t c = i % g.C;
      depthwise_plane(plane, padded.get(), w + 9 * c, false, bias ? bias[c] : T(0), relu, y + i * g.P);
    }
  });
}

template <class T>
void backward_input_depthwise(const Geometry& g, const T* dy, const T* w, T* dx) {
  const DepthwisePlane<T> plane(g.H, g.W, 1);
  parallel_for(g.N * g.C, divide_up(GRAIN, g.P + g.H * g.W), [&](int64_t begin, int64_t end) {
    Scratch<T> padded(plane.size());
    for (int64_t i = begin; i < end; ++i) {
      if (g.sh == 1)
        plane.fill(dy + i * g.P, g.Ho, g.Wo, g.pt - 2, g.pl - 2, padded.get());
      else
        plane.fill_apart(dy + i * g.P, g.Ho, g.Wo, g.pt - 2, g.pl - 2, padded.get());
      depthwise_plane(plane, padded.get(), w + 9 * (i % g.C), true, T(0), false, dx + i * g.H * g.W);
    }
  });
}

// Units of a channel and a part of the images.
template <class T>
void backward_weight_depthwise(const Geometry& g, const T* dy, const T* x, T* dw) {
  const DepthwisePlane<T> plane(g.Ho, g.Wo, g.sh);
  const Split images(g.N, least(g.N, parts_for(g.C)));
  Scratch<T> sums(images.parts > 1 ? images.parts * g.C * 9 : 0);
  const int64_t work = divide_up(g.N, images.parts) * (g.P + g.H * g.W);
  parallel_for(images.parts * g.C, divide_up(GRAIN, work), [&](int64_t begin, int64_t end) {
    Scratch<T> padded(plane.size());
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t part = unit / g.C, c = unit % g.C;
      Vec<T> acc[9] = {};
      for (int64_t n = images.begin(part); n < images.begin(part + 1); ++n) {
        plane.fill(x + (n * g.C + c) * g.H * g.W, g.H, g.W, -g.pt, -g.pl, padded.get());
        depthwise_dots(plane, padded.get(), dy + (n * g.C + c) * g.P, acc);
      }
      T* to = (images.parts > 1 ? sums.get() + part * g.C * 9 : dw) + c * 9;
      for (int t = 0; t < 9; ++t) to[t] = T(0);
      add_lane_sums<T, 3, 3>(acc, to, 3);
    }
  });
  add_parts(sums.get(), images.parts, g.C * 9, dw);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
