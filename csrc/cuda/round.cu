// Matrices of float rounded to bf16, two neighbours along K to a number, for gemm_pairs of gemm.cu. One pass over
// memory.
#include "common.cuh"

// y[r][i] = x[r][2 i], x[r][2 i + 1] as bf16, for i < pairs; 0 beyond the columns. A block for each row.
__global__ void round_rows(const float* x, uint32_t* y, int64_t columns, int64_t pairs) {
  const float* from = x + blockIdx.x * columns;
  for (int64_t i : block_stride(pairs)) {
    const float low = 2 * i < columns ? from[2 * i] : 0.0f, high = 2 * i + 1 < columns ? from[2 * i + 1] : 0.0f;
    y[blockIdx.x * pairs + i] = to_bf16x2(low, high);
  }
}

// y[c][i] = x[2 i][c], x[2 i + 1][c]. A block of 256 threads for each 64 rows of 32 columns, column after column.
__global__ void round_columns(const float* x, uint32_t* y, int64_t rows, int64_t columns, int64_t pairs) {
  __shared__ float tile[64][33];
  const int64_t across = divide_up(columns, 32), row = blockIdx.x / across * 64, column = blockIdx.x % across * 32;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (int r = warp; r < 64; r += 8)
    tile[r][lane] = row + r < rows && column + lane < columns ? x[(row + r) * columns + column + lane] : 0.0f;
  __syncthreads();
  for (int c = warp; c < 32; c += 8)
    if (column + c < columns && row / 2 + lane < pairs)
      y[(column + c) * pairs + row / 2 + lane] = to_bf16x2(tile[2 * lane][c], tile[2 * lane + 1][c]);
}
