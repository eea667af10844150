// Matrix products: y = activation(alpha op(a) op(b) + beta y + bias), batches, and the second half of products whose K
// is cut. Which kernel and tile takes which shape: python/fastnn/cuda/gemm.py.
#include "epilogue.cuh"
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

// gridDim.x = tiles x batch, gridDim.y = parts.
template <class PRECISION, class TILE, bool TRANS_A, bool TRANS_B>
__global__ void __launch_bounds__(TILE::THREADS)
    gemm_mma(const float* a, const float* b, const float* row_bias, const float* column_bias, float* y, Product p,
             float alpha, float beta, int activation) {
  const int64_t rows = divide_up(p.M, TILE::BM), columns = divide_up(p.N, TILE::BN);
  const int64_t item = blockIdx.x / (rows * columns);
  const TileOfBlock tile(blockIdx.x % (rows * columns), rows, columns);
  const int64_t m = tile.row * TILE::BM, n = tile.column * TILE::BN;
  const int64_t first = blockIdx.y * p.part, end = first + p.part < p.K ? first + p.part : p.K;
  a += item * p.step_a;
  b += item * p.step_b;
  y += (item + blockIdx.y) * p.M * p.N;
  WideLoader<TILE::BM, !TRANS_A, TILE::THREADS> load_a{a + (TRANS_A ? m : m * p.K), TRANS_A ? p.M : p.K, end, p.M - m};
  WideLoader<TILE::BN, TRANS_B, TILE::THREADS> load_b{b + (TRANS_B ? n * p.K : n), TRANS_B ? p.K : p.N, end, p.N - n};
  Sums<TILE> sums;
  multiply_tiles<PRECISION>(sums, load_a, load_b, first, end);
  const Epilogue<float> epilogue{y,    row_bias,   column_bias,
                                 p.M,  p.N,        alpha,
                                 beta, activation, p.N % 4 == 0 && aligned_to_16(y) && aligned_to_16(column_bias)};
  sums.each([&](int row, int column, const float (&v)[4]) { epilogue.store(m + row, n + column, v); });
  if (epilogue.again()) sums.places([&](int row, int column) { epilogue.activate_again(m + row, n + column); });
}
