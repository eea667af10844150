// Plain matrices for the main loops: loaders of the panels of gemm_mma.cuh, and which tile a block works on.
#pragma once
#include "gemm_mma.cuh"

// ROWS rows of op(A) from `base` on, for THREADS threads, 16 bytes at a time: `base` and `ld` are multiples of 16
// bytes, and so is what there is of a row of memory. ALONG_K: row r, column k at base[r * ld + k], else at
// base[k * ld + r]. Rows from `rows` and columns from `K` on are 0.
template <int ROWS, bool IS_ALONG_K, int THREADS>
struct WideLoader {
  typedef typename Choose<IS_ALONG_K, AlongK<ROWS>, AlongRows<ROWS>>::Type Panel;
  const float* base;
  int64_t ld, K;
  int64_t rows;

  FASTNN_INLINE void operator()(float* panel, int64_t k) const {
    constexpr int PACKS = IS_ALONG_K ? 4 : ROWS / 4;  // of a row of memory
#pragma unroll
    for (int i = 0; i < ROWS * 4 / THREADS; ++i) {
      const int pack = (threadIdx.x + i * THREADS) % PACKS * 4, line = (threadIdx.x + i * THREADS) / PACKS;
      const int row = IS_ALONG_K ? line : pack, column = IS_ALONG_K ? pack : line;
      const bool inside = row < rows && k + column < K;
      const float* from = IS_ALONG_K ? base + row * ld + k + column : base + (k + column) * ld + row;
      cp_async<16>(panel + Panel::at(row, column), inside ? from : base, inside ? 16 : 0);
    }
  }
};

// The same for any matrix, number by number: row r, column k at base[r * row_step + k * k_step]. Neighbouring threads
// take what is next to each other in memory, eight columns of four rows or 32 rows.
template <int ROWS, int THREADS>
struct AnyLoader {
  typedef AlongRows<ROWS> Panel;
  const float* base;
  int64_t row_step, k_step, K;
  int64_t rows;

  FASTNN_INLINE void operator()(float* panel, int64_t k) const {
#pragma unroll
    for (int i = 0; i < ROWS * 16 / THREADS; ++i) {
      const int id = threadIdx.x + i * THREADS;
      const bool along_k = k_step == 1;
      const int row = along_k ? id / 8 % ROWS : id % ROWS, column = along_k ? id % 8 + id / (8 * ROWS) * 8 : id / ROWS;
      const bool inside = row < rows && k + column < K;
      const float* from = base + row * row_step + (k + column) * k_step;
      cp_async<4>(panel + Panel::at(row, column), inside ? from : base, inside ? 4 : 0);
    }
  }
};

// Which tile a block works on, of rows x columns of them: down strips of eight columns, so that the blocks that run at
// a time share panels of A and of B in L2.
struct TileOfBlock {
  int64_t row, column;
  FASTNN_INLINE TileOfBlock(int64_t block, int64_t rows, int64_t columns) {
    const int64_t strip = block / (8 * rows), inside = block % (8 * rows);
    const int64_t left = columns - 8 * strip, width = left < 8 ? left : 8;
    row = inside / width;
    column = 8 * strip + inside % width;
  }
};
