// What every kernel may use: loops over a grid, reductions over a warp or a block in a fixed order, and the scalar
// functions in whose names ../formulas.h is written. No kernel stands here; instructions are in ptx.cuh.
// Kernels are __global__ templates over T (float or double) in the global namespace, one text for NVRTC and, in the
// tests, g++. Where memory order matters they say __syncthreads() or __syncwarp(); a shuffle orders nothing.
#pragma once
#include "ptx.cuh"

#define FASTNN_INLINE __device__ __forceinline__

constexpr int WARP = 32;

template <class A, class B>
FASTNN_INLINE constexpr auto divide_up(A a, B b) {
  return (a + b - 1) / b;
}

// for (int64_t i : grid_stride(n)): each of the grid's threads (x dimension) takes every so many-th index below n;
// block_stride does so within the block: for (int64_t i : block_stride(n)). The step is added as an unsigned number, so
// that the compiler cannot count the turns and unroll: counting takes a division, and most threads have one turn.
struct Strided {
  struct Index {
    int64_t i, step;
    FASTNN_INLINE int64_t operator*() const { return i; }
    FASTNN_INLINE void operator++() { i = int64_t(uint64_t(i) + uint64_t(step)); }
    FASTNN_INLINE bool operator!=(Index end) const { return i < end.i; }
  };
  int64_t first, n, step;
  FASTNN_INLINE Index begin() const { return {first, step}; }
  FASTNN_INLINE Index end() const { return {n, step}; }
};
FASTNN_INLINE Strided grid_stride(int64_t n) {
  return {int64_t(blockIdx.x) * blockDim.x + threadIdx.x, n, int64_t(gridDim.x) * blockDim.x};
}
FASTNN_INLINE Strided block_stride(int64_t n) { return {int64_t(threadIdx.x), n, int64_t(blockDim.x)}; }

// The launch's dynamic shared memory, as numbers of type T.
template <class T>
FASTNN_INLINE T* dynamic_shared() {
  return static_cast<T*>(dynamic_shared_memory());
}

// N numbers that are read or written at once; the address must be aligned to all of them (at most 16 bytes).
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};
template <int N, class T>
FASTNN_INLINE Pack<T, N> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, N>*>(p);
}
template <int N, class T>
FASTNN_INLINE void store_pack(T* p, Pack<T, N> pack) {
  *reinterpret_cast<Pack<T, N>*>(p) = pack;
}

// What reductions combine. A NaN reaches the result; of equal maxima the first wins, and a NaN counts as a maximum.
struct Sum {
  template <class T>
  FASTNN_INLINE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  FASTNN_INLINE T operator()(T a, T b) const {
    return b > a || b != b ? b : a;
  }
};
struct Min {
  template <class T>
  FASTNN_INLINE T operator()(T a, T b) const {
    return b < a || b != b ? b : a;
  }
};
template <class T>
struct Indexed {
  T value;
  int64_t index;
};
struct ArgMax {
  template <class T>
  FASTNN_INLINE Indexed<T> operator()(Indexed<T> a, Indexed<T> b) const {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value, first = b.index < a.index;
    const bool b_wins =
        a_nan || b_nan ? b_nan && (!a_nan || first) : b.value > a.value || (b.value == a.value && first);
    return b_wins ? b : a;
  }
};

template <class T>
FASTNN_INLINE T exchange(T value, int mask) {
  return shuffle_xor(value, mask);
}
template <class T>
FASTNN_INLINE Indexed<T> exchange(Indexed<T> value, int mask) {
  return {shuffle_xor(value.value, mask), shuffle_xor(value.index, mask)};
}

// Every lane's value combined, in a fixed tree, and given to all of `lanes` neighbours (a power of two). Because the
// combinations above commute, all of them get the same bits.
template <int LANES = WARP, class T, class F>
FASTNN_INLINE T warp_reduce(T value, F combine) {
#pragma unroll
  for (int mask = LANES / 2; mask > 0; mask /= 2) value = combine(value, exchange(value, mask));
  return value;
}

// The same over the block, whose size (x dimension) is a multiple of 32. `nothing` is what leaves a value as it is: 0
// for a sum, the lowest value for a maximum. All threads call it and all get the result. Two barriers; 32 values of
// shared memory for each pair of T and F.
template <class T, class F>
FASTNN_INLINE T block_reduce(T value, F combine, T nothing) {
  __shared__ __align__(16) unsigned char memory[WARP * sizeof(T)];
  T* partial = reinterpret_cast<T*>(memory);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  value = warp_reduce(value, combine);
  __syncthreads();  // the previous call's readers are done
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  return warp_reduce(lane < warps ? partial[lane] : nothing, combine);
}

template <class T>
FASTNN_INLINE T infinity() {
  return static_cast<T>(__int_as_float(0x7f800000));
}

// The scalar functions of ../formulas.h; sqrt, tanh and log1p are CUDA's own overloads.
template <class V>
FASTNN_INLINE constexpr V num(double c) {
  return static_cast<V>(c);
}
FASTNN_INLINE float magnitude(float x) { return fabsf(x); }
FASTNN_INLINE double magnitude(double x) { return fabs(x); }
FASTNN_INLINE float exp_negative(float x) { return expf(x); }
FASTNN_INLINE double exp_negative(double x) { return exp(x); }
FASTNN_INLINE float expm1_negative(float x) { return expm1f(x); }
FASTNN_INLINE double expm1_negative(double x) { return expm1(x); }
// The standard normal distribution: Phi(x), what lies below x, and its density at x.
template <class V>
struct Normal {
  V below, density;
};
FASTNN_INLINE Normal<float> normal(float x) {
  return {0.5f * erfcf(x * -0.707106781f), expf(x * x * -0.5f) * 0.398942280f};
}
FASTNN_INLINE Normal<double> normal(double x) {
  return {0.5 * erfc(x * -0.70710678118654752440), exp(x * x * -0.5) * 0.39894228040143267794};
}
