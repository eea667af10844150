// What the convolution kernels share: the gather, in which the forward pass, the input's gradient and the weights'
// gradient are three readings of one struct (python/fastnn/cuda/conv.py fills it in), and walks over its rows and
// positions. Next: conv_direct.cu for the plain kernels, conv_gemm.cu for the implicit GEMM.
#pragma once
#include "common.cuh"
#include "formulas.h"

// dst[n, m, i, j] = sum over c, q, u of w(m, c, q, u) src[n, c, i*si + q*dq + oi, j*sj + u*du + oj], with src zero
// outside H x W. Forward: src = x, dst = y, the taps (q, u) are (r, s). The input's gradient: inputs (h, v) that are
// equal modulo the strides, a phase, are the positions of one gather of stride 1 from src = dy, whose taps run
// backwards (dq, du < 0). The weights' gradient: dw(m, c, q, u) = sum over n, i, j of dy[n, m, i, j] times what the
// forward pass multiplied with w there.
struct Gather {
  int64_t N, C, H, W;              // src: images, channels of a group, size
  int64_t M, Ho, Wo, groups;       // dst: channels of a group, positions
  int64_t R, S;                    // taps
  int64_t si, sj, dq, du, oi, oj;  // where a position and a tap read
  int64_t wg, wm, wc, wq, wu, w0;  // w(group, m, c, q, u) stands at w0 + group*wg + m*wm + c*wc + q*wq + u*wu
  int64_t yn, yc, yi, yj, y0;      // dst(n, channel, i, j) stands at y0 + n*yn + channel*yc + i*yi + j*yj
};

template <class T>
FASTNN_INLINE T activated(T sum, const T* bias, int64_t channel, int relu) {
  const T y = bias == nullptr ? sum : sum + bias[channel];
  return relu ? relu_of(y) : y;
}
