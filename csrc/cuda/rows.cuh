// The middle dimension of (outer, n, inner), row by row, and the team of threads that shares a row. One text for three
// teams: 32, a warp (as many rows a block as it has warps); 256, a block; COLUMNS, eight threads of a block of 256 that
// holds 32 neighbouring rows, for inner > 1, where a warp then reads neighbours. Sums run in one order, fixed by n and
// the team. Used by softmax.cu and cross_entropy.cu.
#pragma once
#include "common.cuh"

constexpr int COLUMNS = 0;
constexpr int COLUMN_THREADS = 8;

// The larger of two; a NaN is passed over.
struct Larger {
  template <class T>
  FASTNN_INLINE T operator()(T a, T b) const {
    return b > a ? b : a;
  }
};

template <int TEAM>
struct Row {
  int64_t number, first, n, step;  // which row of (outer, inner), where it begins, elements, from one to the next
  int lane, lanes;                 // this thread's place in the team, and the team's size
  bool there;                      // else this thread only takes part in barriers and shuffles

  FASTNN_INLINE Row(int64_t outer, int64_t length, int64_t inner, int64_t turn = 0) {
    const int64_t block = blockIdx.x + turn * gridDim.x;
    if constexpr (TEAM == COLUMNS) {
      number = block * WARP + threadIdx.x % WARP;
      first = number / inner * length * inner + number % inner;
      step = inner;
      lane = int(threadIdx.x) / WARP;
      lanes = COLUMN_THREADS;
    } else {
      number = (block * blockDim.x + threadIdx.x) / TEAM;
      first = number * length;
      step = 1;
      lane = int(threadIdx.x) % TEAM;
      lanes = TEAM;
    }
    there = number < outer * inner;
    n = there ? length : 0;
  }
  FASTNN_INLINE int64_t at(int64_t i) const { return first + i * step; }

  // v of the whole team combined, in each of its threads. `nothing` is what leaves a value as it is.
  template <class T, class F>
  FASTNN_INLINE T combine(T v, F f, T nothing) const {
    if constexpr (TEAM == COLUMNS) {
      __shared__ T parts[COLUMN_THREADS * WARP];
      const int column = int(threadIdx.x) % WARP;
      __syncthreads();  // the previous call's readers are done
      parts[threadIdx.x] = v;
      __syncthreads();
      v = parts[column];
      for (int i = 1; i < COLUMN_THREADS; ++i) v = f(v, parts[column + WARP * i]);
      return v;
    } else if constexpr (TEAM == WARP) {
      return warp_reduce(v, f);
    } else {
      return block_reduce(v, f, nothing);
    }
  }
  template <class T>
  FASTNN_INLINE T sum(T v) const {
    return combine(v, Sum{}, T(0));
  }
};

// Calls f(i, k) for each element i of this thread's share of the row, its k-th, k < ITEMS; or, with ITEMS = 0, for as
// many as there are, k = 0.
template <int ITEMS, int TEAM, class F>
FASTNN_INLINE void each_own(const Row<TEAM>& row, F f) {
  if constexpr (ITEMS > 0) {
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      const int64_t i = row.lane + int64_t(k) * row.lanes;
      if (i < row.n) f(i, k);
    }
  } else {
#pragma unroll 4
    for (int64_t i = row.lane; i < row.n; i += row.lanes) f(i, 0);
  }
}

// A thread's share of a row of x: in ITEMS registers, read once; or, with ITEMS = 0, read again by each pass.
template <class T, int TEAM, int ITEMS>
struct Share {
  const T* x;
  const Row<TEAM>& row;
  T held[ITEMS > 0 ? ITEMS : 1];

  FASTNN_INLINE Share(const T* numbers, const Row<TEAM>& place) : x(numbers), row(place) {
    if constexpr (ITEMS > 0) each_own<ITEMS>(row, [&](int64_t i, int k) { held[k] = x[row.at(i)]; });
  }
  FASTNN_INLINE T operator()(int64_t i, int k) const {
    if constexpr (ITEMS > 0)
      return held[k];
    else
      return x[row.at(i)];
  }
  // The row's largest element; a NaN is passed over: it shows in the sum of exp(x - top).
  FASTNN_INLINE T top() const {
    T largest = -infinity<T>();
    each_own<ITEMS>(row, [&](int64_t i, int k) { largest = Larger{}(largest, (*this)(i, k)); });
    return row.combine(largest, Larger{}, -infinity<T>());
  }
};
