// Convolution as an implicit GEMM on the ordinary units: patches go from the image straight into the tiles of
// gemm_simt.cuh. For "highest" precision, for float64, and for every arch. Forward and the input's gradient are
//   dst (M, positions) = w (M, rows) patches (rows, positions)
// with the weights packed beforehand; the weights' gradient is
//   dw (M, rows) = dy (M, positions) patches^T
// in parts, cut along the positions, which are summed afterwards in their order. conv_mma.cu is the same on tensor
// cores, and uses these packed weights and these sums of parts.
#include "conv_loaders.cuh"
#include "gemm_simt.cuh"

// packed[group, row, m] = w(group, m, c, q, u) of row (q, u, c), c < channels; 0 beyond C, M and the taps.
template <class T>
__global__ void conv_pack(const T* w, T* packed, Gather g, int channels, int rows, int columns) {
  for (int64_t at : grid_stride(g.groups * rows * columns)) {
    const int m = int(at % columns);
    const int64_t line = at / columns;
    const GatherRow r(int(line % rows), channels, int(g.S));
    const bool inside = m < g.M && r.c < g.C && r.q < g.R;
    packed[at] = inside ? w[g.w0 + line / rows * g.wg + m * g.wm + r.c * g.wc + r.q * g.wq + r.u * g.wu] : T(0);
  }
}

// Block (positions / BN, M / BM, group). packed (groups, rows, columns), src -> dst.
template <class TILE, int RUN, class T>
__global__ void __launch_bounds__(TILE::THREADS, TILE::BLOCKS)
    conv_gemm(const T* packed, const T* src, const T* bias, T* dst, Gather g, int relu, int channels, int rows,
              int columns) {
  __shared__ int64_t places[TILE::BN];
  const int first = blockIdx.x * TILE::BN, m0 = blockIdx.y * TILE::BM;
  read_places<TILE::BN>(places, g, first);
  PackedLoader<T, typename TILE::PanelA, TILE::BM, TILE::BK, TILE::THREADS> weights{
      packed + int64_t(blockIdx.z) * rows * columns + m0, columns};
  PatchLoader<T, typename TILE::PanelB, TILE::BN, TILE::BK, TILE::THREADS, RUN> patches(g, src, first, channels);
  SimtSums<TILE> sums;
  multiply_tiles(sums, weights, patches, 0, rows);
  const GatherOutput<T> out(g, dst, bias, relu, places);
  sums.each([&](int row, int column, const T(&four)[4]) { out.store(m0 + row, column, four); });
}

// Block (rows / BN, M / BM, split * groups + group): the split's `part` positions. dy, x -> parts (splits, groups, M,
// columns); the gradient's rows are the first of them, the others fill the last block.
template <class TILE, class T>
__global__ void __launch_bounds__(TILE::THREADS, TILE::BLOCKS)
    conv_gemm_weight(const T* dy, const T* x, T* parts, Gather g, int columns, int part) {
  __shared__ Tap taps[TILE::BN];
  const WeightWork<T> work(g, dy, x, parts, columns, part, TILE::BM, TILE::BN);
  read_taps<TILE::BN>(taps, g, work.column);
  GatherPosition at = AlongPositions<TILE::BN, TILE::BK, TILE::THREADS>::first(g, work);
  const GradientLoader<T, typename TILE::PanelA, TILE::BM, TILE::BK, TILE::THREADS> gradient(g, work, at);
  WindowLoader<T, typename TILE::PanelB, TILE::BN, TILE::BK, TILE::THREADS> patches(g, work, taps, at);
  SimtSums<TILE> sums;
  multiply_tiles(sums, gradient, patches, 0, work.count);
  sums.each([&](int row, int column, const T(&four)[4]) { work.store(row, column, four); });
}

// dw(group, m, c, q, u) = parts[0, group, m, row] + parts[1, group, m, row] + ..., in this order.
template <class T>
__global__ void conv_sum_weight(const T* parts, T* dw, Gather g, int columns, int splits) {
  const int64_t each = g.groups * g.M * columns;
  for (int64_t at : grid_stride(each)) {
    const GatherRow r(int(at % columns), int(g.C), int(g.S));
    if (r.q >= g.R) continue;
    T sum = 0;
    for (int s = 0; s < splits; ++s) sum += parts[s * each + at];
    dw[at / columns * g.wm + r.c * g.wc + r.q * g.wq + r.u * g.wu] = sum;
  }
}
