// Kernels with one bug each, and their right versions: the emulator must find every one (tests/test_emulator.py). One
// block of 64 threads unless said otherwise; x and y have 64 numbers.
#include "common.cuh"

constexpr int THREADS = 64;

// y is x backwards; without the barrier a thread reads what another may not have written yet.
template <bool BARRIER>
__global__ void backwards(const float* x, float* y) {
  __shared__ float s[THREADS];
  s[threadIdx.x] = x[threadIdx.x];
  if (BARRIER) __syncthreads();
  y[threadIdx.x] = s[THREADS - 1 - threadIdx.x];
}
// The same among the lanes of a warp. A shuffle lets them meet but orders no memory; __syncwarp does.
template <bool SYNC>
__global__ void backwards_in_warp(const float* x, float* y) {
  __shared__ float s[THREADS];
  s[threadIdx.x] = x[threadIdx.x];
  if (SYNC) __syncwarp();
  const float mine = shuffle_xor(x[threadIdx.x], 0);
  y[threadIdx.x] = s[threadIdx.x ^ 31] + mine * 0.0f;
}
// Two rounds through one buffer: the barrier between reading one round and writing the next is missing. In the order in
// which the emulator's threads run by default the result is right all the same.
__global__ void second_round(const float* x, float* y) {
  __shared__ float s[THREADS];
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    s[threadIdx.x] = x[threadIdx.x] + round;
    __syncthreads();
    sum += s[(threadIdx.x + 1) % THREADS];
  }
  y[threadIdx.x] = sum;
}

__global__ void barrier_for_half(const float* x, float* y) {
  if (threadIdx.x < THREADS / 2) __syncthreads();
  y[threadIdx.x] = x[threadIdx.x];
}
__global__ void barriers_at_two_places(const float* x, float* y) {
  if (threadIdx.x < THREADS / 2)
    __syncthreads();
  else
    __syncthreads();
  y[threadIdx.x] = x[threadIdx.x];
}
__global__ void ended_before_barrier(const float* x, float* y) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  y[threadIdx.x] = x[threadIdx.x];
}
__global__ void shuffle_of_some(const float* x, float* y) {
  y[threadIdx.x] = threadIdx.x < 40 ? shuffle_xor(x[threadIdx.x], 1) : 0.0f;
}
__global__ void two_operations(const float* x, float* y) {
  y[threadIdx.x] = threadIdx.x % 2 ? shuffle_xor(x[threadIdx.x], 1) : shuffle_down(x[threadIdx.x], 1);
}

// Beyond arrays: by `by` elements.
__global__ void write_beyond(const float* x, float* y, int by) { y[int(threadIdx.x) + by] = x[threadIdx.x]; }
__global__ void read_beyond(const float* x, float* y, int by) { y[threadIdx.x] = x[int(threadIdx.x) + by]; }
__global__ void static_beyond(const float* x, float* y, int by) {
  __shared__ float s[THREADS];
  s[threadIdx.x + by] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}
__global__ void dynamic_beyond(const float* x, float* y) {
  float* s = dynamic_shared<float>();
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}
__global__ void wide_load(const float* x, float* y, int at) {
  const Pack<float, 4> pack = load_pack<4>(x + at);
  y[threadIdx.x] = pack.v[threadIdx.x % 4];
}

// Asynchronous copies: read at once, read after the wait, read another thread's after the wait but before the barrier,
// never waited for.
enum { AT_ONCE, AFTER_WAIT, ANOTHERS, NEVER_WAITED };
template <int WHEN>
__global__ void asynchronous(const float* x, float* y) {
  __shared__ __align__(16) float s[THREADS];
  cp_async<4>(s + threadIdx.x, x + threadIdx.x);
  cp_async_commit();
  if (WHEN == AFTER_WAIT || WHEN == ANOTHERS) cp_async_wait<0>();
  y[threadIdx.x] = WHEN == NEVER_WAITED ? 0.0f : s[WHEN == ANOTHERS ? threadIdx.x ^ 32 : threadIdx.x];
  if (WHEN == AT_ONCE) cp_async_wait<0>();
}
// Of four groups all but `PENDING` have landed; y tells which. Four copies of 16 bytes, of which 8 are read.
template <int PENDING>
__global__ void groups(const float* x, float* y) {
  __shared__ __align__(16) float s[16];
  if (threadIdx.x == 0) {
    for (int i = 0; i < 4; ++i) {
      cp_async<16>(s + 4 * i, x + 4 * i, 8);
      cp_async_commit();
    }
    cp_async_wait<PENDING>();
    for (int i = 0; i < 16; ++i) y[i] = s[i];
    cp_async_wait<0>();
  }
}

// Two blocks of 64 threads write the same places: other numbers, or the same (which only ThreadSanitizer sees).
__global__ void blocks_meet(const float* x, float* y, int same) {
  y[threadIdx.x] = same ? x[threadIdx.x] : x[threadIdx.x] + blockIdx.x;
}
// What one block reads, another wrote: right when blocks run in order, which nothing promises.
__global__ void blocks_in_order(const float* x, float* y) {
  if (threadIdx.x == 0) y[blockIdx.x + 1] = (blockIdx.x ? y[blockIdx.x] : 0.0f) + x[blockIdx.x];
}

// One warp: d (16 x 8) += a (16 x K) b (K x 8); operands pass through shared memory and ldmatrix. bT is b transposed
// (8 x K), as mma wants it; with `TRANSPOSED` b itself (K x 8) is read by the transposing load (16-bit numbers only).
__global__ void multiply_tf32(const float* a, const float* bT, float* d) {
  __shared__ __align__(16) float sa[16 * 8], sb[8 * 8];
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  for (int i = lane; i < 16 * 8; i += 32) sa[i] = a[i];
  for (int i = lane; i < 8 * 8; i += 32) sb[i] = bT[i];
  __syncwarp();
  uint32_t fa[4], fb[2];
  ldmatrix_x4(fa, sa + (lane % 16) * 8 + lane / 16 * 4);  // rows 0-7, 8-15, then the same of columns 4-7
  ldmatrix_x2(fb, sb + lane % 8 * 8 + lane / 8 % 2 * 4);
  for (uint32_t& v : fa) v = to_tf32(__uint_as_float(v));
  for (uint32_t& v : fb) v = to_tf32(__uint_as_float(v));
  float fd[4];
  for (int i = 0; i < 4; ++i) fd[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_tf32(fd, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fd[i];
}
template <bool TRANSPOSED>
__global__ void multiply_bf16(const float* a, const float* b, float* d) {
  __shared__ __align__(16) uint32_t sa[16 * 8], sb[8 * 8];
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  for (int i = lane; i < 16 * 8; i += 32) sa[i] = to_bf16x2(a[2 * i], a[2 * i + 1]);
  for (int i = lane; i < 8 * 8; i += 32) sb[i] = to_bf16x2(b[2 * i], b[2 * i + 1]);
  __syncwarp();
  uint32_t fa[4], fb[2];
  ldmatrix_x4(fa, sa + (lane % 16) * 8 + lane / 16 * 4);
  if (TRANSPOSED)
    ldmatrix_x2_transposed(fb, sb + lane % 16 * 4);
  else
    ldmatrix_x2(fb, sb + lane % 8 * 8 + lane / 8 % 2 * 4);
  float fd[4];
  for (int i = 0; i < 4; ++i) fd[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_bf16(fd, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fd[i];
}
// The same product from the fragments' definition in the PTX manual, element by element, without ldmatrix.
__global__ void multiply_by_definition(const float* a, const float* b, float* d) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  uint32_t fa[4], fb[2];
  for (int i = 0; i < 4; ++i) fa[i] = to_tf32(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
  for (int i = 0; i < 2; ++i) fb[i] = to_tf32(b[(t + i * 4) * 8 + g]);
  float fd[4] = {};
  mma_tf32(fd, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fd[i];
}
__global__ void misplaced_ldmatrix(const float* x, float* y, int shared) {
  __shared__ __align__(16) uint32_t s[THREADS * 4];
  s[threadIdx.x] = 0;
  __syncthreads();
  uint32_t r[4];
  ldmatrix_x4(r, shared ? static_cast<const void*>(s + threadIdx.x) : x);
  y[threadIdx.x] = r[0];
}

__global__ void round_to(const float* x, uint32_t* tf32, uint32_t* bf16, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    tf32[i] = to_tf32(x[i]);
    bf16[i] = to_bf16x2(x[i], -x[i]);
  }
}

// Sum, maximum, and the place of the maximum of n numbers, by one block.
template <class T>
__global__ void reductions(const T* x, T* y, int64_t* at, int64_t n) {
  T sum = 0, most = -infinity<T>();
  Indexed<T> best{-infinity<T>(), n};
  for (int64_t i : block_stride(n)) {
    sum += x[i];
    most = Max()(most, x[i]);
    best = ArgMax()(best, Indexed<T>{x[i], i});
  }
  sum = block_reduce(sum, Sum(), T(0));
  most = block_reduce(most, Max(), -infinity<T>());
  best = block_reduce(best, ArgMax(), Indexed<T>{-infinity<T>(), n});
  if (threadIdx.x == blockDim.x - 1) {
    y[0] = sum;
    y[1] = most;
    *at = best.index;
  }
}
// What each lane gets: xor 5, down 3, up 3, from lane 7, and the ballot of odd lanes.
__global__ void lanes(const float* x, float* y, uint32_t* bits) {
  const float v = x[threadIdx.x];
  y[threadIdx.x] = shuffle_xor(v, 5);
  y[32 + threadIdx.x] = shuffle_down(v, 3);
  y[64 + threadIdx.x] = shuffle_up(v, 3);
  y[96 + threadIdx.x] = shuffle(v, 7);
  bits[threadIdx.x] = ballot(threadIdx.x % 2);
}
