// Elementwise arithmetic of Tensors: y = f(a, b) with broadcasting, y = f(x), and where. One text for arrays that lie
// as y does (16 bytes at once where they are aligned) and for any strides: a transposed view, a repeated row. A null
// operand is a number. What NumPy computes is the reference: a NaN reaches every result, comparisons with it are false.
// Next: python/fastnn/cuda/arithmetic.py, which chooses.
#include "common.cuh"

// Strides of the operands by dimension of y, in elements; the first `ndim` dimensions are there.
struct Layout {
  int64_t shape[8];
  int64_t a[8];
  int64_t b[8];
  int64_t c[8];
  int ndim;
};

struct Offsets {
  int64_t a, b, c;
};
// Where element i of y finds its operands. I is 32 bits wide where all of y is: its divisions are much cheaper.
template <class I>
FASTNN_INLINE Offsets offsets(const Layout& layout, int64_t element) {
  Offsets at{0, 0, 0};
  I i = I(element);
#pragma unroll
  for (int d = 7; d >= 0; --d) {
    if (d >= layout.ndim) continue;
    const I rest = d > 0 ? i / I(layout.shape[d]) : 0;
    const int64_t place = int64_t(d > 0 ? i - rest * I(layout.shape[d]) : i);
    at.a += place * layout.a[d];
    at.b += place * layout.b[d];
    at.c += place * layout.c[d];
    i = rest;
  }
  return at;
}
FASTNN_INLINE Offsets offsets(const Layout& layout, int64_t i, int64_t n) {
  return n <= 0x7fffffff ? offsets<uint32_t>(layout, i) : offsets<uint64_t>(layout, i);
}

template <class T>
FASTNN_INLINE bool aligned(const T* p, int to) {
  return reinterpret_cast<uint64_t>(p) % to == 0;
}
template <int N, class T>
FASTNN_INLINE Pack<T, N> pack_of(const T* p, int64_t i, T number) {
  if (p) return load_pack<N>(p + i);
  Pack<T, N> pack;
#pragma unroll
  for (int j = 0; j < N; ++j) pack.v[j] = number;
  return pack;
}

// y = f(a, b), both laid out as y: all 16 bytes of an operand at once.
template <class T, class R, class F>
__global__ void binary(const T* a, const T* b, R* y, int64_t n, T a_number, T b_number) {
  constexpr int N = 16 / sizeof(T);
  const bool whole = aligned(a, 16) && aligned(b, 16) && aligned(y, N * sizeof(R));
  const int64_t packs = whole ? n / N : 0;
  for (int64_t i : grid_stride(packs)) {
    const Pack<T, N> pa = pack_of<N>(a, N * i, a_number), pb = pack_of<N>(b, N * i, b_number);
    Pack<R, N> py;
#pragma unroll
    for (int j = 0; j < N; ++j) py.v[j] = F{}(pa.v[j], pb.v[j]);
    store_pack<N>(y + N * i, py);
  }
  for (int64_t i : grid_stride(n - N * packs)) {
    const int64_t at = N * packs + i;
    y[at] = F{}(a ? a[at] : a_number, b ? b[at] : b_number);
  }
}
template <class T, class R, class F>
__global__ void binary_strided(const T* a, const T* b, R* y, int64_t n, T a_number, T b_number, Layout layout) {
  for (int64_t i : grid_stride(n)) {
    const Offsets at = offsets(layout, i, n);
    y[i] = F{}(a ? a[at.a] : a_number, b ? b[at.b] : b_number);
  }
}

// y = f(x)
template <class T, class F>
__global__ void unary(const T* x, T* y, int64_t n) {
  constexpr int N = 16 / sizeof(T);
  const int64_t packs = aligned(x, 16) && aligned(y, 16) ? n / N : 0;
  for (int64_t i : grid_stride(packs)) {
    Pack<T, N> pack = load_pack<N>(x + N * i);
#pragma unroll
    for (int j = 0; j < N; ++j) pack.v[j] = F{}(pack.v[j]);
    store_pack<N>(y + N * i, pack);
  }
  for (int64_t i : grid_stride(n - N * packs)) y[N * packs + i] = F{}(x[N * packs + i]);
}

// y = c ? a : b
template <class T>
__global__ void where(const bool* c, const T* a, const T* b, T* y, int64_t n, T a_number, T b_number, Layout layout) {
  for (int64_t i : grid_stride(n)) {
    const Offsets at = offsets(layout, i, n);
    y[i] = c[at.c] ? (a ? a[at.a] : a_number) : (b ? b[at.b] : b_number);
  }
}

// -- What is computed, named as NumPy's functions.
// -----------------------------------------------------------------------
#define FASTNN_BINARY(name, expression)             \
  struct name {                                     \
    template <class T>                              \
    FASTNN_INLINE auto operator()(T a, T b) const { \
      return expression;                            \
    }                                               \
  };
#define FASTNN_UNARY(name, expression)      \
  struct name {                             \
    template <class T>                      \
    FASTNN_INLINE T operator()(T x) const { \
      return expression;                    \
    }                                       \
  };

FASTNN_INLINE float power_of(float a, float b) { return powf(a, b); }
FASTNN_INLINE double power_of(double a, double b) { return pow(a, b); }
FASTNN_INLINE int64_t power_of(int64_t a, int64_t b) {  // wraps; of a negative exponent, the whole part
  if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
  uint64_t result = 1, base = uint64_t(a);
  for (; b > 0; b >>= 1) {
    if (b & 1) result *= base;
    base *= base;
  }
  return int64_t(result);
}

FASTNN_BINARY(add, T(a + b))
FASTNN_BINARY(subtract, T(a - b))
FASTNN_BINARY(multiply, T(a* b))
FASTNN_BINARY(divide, T(a / b))
FASTNN_BINARY(power, power_of(a, b))
FASTNN_BINARY(maximum, Max{}(a, b))
FASTNN_BINARY(minimum, Min{}(a, b))
FASTNN_BINARY(equal, a == b)
FASTNN_BINARY(not_equal, a != b)
FASTNN_BINARY(greater, a > b)
FASTNN_BINARY(greater_equal, a >= b)
FASTNN_BINARY(bitwise_and, T(a& b))
FASTNN_BINARY(bitwise_or, T(a | b))
FASTNN_BINARY(bitwise_xor, T(a ^ b))

FASTNN_UNARY(negative, T(-x))
FASTNN_UNARY(absolute, x < T(0) ? T(-x) : x + T(0))  // of -0 too
FASTNN_UNARY(sign, x > T(0) ? T(1) : x < T(0) ? T(-1) : x == T(0) ? T(0) : x)
FASTNN_UNARY(square, T(x* x))
FASTNN_UNARY(exponential, exp(x))
FASTNN_UNARY(logarithm, log(x))
FASTNN_UNARY(logarithm_of_one_and, log1p(x))
FASTNN_UNARY(square_root, sqrt(x))
FASTNN_UNARY(invert, T(~x))
FASTNN_UNARY(logical_not, T(!x))
#undef FASTNN_BINARY
#undef FASTNN_UNARY
