// The sums that normalisation is made of: pairs of sums over the elements of a channel of (N, C, S), or over the rows
// of each column. They are cut into pieces by shape; a piece's sums are written out, and a second kernel adds them up
// in order. In double: a channel may have millions of elements, and far from 0 the variance is a small difference.
#pragma once
#include "divide.cuh"

struct Pair {
  double a, b;
  FASTNN_INLINE void add(double to_a, double to_b) {
    a += to_a;
    b += to_b;
  }
};

// `by_s` divides by S.
struct Planes {
  int64_t N, C, S, by_s;
};

// body(i) for i = begin, begin + step, ... below end: four at a time, so that their loads are under way together.
template <class F>
FASTNN_INLINE void walk(int begin, int end, int step, const F& body) {
  int i = begin;
  for (; i < end - 3 * step; i += 4 * step) {
#pragma unroll
    for (int j = 0; j < 4; ++j) body(i + j * step);
  }
#pragma unroll 1
  for (; i < end; i += step) body(i);
}

// Over elements [piece * length, (piece + 1) * length) of the channel's N * S, where the block is (channel, piece) of
// the grid: add(at, sums) adds the V elements at offset `at` of the array. All threads get the result.
template <int V, class F>
FASTNN_INLINE Pair plane_sums(const Planes& p, int64_t length, const F& add) {
  const int64_t channel = blockIdx.x, begin = blockIdx.y * length, image = begin / p.S, left = p.N * p.S - begin;
  const int64_t corner = (image * p.C + channel) * p.S, beyond = (p.C - 1) * p.S;  // from a plane's end to its next
  const int count = int(left < length ? left : length), offset = int(begin - image * p.S);
  Pair sums{};
  walk(int(threadIdx.x) * V, count, int(blockDim.x) * V,
       [&](int i) { add(corner + offset + i + divide(offset + i, p.by_s) * beyond, sums); });
  const double a = block_reduce(sums.a, Sum{}, 0.0);
  return {a, block_reduce(sums.b, Sum{}, 0.0)};
}

// Over rows [piece * length, (piece + 1) * length) of an array (rows, columns), a lane a column, 8 warps with every
// eighth row each; the block is (32 columns, piece) of the grid. add(row, column, sums) adds an element.
constexpr int ROW_WARPS = 8;
template <class F>
FASTNN_INLINE void column_sums(double* sums, int64_t rows, int64_t columns, int64_t length, const F& add) {
  __shared__ Pair parts[ROW_WARPS][WARP];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int64_t column = int64_t(blockIdx.x) * WARP + lane, begin = blockIdx.y * length;
  const int count = int(rows - begin < length ? rows - begin : length);
  Pair own{};
  if (column < columns) walk(warp, count, ROW_WARPS, [&](int row) { add(begin + row, column, own); });
  parts[warp][lane] = own;
  __syncthreads();
  if (warp > 0 || column >= columns) return;
  for (int i = 1; i < ROW_WARPS; ++i) own.add(parts[i][lane].a, parts[i][lane].b);
  double* to = sums + 2 * (blockIdx.y * columns + column);
  to[0] = own.a;
  to[1] = own.b;
}

// A warp adds up the pieces of its channel: sums (pieces, C, S, 2), with S = 1 where plane_sums made them.
FASTNN_INLINE Pair total_sums(const double* sums, int64_t pieces, int64_t C, int64_t S, int64_t channel) {
  Pair total{};
  for (int64_t i = threadIdx.x % WARP; i < pieces * S; i += WARP) {
    const double* from = sums + 2 * ((i / S * C + channel) * S + i % S);
    total.add(from[0], from[1]);
  }
  const double a = warp_reduce(total.a, Sum{});
  return {a, warp_reduce(total.b, Sum{})};
}
