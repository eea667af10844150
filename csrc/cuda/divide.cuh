// For kernels that memory should bound: with 4 bytes to write for an element there are about 30 instructions to spend
// on it, so that a division (the GPU has none) or the set-up of a grid-stride loop costs more than the work. Launches
// cover less than 2^31 elements and give each thread its own. Next: python/fastnn/cuda/shapes.py.
#pragma once
#include "common.cuh"

// n / d for 0 <= n < 2^31. `by` stands for d: by = m + 2^32 p with p = 31 + ceil(log2 d) and m = ceil(2^p / d).
FASTNN_INLINE int divide(int n, int64_t by) {
  const uint64_t product = static_cast<uint64_t>(static_cast<uint32_t>(n)) * static_cast<uint32_t>(by);
  return static_cast<int>(product >> static_cast<int>(by >> 32));
}

// The number of the thread in the grid, or of its group of LANES threads.
template <int LANES = 1>
FASTNN_INLINE int own_number() {
  return static_cast<int>(blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES);
}
// Whether it is one of `count`: numbers of the last block may pass 2^31.
FASTNN_INLINE bool below(int number, int count) { return static_cast<unsigned>(number) < static_cast<unsigned>(count); }
