// Division by a number that the host knows, as a multiplication: the GPU has no instruction for it, and a kernel that
// writes 4 bytes for each element has about 30 instructions to spend on it. Next: python/fastnn/cuda/divide.py.
#pragma once
#include "common.cuh"

// n / d for 0 <= n < 2^31. `by` stands for d: by = m + 2^32 p with p = 31 + ceil(log2 d) and m = ceil(2^p / d).
FASTNN_INLINE int divide(int n, int64_t by) {
  const uint64_t product = static_cast<uint64_t>(static_cast<uint32_t>(n)) * static_cast<uint32_t>(by);
  return static_cast<int>(product >> static_cast<int>(by >> 32));
}
