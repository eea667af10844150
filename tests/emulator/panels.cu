// Where the panels of gemm_mma.cuh keep their numbers, and which of them a lane reads: for the count of bank conflicts
// in tests/test_cuda_gemm.py. The panel holds its own indices, so that what is read tells from where.
#include "gemm_mma.cuh"

// at: rows x 16; a: 32 lanes x 8 and b: 32 lanes x 4, of the rows from `row` on.
template <class PANEL>
__global__ void panel_reads(int* at, float* a, float* b, int rows, int row, int size) {
  float* const panel = dynamic_shared<float>();
  for (int64_t i : block_stride(size)) panel[i] = static_cast<float>(i);
  for (int64_t i : block_stride(rows * 16)) at[i] = PANEL::at(i / 16, i % 16);
  __syncthreads();
  float of_a[2][4], of_b[4];
  PANEL::read_a(of_a, panel, row);
  PANEL::read_b(of_b, panel, row);
  for (int i = 0; i < 8; ++i) a[threadIdx.x * 8 + i] = of_a[i / 4][i % 4];
  for (int i = 0; i < 4; ++i) b[threadIdx.x * 4 + i] = of_b[i];
}
