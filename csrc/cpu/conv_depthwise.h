// The plan `depthwise`: 3x3 kernels, one channel in and one out to a group, stride 1 or 2, a plane at a time, straight
// from where it lies (windows3.h); a lane is a column.
//   forward   y = w * x           dx   the same of dy (stride 2: what the windows that cover an element give it)
//   dw        nine sums that stay in registers over a plane and, image by image, over the batch
#pragma once
#include "conv_direct.h"
#include "windows3.h"

namespace fastnn {
namespace FASTNN_ISA {

FASTNN_INLINE WindowAxis depthwise_rows(const Geometry& g) { return {g.H, g.Ho, g.R, g.sh, g.pt, g.dh}; }
FASTNN_INLINE WindowAxis depthwise_columns(const Geometry& g) { return {g.W, g.Wo, g.S, g.sw, g.pl, g.dw}; }

FASTNN_INLINE bool depthwise_possible(const Geometry& g) {
  return g.Cg == 1 && g.Kg == 1 && is_3x3(depthwise_rows(g), depthwise_columns(g)) &&
         double(g.Ho + g.H + 6) * 2 * double(g.Wo + g.W + g.pl + 64) < double(SCRATCH_LIMIT);
}

// What a row of x gives to the windows whose first, second and third row it is. Summed apart, and added when all three
// are there: nine multiply-adds one after the other would wait for each other.
template <class T>
struct DepthwiseForward {
  struct Row {
    Vec<T> part[3];
  };
  Vec<T> w[9], bias;
  bool relu;
  int64_t room;  // outputs from the plane's first that may be written
  T* y;
  static constexpr T fill = 0;
  FASTNN_INLINE Row none() const { return {}; }
  FASTNN_INLINE Row across(const Row3<T>& row) const {
    Row r;
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) r.part[i] = w[3 * i] * row.v[0] + w[3 * i + 1] * row.v[1] + w[3 * i + 2] * row.v[2];
    return r;
  }
  FASTNN_INLINE void down(int64_t o, int64_t n, const Row& first, const Row& second, const Row& third) const {
    const Vec<T> sum = (first.part[0] + bias) + second.part[1] + third.part[2];
    if (o + W<T> <= room) n = W<T>;  // what follows a short row is written later
    store(y + o, relu ? relu_of(sum) : sum, n);
  }
};

template <class T, int S>
void depthwise_planes(const WindowAxis& rows, const WindowAxis& columns, const Geometry& g, const T* x, const T* w,
                      bool turned, const T* bias, bool relu, T* y) {
  const int64_t planes = g.N * g.C, outputs = rows.out * columns.out;
  parallel_for(planes, divide_up(GRAIN, g.P + g.H * g.W), [&](int64_t begin, int64_t end) {
    const auto margins = margins_of_windows(rows, columns, x, planes);
    for (int64_t p = begin; p < end; ++p) {
      const int64_t c = p % g.C;
      DepthwiseForward<T> f{{}, set(bias ? bias[c] : T(0)), relu, (end - p) * outputs, y + p * outputs};
      for (int t = 0; t < 9; ++t) f.w[t] = set(w[9 * c + (turned ? 8 - t : t)]);
      down3<T, S>(rows, columns, 0, rows.out, margins.plane(p), f);
    }
  });
}
template <class T>
void forward_depthwise(const Geometry& g, const T* x, const T* w, const T* bias, bool relu, T* y) {
  const WindowAxis rows = depthwise_rows(g), columns = depthwise_columns(g);
  g.sh == 1 ? depthwise_planes<T, 1>(rows, columns, g, x, w, false, bias, relu, y)
            : depthwise_planes<T, 2>(rows, columns, g, x, w, false, bias, relu, y);
}

template <class T>
struct DepthwiseGather {
  Vec<T> w[9];
  const T* dy;
  FASTNN_INLINE Vec<T> window(int64_t o, Bits<T> outside) const {
    const Vec<T> none{};
    return keep(outside ? none : load(dy + o));
  }
  FASTNN_INLINE Vec<T> add(Vec<T> sum, Vec<T> g, int tap) const { return sum + w[tap] * g; }
};
// With stride 1 a convolution of dy with w turned by half a circle.
template <class T>
void backward_input_depthwise(const Geometry& g, const T* dy, const T* w, T* dx) {
  const T* const bias = nullptr;
  if (g.sh == 1)
    return depthwise_planes<T, 1>({g.Ho, g.H, 3, 1, 2 - g.pt, 1}, {g.Wo, g.W, 3, 1, 2 - g.pl, 1}, g, dy, w, true, bias,
                                  false, dx);
  const WindowAxis rows = depthwise_rows(g), columns = depthwise_columns(g);
  const int64_t planes = g.N * g.C;
  parallel_for(planes, divide_up(GRAIN, g.P + g.H * g.W), [&](int64_t begin, int64_t end) {
    const auto margins = margins_of_outputs<T>(rows, columns, dy, planes);
    for (int64_t p = begin; p < end; ++p) {
      DepthwiseGather<T> f{{}, margins.plane(p)};
      for (int t = 0; t < 9; ++t) f.w[t] = set(w[9 * (p % g.C) + t]);
      T* const to = dx + p * g.H * g.W;
      columns.padding % 2 == 0 ? gather3<T, 2, false>(rows, columns, to, f) : gather3<T, 2, true>(rows, columns, to, f);
    }
  });
}

// acc[t] += dy times what tap t reads, over the rows of a block of n columns.
template <class T, int S, bool EDGE>
FASTNN_INLINE void depthwise_dots(const Geometry& g, const Block3<T, S>& block, const T* x, const T* dy, int64_t n,
                                  Vec<T> (&acc)[9]) {
  Row3<T> row{};
  const auto read = [&](int64_t h) __attribute__((always_inline)) {
    const bool there = h >= 0 && h < g.H;
    if (there) row = block.template row<EDGE>(x + h * g.W, T(0));
    return there;
  };
  const auto add = [&](int i, Vec<T> d) __attribute__((always_inline)) {
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) acc[3 * i + j] += d * row.v[j];
  };
  if constexpr (S == 1) {  // a row of x meets three rows of dy
    Vec<T> d[3] = {};
    for (int64_t i = 0; i < g.Ho + 2; ++i) {
      d[2] = d[1], d[1] = d[0];
      d[0] = i < g.Ho ? keep(load(dy + i * g.Wo, n)) : Vec<T>{};
      if (!read(i - g.pt)) continue;
      add(0, d[0]), add(1, d[1]), add(2, d[2]);
    }
  } else {  // the last row of a window is the first of the next one
    Vec<T> before{};
    for (int64_t i = 0; i <= g.Ho; ++i) {
      const Vec<T> d = i < g.Ho ? keep(load(dy + i * g.Wo, n)) : Vec<T>{};
      if (read(2 * i - g.pt)) add(0, d), add(2, before);
      if (i < g.Ho && read(2 * i + 1 - g.pt)) add(1, d);
      before = d;
    }
  }
}

// Units of a channel and a part of the images.
template <class T, int S>
void backward_weight_depthwise(const Geometry& g, const T* dy, const T* x, T* dw) {
  const WindowAxis rows = depthwise_rows(g), columns = depthwise_columns(g);
  const Split images(g.N, least(g.N, parts_for(g.C)));
  Scratch<T> sums(images.parts > 1 ? images.parts * g.C * 9 : 0);
  const int64_t work = divide_up(g.N, images.parts) * (g.P + g.H * g.W);
  parallel_for(images.parts * g.C, divide_up(GRAIN, work), [&](int64_t begin, int64_t end) {
    const auto margins = margins_of_windows(rows, columns, x, g.N * g.C);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t part = unit / g.C, c = unit % g.C;
      Vec<T> acc[9] = {};
      for (int64_t image = images.begin(part); image < images.begin(part + 1); ++image) {
        const int64_t p = image * g.C + c;
        const T* const plane = margins.plane(p);
        for (int64_t o = 0; o < g.Wo; o += W<T>) {
          const int64_t n = least(W<T>, g.Wo - o);
          const Block3<T, S> block(columns, o, n);
          block.edge ? depthwise_dots<T, S, true>(g, block, plane, dy + p * g.P + o, n, acc)
                     : depthwise_dots<T, S, false>(g, block, plane, dy + p * g.P + o, n, acc);
        }
      }
      T* to = (images.parts > 1 ? sums.get() + part * g.C * 9 : dw) + c * 9;
      for (int t = 0; t < 9; ++t) to[t] = T(0);
      add_lane_sums<T, 3, 3>(acc, to, 3);
    }
  });
  add_parts(sums.get(), images.parts, g.C * 9, dw);
}
template <class T>
void backward_weight_depthwise(const Geometry& g, const T* dy, const T* x, T* dw) {
  g.sh == 1 ? backward_weight_depthwise<T, 1>(g, dy, x, dw) : backward_weight_depthwise<T, 2>(g, dy, x, dw);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
