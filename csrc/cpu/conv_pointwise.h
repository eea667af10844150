// The plan `pointwise`: 1x1 kernels with stride 1 and no padding are matrix products as they stand, an image and a
// group at a time: y = w x, dx = w^T dy (w: Kg x Cg, x: Cg x P), dw = the sum over images of dy x^T. Nothing is
// lowered.
#pragma once
#include "conv_direct.h"
#include "gemm_matrix.h"

namespace fastnn {
namespace FASTNN_ISA {

FASTNN_INLINE bool pointwise_possible(const Geometry& g) {
  return g.R == 1 && g.S == 1 && unit_stride(g) && g.pt == 0 && g.pl == 0 && g.Ho == g.H && g.Wo == g.W;
}

// Images and groups that are multiplied side by side where there are many; of few, each with all threads.
FASTNN_INLINE int64_t products_together(const Geometry& g) { return g.N * g.groups >= UNITS ? 1 : g.N * g.groups; }

template <class T>
void forward_pointwise(const Geometry& g, const T* x, const T* w, const T* bias, int64_t activation, T* y) {
  parallel_for(g.N * g.groups, products_together(g), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {  // an image's group, as it lies in x and in y
      const int64_t group = i % g.groups;
      multiply_matrices<T>(
          g.Kg, g.P, g.Cg, w + group * g.Kg * g.Cg, false, x + i * g.Cg * g.P, false,
          {y + i * g.Kg * g.P, g.P, T(1), T(0), bias ? bias + group * g.Kg : nullptr, nullptr, activation});
    }
  });
}

template <class T>
void backward_input_pointwise(const Geometry& g, const T* dy, const T* w, T* dx) {
  parallel_for(g.N * g.groups, products_together(g), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      multiply_matrices<T>(g.Cg, g.P, g.Kg, w + i % g.groups * g.Kg * g.Cg, true, dy + i * g.Kg * g.P, false,
                           {dx + i * g.Cg * g.P, g.P, T(1), T(0), nullptr, nullptr, 0});
  });
}

// Images are dealt to a fixed number of partial sums, which are added in order.
template <class T>
void backward_weight_pointwise(const Geometry& g, const T* dy, const T* x, T* dw) {
  const int64_t total = g.K * g.Cg;
  const Split images(g.N, least(g.N, most(1, least(UNITS, (int64_t(1) << 21) / total))));
  Scratch<T> sums(images.parts > 1 ? images.parts * total : 0);
  parallel_for(images.parts * g.groups, 1, [&](int64_t unit, int64_t) {
    const int64_t part = unit / g.groups, group = unit % g.groups;
    T* const to = (images.parts > 1 ? sums.get() + part * total : dw) + group * g.Kg * g.Cg;
    const int64_t begin = images.begin(part);
    for (int64_t n = begin; n < images.begin(part + 1); ++n)
      multiply_matrices<T>(g.Kg, g.Cg, g.P, dy + (n * g.K + group * g.Kg) * g.P, false,
                           x + (n * g.C + group * g.Cg) * g.P, true,
                           {to, g.Cg, T(1), T(n > begin ? 1 : 0), nullptr, nullptr, 0});
  });
  add_parts(sums.get(), images.parts, total, dw);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
