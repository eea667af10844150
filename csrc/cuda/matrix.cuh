// Plain matrices for the main loops of gemm_simt.cuh and gemm_mma.cuh: loaders of panels, and which tile a block works
// on. A panel holds ROWS rows and some columns of op(A), or of op(B) transposed; what lies beyond the matrix is 0.
#pragma once
#include "gemm_mma.cuh"
#include "gemm_simt.cuh"

// Any matrix: row r, column k at base[r * row_step + k * k_step], one of which is 1, to PANEL::at(r, k); BK columns.
template <class T, class PANEL, int ROWS, int BK, int THREADS>
struct MatrixLoader {
  typedef PANEL Panel;
  const T* base;
  int64_t row_step, k_step, rows, K;
  bool wide;  // rows are next to each other, and packs of them aligned

  FASTNN_INLINE void operator()(T* panel, int64_t first) const {
    if (rows < ROWS || K - first < BK)
      edge(panel, first);
    else if (wide)
      along_rows<16 / sizeof(T)>(panel, base + first * k_step);
    else if (k_step == 1)
      along_k(panel, base + first);
    else
      along_rows<1>(panel, base + first * k_step);
  }

  // Addresses follow from one another: a product for each would cost more than the copy, and stay in a register.
  //
  // Neighbouring threads take packs of N rows.
  template <int N>
  FASTNN_INLINE void along_rows(T* panel, const T* from) const {
    constexpr int ACROSS = ROWS / N, STEPS = THREADS / ACROSS;
    static_assert(THREADS % ACROSS == 0, "whole columns");
    const int row = threadIdx.x % ACROSS * N, k = threadIdx.x / ACROSS;
    from += k * k_step + row;
#pragma unroll
    for (int i = 0; i < BK; i += STEPS) {
      if (STEPS <= BK || k < BK) cp_async<N * sizeof(T)>(panel + PANEL::at(row, k + i), from);
      from += STEPS * k_step;
    }
  }
  // Neighbouring threads take eight columns (32 bytes of float, the least that memory gives) of neighbouring rows.
  FASTNN_INLINE void along_k(T* panel, const T* from) const {
    constexpr int EIGHTS = THREADS / 8, ACROSS = EIGHTS < ROWS ? EIGHTS : ROWS, STEPS = EIGHTS / ACROSS * 8;
    static_assert(ROWS % ACROSS == 0 && BK % STEPS == 0, "whole rows and columns");
    const int row = threadIdx.x / 8 % ACROSS, k = threadIdx.x % 8 + threadIdx.x / (8 * ACROSS) * 8;
    from += row * row_step + k;
#pragma unroll
    for (int i = 0; i < ROWS; i += ACROSS) {
#pragma unroll
      for (int j = 0; j < BK; j += STEPS) cp_async<sizeof(T)>(panel + PANEL::at(row + i, k + j), from + j);
      from += ACROSS * row_step;
    }
  }
  // What ends within the panel: number by number, in either order.
  FASTNN_INLINE void edge(T* panel, int64_t first) const {
#pragma unroll 1
    for (int i = threadIdx.x; i < ROWS * BK; i += THREADS) {
      const int row = k_step == 1 ? i / 8 % ROWS : i % ROWS, k = k_step == 1 ? i % 8 + i / (8 * ROWS) * 8 : i / ROWS;
      const bool inside = row < rows && first + k < K;
      cp_async<sizeof(T)>(panel + PANEL::at(row, k), inside ? base + row * row_step + (first + k) * k_step : base,
                          inside ? sizeof(T) : 0);
    }
  }
};

// A matrix of which every row of memory is aligned to 16 bytes, for 16 columns of K: row r, column k at
// base[r * ld + k], or, unless ALONG_K, at base[k * ld + r].
template <int ROWS, bool ALONG_K, int THREADS>
struct WideLoader {
  typedef typename Choose<ALONG_K, AlongK<ROWS>, AlongRows<ROWS>>::Type Panel;
  const float* base;
  int64_t ld, rows, K;

  FASTNN_INLINE void operator()(float* panel, int64_t first) const {
    constexpr int ACROSS = ALONG_K ? 4 : ROWS / 4;  // packs of a row of memory
    constexpr int STEP = THREADS / ACROSS, LINES = ALONG_K ? ROWS : 16;
    const int pack = threadIdx.x % ACROSS * 4, line = threadIdx.x / ACROSS;
    const float* from = base + (ALONG_K ? line * ld + first + pack : (first + line) * ld + pack);
    if (rows >= ROWS && K - first >= 16) {
#pragma unroll
      for (int i = 0; i < LINES; i += STEP) {
        cp_async<16>(panel + (ALONG_K ? Panel::at(line + i, pack) : Panel::at(pack, line + i)), from);
        from += STEP * ld;
      }
    } else {
#pragma unroll 1
      for (int i = line; i < LINES; i += STEP) {
        const int row = ALONG_K ? i : pack, k = ALONG_K ? pack : i;
        const bool inside = row < rows && first + k < K;
        cp_async<16>(panel + Panel::at(row, k), inside ? from : base, inside ? 16 : 0);
        from += STEP * ld;
      }
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
