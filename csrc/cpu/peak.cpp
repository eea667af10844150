// What this machine can do at best, to measure kernels against: multiply-adds in registers, and reading, copying and
// adding arrays that no cache holds. Not used by any op. Called by python/fastnn/kernels/peak.py.
#include "simd.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

// Accumulators that hide the latency of an FMA (4 cycles at 2 to 4 a cycle), or of a product and a sum (6 to 8 at 2 a
// cycle), within the registers: of 32, or of 16 with the two operands. `wide` takes two registers a vector.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int SUMS = 24;
#elif FASTNN_VECTOR_BYTES == 64
constexpr int SUMS = 6;
#elif defined(__FMA__)
constexpr int SUMS = 12;
#else
constexpr int SUMS = 14;
#endif
static_assert(SUMS >= 6, "too few to hide the latency");

// `turns` times SUMS vector multiply-adds for each element of y, which are chunks of work: as many as threads to load.
// flops is what they come to.
template <class T>
void peak_fma(const Array& y, const Array& flops, int64_t turns) {
  constexpr int64_t most_turns = 100'000'000;  // in all chunks: a second
  FASTNN_CHECK(flops.size == 1, "flops must hold one element");
  FASTNN_CHECK(turns >= 0 && turns <= most_turns && y.size <= most_turns && turns * y.size <= most_turns,
               "turns must be at least 0, and at most %lld in all elements of y", static_cast<long long>(most_turns));
  T* sums = out<T>(y);
  parallel_for(y.size, 1, [=](int64_t chunk, int64_t) {
    Vec<T> sum[SUMS];
    for (int i = 0; i < SUMS; ++i) sum[i] = set(T(i));
    const Vec<T> factor = set(T(0.999)), term = set(T(0.001));
    for (int64_t turn = 0; turn < turns; ++turn)
#pragma GCC unroll 24
      for (int i = 0; i < SUMS; ++i) sum[i] = sum[i] * factor + term;
    for (int i = 1; i < SUMS; ++i) sum[0] += sum[i];
    sums[chunk] = sum_lanes<T>(sum[0]);
  });
  *out<double>(flops) = 2.0 * W<T> * SUMS * static_cast<double>(turns * y.size);
}

// y[chunk] = sum of a chunk of x: memory that is only read.
template <class T>
void peak_read(const Array& x, const Array& y) {
  FASTNN_CHECK(y.size == divide_up(x.size, GRAIN), "y must hold one element for every %lld of x",
               static_cast<long long>(GRAIN));
  const T* source = in<T>(x);
  T* sums = out<T>(y);
  parallel_for(x.size, GRAIN, [=](int64_t begin, int64_t end) {
    Vec<T> sum[4] = {};
    int64_t i = begin;
    for (; i + 4 * W<T> <= end; i += 4 * W<T>)
      for (int j = 0; j < 4; ++j) sum[j] += load(source + i + j * W<T>);
    each_vector<T>(i, end, [&](int64_t at, int64_t n) { sum[0] += load(source + at, n); });
    sums[begin / GRAIN] = sum_lanes<T>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  });
}

// y = x + factor * z, or y = x where z is None; `streaming` writes past the caches where y is aligned.
template <class T>
void peak_triad(const Array& x, const Array& z, const Array& y, double factor, int64_t streaming) {
  FASTNN_CHECK(y.size == x.size && (!z || z.size == x.size), "x, z and y must have one size");
  const T *a = in<T>(x), *b = z ? in<T>(z) : nullptr;
  T* c = out<T>(y);
  const bool past = streaming && reinterpret_cast<uintptr_t>(c) % FASTNN_VECTOR_BYTES == 0;
  const Vec<T> scale = set(static_cast<T>(factor));
  parallel_for(x.size, GRAIN, [=](int64_t begin, int64_t end) {
    const auto run = [=](const auto& value) {
      if (!past) return each_vector<T>(begin, end, [=](int64_t i, int64_t n) { store(c + i, value(i, n), n); });
      each_vector<T>(begin, end, [=](int64_t i, int64_t n) {
        n == W<T> ? stream(c + i, value(i, n)) : store(c + i, value(i, n), n);
      });
      stream_end();
    };
    if (b == nullptr)
      run([=](int64_t i, int64_t n) { return load(a + i, n); });
    else
      run([=](int64_t i, int64_t n) { return load(a + i, n) + scale * load(b + i, n); });
  });
}

FASTNN_KERNELS(peak, FASTNN_KERNEL(peak_fma, "-> y, flops:f64 | turns"), FASTNN_KERNEL(peak_read, "x -> y"),
               FASTNN_KERNEL(peak_triad, "x, z? -> y | factor, streaming"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
