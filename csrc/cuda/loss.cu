// Losses per element and their gradients; arguments as in csrc/cpu/loss.cpp. What is computed stands in formulas.h and
// is a template argument: loss_each<float, mse_loss<float>>. Sums run in double, in pieces fixed by the size.
#include "common.cuh"
#include "formulas.h"

constexpr int64_t PIECE = 8192;  // losses that one block adds up, as in python/fastnn/cuda/loss.py

// weight and positive may be missing; where positive is there, it stands for the parameter.
template <class T, auto f>
FASTNN_INLINE T loss_at(const T* x, const T* target, const T* weight, const T* positive, T parameter, int64_t i) {
  return f(x[i], target[i], positive ? positive[i] : parameter) * (weight ? weight[i] : T(1));
}

template <class T, auto f>
__global__ void loss_each(const T* x, const T* target, const T* weight, const T* positive, T* y, int64_t n,
                          T parameter) {
  for (int64_t i : grid_stride(n)) y[i] = loss_at<T, f>(x, target, weight, positive, parameter, i);
}

// partial[piece] = the sum of a piece's losses, one block a piece.
template <class T, auto f>
__global__ void loss_sum(const T* x, const T* target, const T* weight, const T* positive, double* partial, int64_t n,
                         T parameter) {
  const int64_t begin = blockIdx.x * PIECE, count = n - begin < PIECE ? n - begin : PIECE;
  double sum = 0;
  for (int64_t i : block_stride(count)) sum += double(loss_at<T, f>(x, target, weight, positive, parameter, begin + i));
  sum = block_reduce(sum, Sum{}, 0.0);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// y = the sum of all pieces over the divisor, by one block.
template <class T>
__global__ void finish_loss(const double* partial, T* y, int64_t pieces, double divisor) {
  double sum = 0;
  for (int64_t i : block_stride(pieces)) sum += partial[i];
  sum = block_reduce(sum, Sum{}, 0.0);
  if (threadIdx.x == 0) *y = T(sum / divisor);
}

// dx and dtarget, either of which may be missing; dy is one number if `reduced`.
template <class T, auto slope, auto target_slope>
__global__ void loss_backward(const T* dy, const T* x, const T* target, const T* weight, const T* positive, T* dx,
                              T* dtarget, int64_t n, int reduced, T parameter, double divisor) {
  const T common = reduced ? T(double(dy[0]) / divisor) : T(0);
  for (int64_t i : grid_stride(n)) {
    const T p = positive ? positive[i] : parameter, g = (reduced ? common : dy[i]) * (weight ? weight[i] : T(1));
    if (dx) dx[i] = g * slope(x[i], target[i], p);
    if (dtarget) dtarget[i] = g * target_slope(x[i], target[i], p);
  }
}
