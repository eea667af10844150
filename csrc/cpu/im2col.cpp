// im2col and col2im as kernels of their own: what makes "convolution is a GEMM" visible, as F.unfold and F.fold.
//   unfold   columns[n, (c,r,s), (i,j)] = x[n, c, i*sh + r*dh - pt, j*sw + s*dw - pl], zero outside
//   fold     its transpose: adds every column back to where it came from
#include "conv_lower.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

// Both as a convolution with one output channel, whose outputs are the columns.
FASTNN_INLINE Geometry column_geometry(const Array& x, const Array& columns, int64_t R, int64_t S, int64_t Ho,
                                       int64_t Wo, int64_t sh, int64_t sw, int64_t pt, int64_t pl, int64_t dh,
                                       int64_t dw) {
  FASTNN_CHECK(x.ndim == 4 && columns.ndim == 3, "x must be (N, C, H, W) and columns (N, C*R*S, L)");
  const int64_t limit = int64_t(1) << 31;
  FASTNN_CHECK(R >= 1 && S >= 1 && Ho >= 1 && Wo >= 1 && R < limit && S < limit && Ho < limit && Wo < limit,
               "kernel and output sizes must be at least 1 and below 2^31");
  const Array w{nullptr, 0, {1, x.shape[1], R, S}, 4, x.dtype}, y{nullptr, 0, {x.shape[0], 1, Ho, Wo}, 4, x.dtype};
  const Geometry g = read_geometry(x, w, y, sh, sw, pt, pl, dh, dw, 1);
  int64_t taps = 0;
  FASTNN_CHECK(!__builtin_mul_overflow(R * S, g.C, &taps) && columns.shape[0] == g.N && columns.shape[1] == taps &&
                   columns.shape[2] == g.P,
               "x and columns do not fit together");
  return g;
}

template <class T>
void unfold(const Array& x, const Array& columns, int64_t R, int64_t S, int64_t Ho, int64_t Wo, int64_t sh, int64_t sw,
            int64_t pt, int64_t pl, int64_t dh, int64_t dw) {
  const Geometry g = column_geometry(x, columns, R, S, Ho, Wo, sh, sw, pt, pl, dh, dw);
  if (columns.size == 0) return;
  const T* px = in<T>(x);
  T* to = out<T>(columns);
  parallel_for(g.N * g.T, most(1, 32768 / g.P), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t plane = i / (g.R * g.S), r = i / g.S % g.R, s = i % g.S;
      const T* from = px + plane * g.H * g.W;
      for (int64_t row = 0; row < g.Ho; ++row) {
        const int64_t h = row * g.sh + r * g.dh - g.pt, shift = s * g.dw - g.pl;
        T* dst = to + i * g.P + row * g.Wo;
        const Range range = h >= 0 && h < g.H ? inside(g.Wo, g.sw, shift, g.W) : Range{0, 0};
        for (int64_t j = 0; j < range.begin; ++j) dst[j] = 0;
        for (int64_t j = range.begin; j < range.end; ++j) dst[j] = from[h * g.W + j * g.sw + shift];
        for (int64_t j = range.end; j < g.Wo; ++j) dst[j] = 0;
      }
    }
  });
}

template <class T>
void fold(const Array& columns, const Array& x, int64_t R, int64_t S, int64_t Ho, int64_t Wo, int64_t sh, int64_t sw,
          int64_t pt, int64_t pl, int64_t dh, int64_t dw) {
  const Geometry g = column_geometry(x, columns, R, S, Ho, Wo, sh, sw, pt, pl, dh, dw);
  if (x.size == 0) return;
  const T* from = in<T>(columns);
  T* px = out<T>(x);
  parallel_for(g.N * g.C, most(1, 32768 / least(32768, g.R * g.S * g.P)), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      T* to = px + plane * g.H * g.W;
      memset(to, 0, static_cast<size_t>(g.H * g.W) * sizeof(T));
      for (int64_t tap = 0; tap < g.R * g.S; ++tap) {
        const T* column = from + (plane * g.R * g.S + tap) * g.P;
        const int64_t top = tap / g.S * g.dh - g.pt, shift = tap % g.S * g.dw - g.pl;
        const Range range = inside(g.Wo, g.sw, shift, g.W);
        for (int64_t row = 0; row < g.Ho; ++row) {
          const int64_t h = top + row * g.sh;
          if (h >= 0 && h < g.H) add_row(to + h * g.W, column + row * g.Wo, g.sw, shift, range);
        }
      }
    }
  });
}

FASTNN_KERNELS(im2col,
               FASTNN_KERNEL(unfold,
                             "x -> columns | kernel_h, kernel_w, out_h, out_w, stride_h, stride_w, pad_top, "
                             "pad_left, dilation_h, dilation_w"),
               FASTNN_KERNEL(fold,
                             "columns -> x | kernel_h, kernel_w, out_h, out_w, stride_h, stride_w, pad_top, "
                             "pad_left, dilation_h, dilation_w"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
