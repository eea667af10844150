// Optimizer updates of all parameters in one launch: each reads the gradients and writes the parameters and their state
// in place. And what comes before an update: the norm of all gradients, and scaling them to a smaller one. The arrays
// come as a table in device memory, one row for each piece of at most PIECE elements of an array, one block a row:
//   table (pieces, 1 + kinds) = elements of the piece, then the address of its first element in each kind of array
// What is computed stands in ../formulas.h; here are only the loops. Next: python/fastnn/cuda/optim.py makes the table.
#include "common.cuh"
#include "formulas.h"

constexpr int64_t PIECE = 4096;

// The KINDS arrays of a block's piece. f(v) updates one element of each, v[kind], in registers; the last WRITTEN kinds
// are stored. Absent arrays (address 0) read as 0 and are not stored. 16 bytes at once where all arrays allow it.
template <class T, int KINDS, int WRITTEN, class F>
FASTNN_INLINE void update_piece(const int64_t* table, F f) {
  constexpr int N = 16 / sizeof(T);
  const int64_t* row = table + blockIdx.x * int64_t(1 + KINDS);
  const int64_t size = row[0];
  T* p[KINDS];
  int64_t addresses = 0;
#pragma unroll
  for (int kind = 0; kind < KINDS; ++kind) {
    p[kind] = reinterpret_cast<T*>(row[1 + kind]);
    addresses |= row[1 + kind];
  }
  const int64_t packs = addresses % 16 ? 0 : size / N;
  for (int64_t i : block_stride(packs)) {
    Pack<T, N> pack[KINDS];
#pragma unroll
    for (int kind = 0; kind < KINDS; ++kind) pack[kind] = p[kind] ? load_pack<N>(p[kind] + i * N) : Pack<T, N>{};
#pragma unroll
    for (int j = 0; j < N; ++j) {
      T v[KINDS];
#pragma unroll
      for (int kind = 0; kind < KINDS; ++kind) v[kind] = pack[kind].v[j];
      f(v);
#pragma unroll
      for (int kind = 0; kind < KINDS; ++kind) pack[kind].v[j] = v[kind];
    }
#pragma unroll
    for (int kind = KINDS - WRITTEN; kind < KINDS; ++kind)
      if (p[kind]) store_pack<N>(p[kind] + i * N, pack[kind]);
  }
  for (int64_t i : block_stride(size - packs * N)) {
    T v[KINDS];
    const int64_t at = packs * N + i;
#pragma unroll
    for (int kind = 0; kind < KINDS; ++kind) v[kind] = p[kind] ? p[kind][at] : T(0);
    f(v);
#pragma unroll
    for (int kind = KINDS - WRITTEN; kind < KINDS; ++kind)
      if (p[kind]) p[kind][at] = v[kind];
  }
}

// The gradient of what is minimised: with its sign turned to maximise, and with weight decay as an L2 penalty.
template <class T>
FASTNN_INLINE T gradient(T dw, T w, T decay, int maximize) {
  if (maximize) dw = -dw;
  return decay != 0 ? dw + w * decay : dw;
}

// table: dw, w, buffer (0: no momentum). rest = 1 - dampening.
template <class T>
__global__ void sgd_step(const int64_t* table, T lr, T momentum, T rest, T weight_decay, int nesterov, int maximize,
                         int first) {
  const bool buffered = table[blockIdx.x * int64_t(4) + 3] != 0;
  update_piece<T, 3, 2>(table, [=](T(&v)[3]) {
    T g = gradient(v[0], v[1], weight_decay, maximize);
    if (buffered) {
      v[2] = first ? g : momentum_of(v[2], g, momentum, rest);
      g = nesterov ? g + v[2] * momentum : v[2];
    }
    v[1] = descend(v[1], g, lr);
  });
}

// table: dw, w, mean, square, largest (0: no AMSGrad). rate = 1 - beta; shrink: AdamW's decay of the weight itself;
// size and scale hold the corrections for having started at 0.
template <class T>
__global__ void adam_step(const int64_t* table, T rate1, T beta2, T rate2, T eps, T penalty, T shrink, T size, T scale,
                          int maximize) {
  const bool amsgrad = table[blockIdx.x * int64_t(6) + 5] != 0;
  update_piece<T, 5, 4>(table, [=](T(&v)[5]) {
    const T g = gradient(v[0], v[1], penalty, maximize);
    v[2] = adam_mean(v[2], g, rate1);
    v[3] = adam_square(v[3], g, beta2, rate2);
    if (amsgrad) v[4] = Max{}(v[4], v[3]);
    v[1] = adam_update(v[1] * shrink, v[2], sqrt(amsgrad ? v[4] : v[3]), size, scale, eps);
  });
}

// table: x. x *= factor
template <class T>
__global__ void scale(const int64_t* table, T factor) {
  update_piece<T, 1, 1>(table, [=](T(&v)[1]) { v[0] *= factor; });
}

// table: x. partial (pieces,) = the sum of squares, or with `largest` the largest absolute value, of each piece. A
// thread sums at most PIECE / blockDim squares in T, the block in double.
template <class T>
__global__ void norm_pieces(const int64_t* table, double* partial, int largest) {
  T own = 0;
  update_piece<T, 1, 0>(table, [&](T(&v)[1]) { own = largest ? Max{}(own, magnitude(v[0])) : own + v[0] * v[0]; });
  const double total = largest ? block_reduce(double(own), Max{}, 0.0) : block_reduce(double(own), Sum{}, 0.0);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// One block; pieces may be 0. y is the sum, or with `largest` the largest, of the pieces' numbers.
__global__ void finish_norm(const double* partial, double* y, int64_t pieces, int largest) {
  double total = 0;
  for (int64_t i : block_stride(pieces)) total = largest ? Max{}(total, partial[i]) : total + partial[i];
  total = largest ? block_reduce(total, Max{}, 0.0) : block_reduce(total, Sum{}, 0.0);
  if (threadIdx.x == 0) *y = total;
}
