// Convolution as an implicit GEMM on tensor cores (sm_80 and up), float in and out, in the precisions of gemm_mma.cuh:
// the GEMMs of conv_gemm.cu, with its packed weights and its sum of parts.
#include "conv_loaders.cuh"
#include "gemm_mma.cuh"

// Block (positions / BN, M / BM, group). packed (groups, rows, columns), src -> dst.
template <class PRECISION, class TILE, int RUN>
__global__ void __launch_bounds__(TILE::THREADS)
    conv_mma(const float* packed, const float* src, const float* bias, float* dst, Gather g, int relu, int channels,
             int rows, int columns) {
  __shared__ int64_t places[TILE::BN];
  const int first = blockIdx.x * TILE::BN, m0 = blockIdx.y * TILE::BM;
  read_places<TILE::BN>(places, g, first);
  PackedLoader<float, AlongRows<TILE::BM>, TILE::BM, TILE::BK, TILE::THREADS> weights{
      packed + int64_t(blockIdx.z) * rows * columns + m0, columns};
  PatchLoader<float, AlongRows<TILE::BN>, TILE::BN, TILE::BK, TILE::THREADS, RUN> patches(g, src, first, channels);
  Sums<TILE> sums;
  multiply_tiles<PRECISION>(sums, weights, patches, 0, rows);
  const GatherOutput<float> out(g, dst, bias, relu, places);
  sums.each([&](int row, int column, const float (&four)[4]) { out.store(m0 + row, column, four); });
}

// As conv_gemm_weight.
template <class PRECISION, class TILE>
__global__ void __launch_bounds__(TILE::THREADS)
    conv_mma_weight(const float* dy, const float* x, float* parts, Gather g, int columns, int part) {
  __shared__ Tap taps[TILE::BN];
  const WeightWork<float> work(g, dy, x, parts, columns, part, TILE::BM, TILE::BN);
  read_taps<TILE::BN>(taps, g, work.column);
  GatherPosition at = AlongPositions<TILE::BN, TILE::BK, TILE::THREADS>::first(g, work);
  GradientPackLoader<AlongK<TILE::BM>, TILE::BM, TILE::BK, TILE::THREADS> gradient(g, work);
  WindowLoader<float, AlongK<TILE::BN>, TILE::BN, TILE::BK, TILE::THREADS> patches(g, work, taps, at);
  Sums<TILE> sums;
  multiply_tiles<PRECISION>(sums, gradient, patches, 0, work.count);
  sums.each([&](int row, int column, const float (&four)[4]) { work.store(row, column, four); });
}
