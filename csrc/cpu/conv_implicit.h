// The plan `implicit`: each pass as one GEMM over the whole batch, whose packers fetch patches straight into the panels
// of gemm.h: no matrix of patches exists anywhere. In the GEMM's terms, for a group (p runs over images and positions):
//   forward   y[k][p]   = sum over t=(c,r,s) of w[k][t] patch[t][p]
//   dx        dx[c][p]  = sum over t=(k,r,s) of w[k][c][flipped r,s] patch of dy[t][p]       (stride 1)
//   dw        dw[k][t]  = sum over p         of dy[k][p] patch[t][p]
// After Chetlur et al., cuDNN, 2014 (arXiv 1410.0759), section 3.
#pragma once
#include "conv_tile.h"
#include "transpose.h"

namespace fastnn {
namespace FASTNN_ISA {

// A group's part of a batch of images: where its patches come from. `g` says how the patches lie.
template <class T>
struct Patches {
  const Geometry& g;
  const T* x;          // of the group's first channel
  int64_t image_size;  // elements from image to image

  // Outputs that follow one another in a row of y: the first reads column `w` of row `h` for tap (0, 0).
  struct Run {
    const T* image;
    int64_t at, length, h, w;
  };
  FASTNN_INLINE int64_t runs(int64_t p, int64_t count, Run* to) const {
    int64_t n = 0;
    for (int64_t at = 0; at < count; ++n) {
      const int64_t position = (p + at) % g.P, column = position % g.Wo;
      const int64_t length = least(count - at, g.Wo - column);
      to[n] = {x + (p + at) / g.P * image_size, at, length, position / g.Wo * g.sh - g.pt, column * g.sw - g.pl};
      at += length;
    }
    return n;
  }

  // row[at + j] = what tap (c,r,s) reads for output j of the run; where that is padding, row keeps its zeros. Writes up
  // to W beyond the run's end: runs are to be copied in order.
  FASTNN_INLINE void copy(const Run& run, int64_t c, int64_t r, int64_t s, T* row) const {
    const int64_t h = run.h + r * g.dh, shift = run.w + s * g.dw;
    if (h < 0 || h >= g.H) return;
    const T* from = run.image + (c * g.H + h) * g.W + shift;
    row += run.at;
    if (g.sw == 1) {
      const int64_t end = least(run.length, g.W - shift);
      int64_t j = shift < 0 ? -shift : 0;
      for (; j + W<T> <= end; j += W<T>) store(row + j, load(from + j));
      if (j < end) store(row + j, load_n(from + j, end - j));
    } else {
      for (int64_t j = 0, w = shift; j < run.length; ++j, w += g.sw)
        if (w >= 0 && w < g.W) row[j] = from[j * g.sw];
    }
  }
};

// B(t, p) of forward and dx: rows of a panel are taps, its columns neighbouring outputs.
template <class T>
struct PatchColumns {
  Patches<T> patches;
  void operator()(T* panel, int64_t k, int64_t depth, int64_t j, int64_t cols) const {
    const Geometry& g = patches.g;
    typename Patches<T>::Run runs[NR<T>];
    const int64_t count = patches.runs(j, cols, runs);
    int64_t c = k / (g.R * g.S), r = k / g.S % g.R, s = k % g.S;
    alignas(64) T last[NR<T> + W<T>];  // copy runs over the end of a row: not so at the panel's end
    for (int64_t p = 0; p < depth; ++p, panel += NR<T>) {
      T* row = p + 1 < depth ? panel : last;
#pragma GCC unroll 4
      for (int v = 0; v < TILE_VECTORS; ++v) store(row + v * W<T>, Vec<T>{});
      for (int64_t i = 0; i < count; ++i) patches.copy(runs[i], c, r, s, row);
      if (++s == g.S) {
        s = 0;
        if (++r == g.R) r = 0, ++c;
      }
    }
    if (depth > 0) memcpy(panel - NR<T>, last, sizeof(T) * NR<T>);
  }
};

// B(p, t) of dw: rows of a panel are outputs, its columns taps. Taken tap by tap, then transposed in registers.
template <class T>
struct PatchRows {
  Patches<T> patches;
  void operator()(T* panel, int64_t k, int64_t depth, int64_t j, int64_t cols) const {
    constexpr int64_t step = 64;
    const Geometry& g = patches.g;
    typename Patches<T>::Run runs[step];
    alignas(64) T taken[NR<T>][step + W<T>];
    for (int64_t p = 0; p < depth; p += step) {
      const int64_t n = least(step, depth - p), count = patches.runs(k + p, n, runs);
      memset(taken, 0, sizeof taken);
      for (int64_t t = 0; t < cols; ++t) {
        const int64_t c = (j + t) / (g.R * g.S), r = (j + t) / g.S % g.R, s = (j + t) % g.S;
        for (int64_t i = 0; i < count; ++i) patches.copy(runs[i], c, r, s, taken[t]);
      }
      for (int64_t row = 0; row < n; row += W<T>)
        for (int64_t column = 0; column < NR<T>; column += W<T>) {
          Vec<T> v[W<T>];
#pragma GCC unroll 16
          for (int i = 0; i < W<T>; ++i) v[i] = load(taken[column + i] + row);
          transpose<T>(v);
          for (int64_t i = 0; i < least(W<T>, n - row); ++i) store(panel + (p + row + i) * NR<T> + column, v[i]);
        }
    }
  }
};

// C's columns are outputs of a batch: column p of row k lies in image p / P.
template <class T>
struct StoreOutputs {
  T* y;  // of the group's first channel
  int64_t P, image_size;
  const T* bias;
  bool relu;

  Target<T> target(int64_t i, int64_t j, int64_t, int64_t cols, bool first, bool last) const {
    if (j % P + cols > P || (last && (bias != nullptr || relu))) return {};
    return {y + j / P * image_size + i * P + j % P, P, !first};
  }
  void operator()(const T* tile, int64_t i, int64_t j, int64_t rows, int64_t cols, bool first, bool last) const {
    for (int64_t c = 0; c < cols;) {  // the columns of one image
      const int64_t at = (j + c) % P, n = least(cols - c, P - at);
      T* to = y + (j + c) / P * image_size + i * P + at;
      for (int64_t r = 0; r < rows; ++r, to += P)
        for (int64_t v = 0; v < n; v += W<T>) {
          const int64_t lanes = least(W<T>, n - v);
          Vec<T> sum = load_n(tile + r * NR<T> + c + v, lanes);
          if (!first) sum += load_n(to + v, lanes);
          if (last && bias != nullptr) sum += bias[i + r];
          if (last && relu) sum = relu_of(sum);
          if (lanes == W<T>)
            store(to + v, sum);
          else
            store_n(to + v, sum, lanes);
        }
      c += n;
    }
  }
};

// C = dw: a plain matrix.
template <class T>
struct StoreWeights {
  T* dw;
  int64_t ld;
  Target<T> target(int64_t i, int64_t j, int64_t, int64_t, bool first, bool) const {
    return {dw + i * ld + j, ld, !first};
  }
  void operator()(const T* tile, int64_t i, int64_t j, int64_t rows, int64_t cols, bool first, bool) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        T& to = dw[(i + r) * ld + j + c];
        to = first ? tile[r * NR<T> + c] : to + tile[r * NR<T> + c];
      }
  }
};

template <class T>
void forward_implicit(const Geometry& g, const T* x, const T* w, const T* bias, bool relu, T* y) {
  for (int64_t group = 0; group < g.groups; ++group) {
    const T* a = w + group * g.Kg * g.T;
    const auto pack_a = [=](T* panel, int64_t i, int64_t rows, int64_t k, int64_t depth) {
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t p = 0; p < depth; ++p) panel[p * rows + r] = a[(i + r) * g.T + k + p];
    };
    const PatchColumns<T> pack_b{{g, x + group * g.Cg * g.H * g.W, g.C * g.H * g.W}};
    const StoreOutputs<T> store{y + group * g.Kg * g.P, g.P, g.K * g.P, bias ? bias + group * g.Kg : nullptr, relu};
    gemm_blocks<T>(g.Kg, g.N * g.P, g.T, pack_a, pack_b, store, {a, g.T});
  }
}

// dx is the convolution of dy with the weights turned by half a circle, channels in and out exchanged.
template <class T>
void backward_input_implicit(const Geometry& g, const T* dy, const T* w, T* dx) {
  Geometry t = g;
  t.H = g.Ho, t.W = g.Wo, t.Ho = g.H, t.Wo = g.W, t.P = g.H * g.W;
  t.pt = (g.R - 1) * g.dh - g.pt, t.pl = (g.S - 1) * g.dw - g.pl;  // may be negative: then dy is cropped
  const int64_t area = g.R * g.S;
  for (int64_t group = 0; group < g.groups; ++group) {
    const T* from = w + group * g.Kg * g.T;
    const auto pack_a = [=](T* panel, int64_t i, int64_t rows, int64_t k, int64_t depth) {
      int64_t channel = k / area, tap = k % area;
      for (int64_t p = 0; p < depth; ++p, panel += rows) {
        const T* a = from + channel * g.T + i * area + area - 1 - tap;
        for (int64_t r = 0; r < rows; ++r) panel[r] = a[r * area];
        if (++tap == area) tap = 0, ++channel;
      }
    };
    const PatchColumns<T> pack_b{{t, dy + group * g.Kg * g.P, g.K * g.P}};
    const StoreOutputs<T> store{dx + group * g.Cg * t.P, t.P, g.C * t.P, nullptr, false};
    gemm_blocks<T>(g.Cg, g.N * t.P, g.Kg * area, pack_a, pack_b, store);
  }
}

template <class T>
void backward_weight_implicit(const Geometry& g, const T* dy, const T* x, T* dw) {
  for (int64_t group = 0; group < g.groups; ++group) {
    const T* from = dy + group * g.Kg * g.P;
    const auto pack_a = [=](T* panel, int64_t i, int64_t rows, int64_t k, int64_t depth) {
      for (int64_t p = 0; p < depth;) {  // the positions of one image
        const int64_t at = (k + p) % g.P, n = least(depth - p, g.P - at);
        const T* a = from + (k + p) / g.P * g.K * g.P + i * g.P + at;
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t q = 0; q < n; ++q) panel[(p + q) * rows + r] = a[r * g.P + q];
        p += n;
      }
    };
    const PatchRows<T> pack_b{{g, x + group * g.Cg * g.H * g.W, g.C * g.H * g.W}};
    gemm_blocks<T>(g.Kg, g.T, g.N * g.P, pack_a, pack_b, StoreWeights<T>{dw + group * g.Kg * g.T, g.T});
  }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
