// What every plan of convolution shares: the geometry, read and checked from the arrays of a call. Plans: conv_direct.h
// (lowered patches and an unpacked GEMM), conv_implicit.h (patches packed into the panels of gemm.h), conv_lanes.h
// (images side by side), conv_lanes_winograd.h (the same, 5 wide with fewer multiplications), conv_winograd.h (3x3 and
// 5x5 with fewer multiplications), conv_shallow.h (the same, 3x3 of few channels), conv_phases.h (the same, strided),
// conv_depthwise.h (3x3, a channel by itself), conv_pointwise.h (1x1, a plain GEMM). conv.cpp chooses between them.
#pragma once
#include "gemm.h"

namespace fastnn {
namespace FASTNN_ISA {

// y[n,k,i,j] = sum over c,r,s of w[k,c,r,s] x[n, c, i*sh + r*dh - pt, j*sw + s*dw - pl]; x is zero outside its H x W.
// The padding below and to the right follows from Ho and Wo, so that it may differ from pt and pl.
struct Geometry {
  int64_t N, C, H, W, K, R, S, Ho, Wo;
  int64_t sh, sw, pt, pl, dh, dw, groups;
  int64_t Cg, Kg;  // channels of a group, in and out
  int64_t P;       // output positions: Ho * Wo
  int64_t T;       // taps of one output: Cg * R * S, the K of the GEMM
};

// Sizes below 2^31 keep every product of two inside int64. An array that is not empty is bounded by memory besides.
FASTNN_INLINE Geometry read_geometry(const Array& x, const Array& w, const Array& y, int64_t sh, int64_t sw, int64_t pt,
                                     int64_t pl, int64_t dh, int64_t dw, int64_t groups) {
  FASTNN_CHECK(x.ndim == 4 && w.ndim == 4 && y.ndim == 4, "x, w and y must have 4 dimensions");
  const int64_t limit = int64_t(1) << 31;
  for (int i = 0; i < 4; ++i)
    FASTNN_CHECK(x.shape[i] < limit && w.shape[i] < limit && y.shape[i] < limit, "a size of 2^31 or more");
  Geometry g{x.shape[0], x.shape[1], x.shape[2], x.shape[3], w.shape[0], w.shape[2], w.shape[3],
             y.shape[2], y.shape[3], sh,         sw,         pt,         pl,         dh,
             dw,         groups,     0,          0,          0,          0};
  FASTNN_CHECK(sh >= 1 && sw >= 1 && dh >= 1 && dw >= 1 && sh < limit && sw < limit && dh < limit && dw < limit,
               "stride and dilation must be at least 1 and below 2^31");
  FASTNN_CHECK(pt >= 0 && pl >= 0 && pt < limit && pl < limit, "padding must be at least 0 and below 2^31");
  FASTNN_CHECK(groups >= 1 && g.C % groups == 0 && g.K % groups == 0, "groups must divide the channels");
  FASTNN_CHECK(w.shape[1] == g.C / groups && y.shape[0] == g.N && y.shape[1] == g.K, "x, w and y do not fit together");
  g.Cg = g.C / groups;
  g.Kg = g.K / groups;
  g.P = g.Ho * g.Wo;
  g.T = g.Cg * g.R * g.S;
  return g;
}

FASTNN_INLINE bool unit_stride(const Geometry& g) { return g.sh == 1 && g.sw == 1; }

// The outputs j in [begin, end) of `count` that read inside [0, size): 0 <= j*stride + shift < size.
struct Range {
  int64_t begin, end;
};
FASTNN_INLINE Range inside(int64_t count, int64_t stride, int64_t shift, int64_t size) {
  const int64_t begin = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
  const int64_t end = size > shift ? (size - shift + stride - 1) / stride : 0;
  return {least(begin, count), most(least(begin, count), least(end, count))};
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
