// The plan `phases`: forward and dw with a stride, of maps so large that they span three steps (AlexNet's 11x11 with
// stride 4), by Winograd. Every s-th row and column of x, from each of the s^2 beginnings, is a channel of its own;
// over these the layer has stride 1 and 3x3 taps, of which the last may be missing, that is, zero:
//   y[k][i][j] = sum over c,a,b,r,t of w[k][c][s r + a][s t + b] x[c][s (i + r) + a - pad][s (j + t) + b - pad]
// 11x11 takes 121 multiplications an output, 16 phases of F(2x2, 3x3) take 64.
//
// In forward an infinity or NaN would reach, through a missing tap, outputs that do not see it: images with one are
// computed again by `im2col`.
#pragma once
#include "conv_direct.h"
#include "conv_winograd.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t PHASES = 1 << 21;  // elements of x as phases, at most, but of one image at least: in L3

// The layer as one over phases: without padding, of as many images as fit.
FASTNN_INLINE Geometry phases_of(const Geometry& g) {
  Geometry p = g;
  p.C = g.C * g.sh * g.sw, p.Cg = g.Cg * g.sh * g.sw;
  p.H = g.Ho + 2, p.W = g.Wo + 2, p.R = 3, p.S = 3, p.T = p.Cg * 9;
  p.sh = p.sw = 1, p.pt = p.pl = 0;
  const int64_t fitting = most(1, PHASES / (p.C * p.H * p.W));
  p.N = divide_up(g.N, divide_up(g.N, fitting));
  return p;
}

FASTNN_INLINE bool phases_possible(const Geometry& g) {
  const double maps = double(g.C) * double(g.sh) * double(g.sw);
  return g.dh == 1 && g.dw == 1 && !unit_stride(g) && g.C > 0 && g.R > 2 * g.sh && g.R <= 3 * g.sh && g.S > 2 * g.sw &&
         g.S <= 3 * g.sw && maps * double(g.Ho + 2) * double(g.Wo + 2) <= 8.0 * PHASES &&
         winograd_possible(phases_of(g));
}

template <class T>
FASTNN_INLINE bool all_finite(const T* p, int64_t n) {
  Vec<T> doubt{};
  each_vector<T>(0, n, [&](int64_t i, int64_t lanes) { doubt += load(p + i, lanes) - load(p + i, lanes); });
  return sum_lanes<T>(doubt) == 0;
}

// Phases of `images` of x, and whether each map was finite.
template <class T>
void split_phases(const Geometry& g, const Geometry& p, int64_t images, const T* x, T* to, bool* finite) {
  parallel_for(images * g.C, 1, [&](int64_t map, int64_t) {
    const T* from = x + map * g.H * g.W;
    T* dst = to + map * g.sh * g.sw * p.H * p.W;
    finite[map] = all_finite(from, g.H * g.W);
    for (int64_t a = 0; a < g.sh; ++a)
      for (int64_t b = 0; b < g.sw; ++b) {
        const Range range = inside(p.W, g.sw, b - g.pl, g.W);
        for (int64_t i = 0; i < p.H; ++i, dst += p.W) {
          const int64_t h = i * g.sh + a - g.pt;
          const bool read = h >= 0 && h < g.H;
          const int64_t begin = read ? range.begin : p.W, end = read ? range.end : p.W;
          const T* row = from + h * g.W + b - g.pl;
          for (int64_t j = 0; j < begin; ++j) dst[j] = 0;
          for (int64_t j = begin; j < end; ++j) dst[j] = row[j * g.sw];
          for (int64_t j = end; j < p.W; ++j) dst[j] = 0;
        }
      }
  });
}

// Calls body(tap, phase tap) for every tap of w and its place among the phases' taps.
template <class F>
FASTNN_INLINE void each_phase_tap(const Geometry& g, const F& body) {
  for (int64_t map = 0; map < g.K * g.Cg; ++map)
    for (int64_t r = 0; r < g.R; ++r)
      for (int64_t s = 0; s < g.S; ++s)
        body((map * g.R + r) * g.S + s, ((map * g.sh + r % g.sh) * g.sw + s % g.sw) * 9 + r / g.sh * 3 + s / g.sw);
}

template <class T>
void forward_phases(const Geometry& g, const T* x, const T* w, const T* bias, bool relu, T* y) {
  if (!all_finite(w, g.K * g.T)) return forward_lowered(g, true, x, w, bias, relu, y);
  Geometry p = phases_of(g), one = g;
  one.N = 1;
  const int64_t most_images = p.N, size = g.C * g.H * g.W;
  Scratch<T> maps(most_images * p.C * p.H * p.W), taps(g.K * p.T);
  Scratch<bool> finite(most_images * g.C);
  memset(taps.get(), 0, static_cast<size_t>(g.K * p.T) * sizeof(T));
  each_phase_tap(g, [&](int64_t tap, int64_t phase) { taps[phase] = w[tap]; });
  for (int64_t image = 0; image < g.N; image += most_images) {
    p.N = least(most_images, g.N - image);
    split_phases(g, p, p.N, x + image * size, maps.get(), finite.get());
    forward_winograd<T>(p, false, maps.get(), taps.get(), bias, relu, y + image * g.K * g.P);
    for (int64_t n = 0; n < p.N; ++n) {
      bool all = true;
      for (int64_t c = 0; c < g.C; ++c) all = all && finite[n * g.C + c];
      if (!all) forward_lowered(one, true, x + (image + n) * size, w, bias, relu, y + (image + n) * g.K * g.P);
    }
  }
}

// The parts of the batch are added in order.
template <class T>
void backward_weight_phases(const Geometry& g, const T* dy, const T* x, T* dw) {
  Geometry p = phases_of(g);
  const int64_t most_images = p.N;
  Scratch<T> maps(most_images * p.C * p.H * p.W), taps(g.K * p.T);
  Scratch<bool> finite(most_images * g.C);
  for (int64_t image = 0; image < g.N; image += most_images) {
    p.N = least(most_images, g.N - image);
    split_phases(g, p, p.N, x + image * g.C * g.H * g.W, maps.get(), finite.get());
    backward_weight_winograd<T>(p, dy + image * g.K * g.P, maps.get(), taps.get());
    each_phase_tap(g, [&](int64_t tap, int64_t phase) { dw[tap] = image == 0 ? taps[phase] : dw[tap] + taps[phase]; });
  }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
