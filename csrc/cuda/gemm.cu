// Matrix products: y = activation(alpha op(a) op(b) + beta y + bias), batches, and the second half of products whose K
// is cut. Which kernel and tile takes which shape: python/fastnn/cuda/gemm.py.
#include "epilogue.cuh"
#include "gemm_simt.cuh"
#include "matrix.cuh"

// One product, or a batch of them: matrix i begins at a + i * step_a and so on. K is cut in parts of `part` columns
// (gridDim.y of them), whose sums go to y, y + M * N, ...
struct Product {
  int64_t M;
  int64_t N;
  int64_t K;
  int64_t part;
  int64_t step_a;
  int64_t step_b;
  int trans_a;
  int trans_b;
};

// What a block works on: its tile's corner, its columns of K, its matrices.
template <class T>
struct Work {
  int64_t m, n, first, end;
  const T *a, *b;
  T* y;
};
template <class TILE, class T>
FASTNN_INLINE Work<T> work_of_block(const T* a, const T* b, T* y, const Product& p) {
  const int64_t rows = divide_up(p.M, TILE::BM), columns = divide_up(p.N, TILE::BN);
  const int64_t item = blockIdx.x / (rows * columns), first = blockIdx.y * p.part, end = first + p.part;
  const TileOfBlock tile(blockIdx.x % (rows * columns), rows, columns);
  return {tile.row * TILE::BM,
          tile.column * TILE::BN,
          first,
          end < p.K ? end : p.K,
          a + item * p.step_a,
          b + item * p.step_b,
          y + (item + blockIdx.y) * p.M * p.N};
}

template <bool WIDE, class SUMS, class T>
FASTNN_INLINE void finish(const SUMS& sums, const Work<T>& work, const Product& p, const T* row_bias,
                          const T* column_bias, T alpha, T beta, int activation) {
  const Epilogue<T, WIDE> epilogue{work.y, row_bias, column_bias, p.M, p.N, alpha, beta, activation};
  sums.each([&](int row, int column, const T(&v)[4]) { epilogue.store(work.m + row, work.n + column, v); });
  if (epilogue.again())
    sums.places([&](int row, int column) { epilogue.activate_again(work.m + row, work.n + column); });
}

// op(a) and op(b) as the main loops want them: rows of A, and of B transposed.
template <class PANEL, int BM, int BK, int THREADS, class T>
FASTNN_INLINE MatrixLoader<T, PANEL, BM, BK, THREADS> loader_of_a(const Work<T>& w, const Product& p) {
  const int64_t ld = p.trans_a ? p.M : p.K;
  const bool wide = p.trans_a && ld % (16 / sizeof(T)) == 0 && aligned_to_16(w.a);
  return {w.a + (p.trans_a ? w.m : w.m * ld), p.trans_a ? 1 : ld, p.trans_a ? ld : 1, p.M - w.m, w.end, wide};
}
template <class PANEL, int BN, int BK, int THREADS, class T>
FASTNN_INLINE MatrixLoader<T, PANEL, BN, BK, THREADS> loader_of_b(const Work<T>& w, const Product& p) {
  const int64_t ld = p.trans_b ? p.K : p.N;
  const bool wide = !p.trans_b && ld % (16 / sizeof(T)) == 0 && aligned_to_16(w.b);
  return {w.b + (p.trans_b ? w.n * ld : w.n), p.trans_b ? ld : 1, p.trans_b ? 1 : ld, p.N - w.n, w.end, wide};
}

// gridDim.x = tiles x batch, gridDim.y = parts. On the ordinary units; any shape and alignment, but rows of y in packs
// where the tile is WIDE.
template <class TILE, class T>
__global__ void __launch_bounds__(TILE::THREADS, TILE::BLOCKS)
    gemm_simt(const T* a, const T* b, const T* row_bias, const T* column_bias, T* y, Product p, T alpha, T beta,
              int activation) {
  const Work<T> w = work_of_block<TILE>(a, b, y, p);
  const auto load_a = loader_of_a<typename TILE::PanelA, TILE::BM, TILE::BK, TILE::THREADS>(w, p);
  const auto load_b = loader_of_b<typename TILE::PanelB, TILE::BN, TILE::BK, TILE::THREADS>(w, p);
  SimtSums<TILE> sums;
  multiply_tiles(sums, load_a, load_b, w.first, w.end);
  finish<TILE::WIDE>(sums, w, p, row_bias, column_bias, alpha, beta, activation);
}

// On tensor cores, any shape and alignment: numbers are copied one by one where they lie along K.
template <class PRECISION, class TILE>
__global__ void __launch_bounds__(TILE::THREADS)
    gemm_mma(const float* a, const float* b, const float* row_bias, const float* column_bias, float* y, Product p,
             float alpha, float beta, int activation) {
  const Work<float> w = work_of_block<TILE>(a, b, y, p);
  const auto load_a = loader_of_a<AlongRows<TILE::BM>, TILE::BM, 16, TILE::THREADS>(w, p);
  const auto load_b = loader_of_b<AlongRows<TILE::BN>, TILE::BN, 16, TILE::THREADS>(w, p);
  Sums<TILE> sums;
  multiply_tiles<PRECISION>(sums, load_a, load_b, w.first, w.end);
  finish<false>(sums, w, p, row_bias, column_bias, alpha, beta, activation);
}

// On tensor cores, where a, b, y, the bias and all rows of theirs are aligned to 16 bytes; for each transpose its own
// copies.
template <class PRECISION, class TILE, bool TRANS_A, bool TRANS_B>
__global__ void __launch_bounds__(TILE::THREADS)
    gemm_mma_wide(const float* a, const float* b, const float* row_bias, const float* column_bias, float* y, Product p,
                  float alpha, float beta, int activation) {
  const Work<float> w = work_of_block<TILE>(a, b, y, p);
  const int64_t lda = TRANS_A ? p.M : p.K, ldb = TRANS_B ? p.K : p.N;
  const WideLoader<TILE::BM, !TRANS_A, TILE::THREADS> load_a{w.a + (TRANS_A ? w.m : w.m * lda), lda, p.M - w.m, w.end};
  const WideLoader<TILE::BN, TRANS_B, TILE::THREADS> load_b{w.b + (TRANS_B ? w.n * ldb : w.n), ldb, p.N - w.n, w.end};
  Sums<TILE> sums;
  multiply_tiles<PRECISION>(sums, load_a, load_b, w.first, w.end);
  finish<true>(sums, w, p, row_bias, column_bias, alpha, beta, activation);
}

// op(a) and op(b) transposed, rounded to bf16 by round.cu: p.K, p.part and rows of a and b count pairs.
template <class TILE>
__global__ void __launch_bounds__(TILE::THREADS)
    gemm_pairs(const uint32_t* a, const uint32_t* b, const float* row_bias, const float* column_bias, float* y,
               Product p, float alpha, float beta, int activation) {
  const Work<float> w = work_of_block<TILE>(reinterpret_cast<const float*>(a), reinterpret_cast<const float*>(b), y, p);
  const WideLoader<TILE::BM, true, TILE::THREADS> load_a{w.a + w.m * p.K, p.K, p.M - w.m, w.end};
  const WideLoader<TILE::BN, true, TILE::THREADS> load_b{w.b + w.n * p.K, p.K, p.N - w.n, w.end};
  Sums<TILE> sums;
  multiply_tiles<Bf16Pairs>(sums, load_a, load_b, w.first, w.end);
  finish<true>(sums, w, p, row_bias, column_bias, alpha, beta, activation);
}

// y = activation(alpha (sums[0] + sums[1] + ...) + beta y + bias), each M x N: the parts of K, in order.
template <class T>
__global__ void gemm_add_parts(const T* sums, const T* row_bias, const T* column_bias, T* y, int64_t M, int64_t N,
                               int64_t parts, T alpha, T beta, int activation) {
  for (int64_t i : grid_stride(M * N)) {
    T sum = sums[i];
    for (int64_t part = 1; part < parts; ++part) sum += sums[part * M * N + i];
    T v = sum * alpha;
    if (beta != T(0)) v += y[i] * beta;
    if (row_bias) v += row_bias[i / N];
    if (column_bias) v += column_bias[i % N];
    y[i] = activate(v, activation);
  }
}
