// Products on the ordinary units, in float or double, on any GPU: the main loop of C(M x N) = A(M x K) B(K x N), which
// knows nothing of what becomes of the sums. An element is the sum over K in order (in order within each slice).
//
// A block copies panels of A and of B (transposed) to shared memory, row after row of K, several stages ahead; a thread
// multiplies TM rows by TN columns from registers, where the operands of the next step are already on their way.
// Registers: TM TN sums and 2 (TM + TN) operands. Shared memory: TM + TN numbers are read for TM TN multiply-adds. If a
// warp's read of 16 bytes takes four cycles, 8 x 16 keeps it busy for three quarters of the time, 8 x 8 for all of it.
#pragma once
#include "common.cuh"

// How a stage keeps a panel of A, or of B transposed: rows next to each other, padded by a pack.
// Eight columns of neighbouring rows (32 bytes of memory) land in different banks, and rows are read in packs.
template <class T, int ROWS>
struct Padded {
  static constexpr int STEP = ROWS + 16 / sizeof(T);
  static FASTNN_INLINE int at(int row, int k) { return k * STEP + row; }
};

// SLICES: so many groups of threads share the tile, each with its part of every stage; their sums are added in order.
// For products of few tiles, where the time is the length of the chain over K.
template <class T_, int BM_, int BN_, int BK_, int TM_, int TN_, int STAGES_, int SLICES_ = 1>
struct SimtTile {
  typedef T_ T;
  static constexpr int BM = BM_, BN = BN_, BK = BK_, TM = TM_, TN = TN_, STAGES = STAGES_, SLICES = SLICES_;
  static constexpr int LANES_M = BM / TM < 8 ? BM / TM : 8, LANES_N = WARP / LANES_M;  // of a warp
  static constexpr int WARPS_N = BN / (LANES_N * TN);
  static constexpr int SLICE = (BM / TM) * (BN / TN), THREADS = SLICE * SLICES;
  static constexpr bool WIDE = TM * TN > 64;  // sums leave in packs only; smaller tiles take any shape
  static constexpr int BLOCKS = TM * TN * sizeof(T) <= 256 ? 2 : 1;  // that should fit an SM at a time, by registers
  typedef Padded<T, BM> PanelA;
  typedef Padded<T, BN> PanelB;
  static constexpr int STAGE = BK * (PanelA::STEP + PanelB::STEP);  // numbers
  static constexpr int SHARED = STAGES * STAGE * int(sizeof(T));
  static_assert(SLICE % WARP == 0 && BK % (2 * SLICES) == 0 && BK % 8 == 0, "whole warps, pairs of steps");
};

// A thread's sums of its block's tile: TM / 4 groups of four rows, TN / 4 of four columns; the groups of a warp's lanes
// follow one another, so that its packs make whole lines.
template <class TILE>
struct SimtSums {
  typedef typename TILE::T T;
  T c[TILE::TM][TILE::TN];

  static FASTNN_INLINE int slice() { return threadIdx.x / TILE::SLICE; }
  static FASTNN_INLINE int thread_row() {
    const int warp = threadIdx.x % TILE::SLICE / WARP, lane = threadIdx.x % WARP;
    return warp / TILE::WARPS_N * (TILE::LANES_M * TILE::TM) + lane / TILE::LANES_N * 4;
  }
  static FASTNN_INLINE int thread_column() {
    const int warp = threadIdx.x % TILE::SLICE / WARP, lane = threadIdx.x % WARP;
    return warp % TILE::WARPS_N * (TILE::LANES_N * TILE::TN) + lane % TILE::LANES_N * 4;
  }
  static FASTNN_INLINE int row_of(int i) { return thread_row() + i / 4 * (4 * TILE::LANES_M) + i % 4; }
  static FASTNN_INLINE int column_of(int j) { return thread_column() + j * TILE::LANES_N; }  // j: a multiple of 4

  // As Sums of gemm_mma.cuh.
  template <class F>
  FASTNN_INLINE void each(F f) const {
    if (slice() != 0) return;
#pragma unroll
    for (int i = 0; i < TILE::TM; ++i)
#pragma unroll
      for (int j = 0; j < TILE::TN; j += 4) {
        const T sums[4] = {c[i][j], c[i][j + 1], c[i][j + 2], c[i][j + 3]};
        f(row_of(i), column_of(j), sums);
      }
  }
  template <class F>
  static FASTNN_INLINE void places(F f) {
    if (slice() != 0) return;
#pragma unroll 1
    for (int i = 0; i < TILE::TM; ++i)
#pragma unroll 1
      for (int j = 0; j < TILE::TN; j += 4) f(row_of(i), column_of(j));
  }
};

// COUNT / 4 groups of four numbers, GAP apart.
template <int COUNT, int GAP, class T>
FASTNN_INLINE void read_groups(T (&to)[COUNT], const T* from) {
  constexpr int LANES = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < COUNT; i += LANES) {
    const Pack<T, LANES> pack = load_pack<LANES>(from + i / 4 * GAP + i % 4);
#pragma unroll
    for (int l = 0; l < LANES; ++l) to[i + l] = pack.v[l];
  }
}

// sums = A B over columns `first` to `end`, through TILE::SHARED bytes of dynamic shared memory.
template <class TILE, class LOAD_A, class LOAD_B>
FASTNN_INLINE void multiply_tiles(SimtSums<TILE>& sums, LOAD_A& load_a, LOAD_B& load_b, int64_t first, int64_t end) {
  typedef typename TILE::T T;
  constexpr int TM = TILE::TM, TN = TILE::TN, STEPS = TILE::BK / TILE::SLICES, AHEAD = TILE::STAGES - 1;
  T* const memory = dynamic_shared<T>();
  const int slice_step = SimtSums<TILE>::slice() * STEPS;
  const T* const from_a = memory + slice_step * TILE::PanelA::STEP + SimtSums<TILE>::thread_row();
  const T* const from_b =
      memory + TILE::BK * TILE::PanelA::STEP + slice_step * TILE::PanelB::STEP + SimtSums<TILE>::thread_column();

  int64_t next = first;
  const auto start = [&](int stage) {
    if (next < end) {
      load_a(memory + stage * TILE::STAGE, next);
      load_b(memory + stage * TILE::STAGE + TILE::BK * TILE::PanelA::STEP, next);
    }
    next += TILE::BK;
    cp_async_commit();  // an empty group too: the count of groups is what wait goes by
  };
  T a[2][TM], b[2][TN];
  const auto read = [&](int buffer, int stage, int step) {
    read_groups<TM, 4 * TILE::LANES_M>(a[buffer], from_a + stage * TILE::STAGE + step * TILE::PanelA::STEP);
    read_groups<TN, 4 * TILE::LANES_N>(b[buffer], from_b + stage * TILE::STAGE + step * TILE::PanelB::STEP);
  };

#pragma unroll
  for (int i = 0; i < TM; ++i)
#pragma unroll
    for (int j = 0; j < TN; ++j) sums.c[i][j] = T(0);
#pragma unroll 1
  for (int stage = 0; stage < AHEAD; ++stage) start(stage);
  cp_async_wait<AHEAD - 1>();
  __syncthreads();
  int stage = 0, behind = AHEAD;
  read(0, 0, 0);

#pragma unroll 1
  for (int64_t k = first; k < end; k += TILE::BK) {
    start(behind);  // the stage that all have left
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      if (step == STEPS - 1) {
        cp_async_wait<AHEAD - 1>();
        __syncthreads();  // the next stage has landed for all, and all have read this one's last operands
        behind = stage;
        stage = stage == AHEAD ? 0 : stage + 1;
      }
      read((step + 1) % 2, stage, (step + 1) % STEPS);
#pragma unroll
      for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN; ++j) sums.c[i][j] += a[step % 2][i] * b[step % 2][j];
    }
  }
  cp_async_wait<0>();
  if (TILE::SLICES == 1) return;

  // The other slices' sums, [slice][sum][thread], to the first one's.
  static_assert((TILE::SLICES - 1) * TILE::BM * TILE::BN <= TILE::STAGES * TILE::STAGE, "no room for the slices' sums");
  T* const mine = memory + (SimtSums<TILE>::slice() - 1) * (TILE::BM * TILE::BN) + threadIdx.x % TILE::SLICE;
  __syncthreads();
  if (SimtSums<TILE>::slice() != 0) {
#pragma unroll
    for (int i = 0; i < TM * TN; ++i) mine[i * TILE::SLICE] = sums.c[i / TN][i % TN];
  }
  __syncthreads();
  if (SimtSums<TILE>::slice() == 0) {
#pragma unroll
    for (int slice = 1; slice < TILE::SLICES; ++slice)
#pragma unroll
      for (int i = 0; i < TM * TN; ++i) sums.c[i / TN][i % TN] += mine[slice * (TILE::BM * TILE::BN) + i * TILE::SLICE];
  }
}
