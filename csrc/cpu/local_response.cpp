// Local response normalisation over channels (Krizhevsky et al. 2012): with s = k + alpha / size * (sum of x^2 over the
// size channels around), y = x s^-beta. Arrays are (N, C, S); a chunk is a strip of S, so that a strip's channels stay
// in cache while their windows overlap.
#include "math.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t STRIP = 256;  // positions of S a chunk

struct Window {
  int64_t C, S, before, after;  // channel c looks at [c - before, c + after]
  FASTNN_INLINE int64_t begin(int64_t c) const { return c < before ? 0 : c - before; }
  FASTNN_INLINE int64_t end(int64_t c) const { return c + after + 1 > C ? C : c + after + 1; }
};

static void check_arrays(const Array& x, const Array& y, const Array& s, int64_t size) {
  FASTNN_CHECK(x.ndim == 3 && x.size == y.size && x.size == s.size, "arrays must be (N, C, S), all alike");
  FASTNN_CHECK(size >= 1 && size < (int64_t(1) << 31), "size out of range");
}

// s^-beta; the exponent 0.75 of the paper needs no logarithm.
template <class T>
FASTNN_INLINE Vec<T> negative_power(Vec<T> s, T beta) {
  if (beta == T(0.75)) {
    const Vec<T> root = sqrt(s);
    return set(T(1)) / (root * sqrt(root));
  }
  return exp(log(s) * set(-beta));
}

// Calls body(offset of the sample, column, lanes) for the vectors of every strip of every sample.
template <class T, class F>
FASTNN_INLINE void each_column(int64_t N, const Window& w, const F& body) {
  const int64_t strips = divide_up(w.S, STRIP);
  parallel_for(N * strips, 1, [=](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t at = unit / strips * w.C * w.S, from = unit % strips * STRIP;
      each_vector<T>(from, least(from + STRIP, w.S), [&](int64_t i, int64_t n) { body(at, i, n); });
    }
  });
}

template <class T>
void local_response_norm(const Array& x, const Array& y, const Array& s, int64_t size, double alpha, double beta,
                         double k) {
  check_arrays(x, y, s, size);
  const Window w{x.shape[1], x.shape[2], size / 2, (size - 1) / 2};
  const T* px = in<T>(x);
  T *py = out<T>(y), *ps = out<T>(s);
  const T factor = static_cast<T>(alpha / double(size)), exponent = static_cast<T>(beta), constant = static_cast<T>(k);
  each_column<T>(x.shape[0], w, [=](int64_t at, int64_t i, int64_t m) {
    for (int64_t c = 0; c < w.C; ++c) {
      Vec<T> sum{};
      for (int64_t j = w.begin(c); j < w.end(c); ++j) {
        const Vec<T> v = load(px + at + j * w.S + i, m);
        sum = sum + v * v;
      }
      const int64_t here = at + c * w.S + i;
      const Vec<T> scale = sum * set(factor) + set(constant);
      store(ps + here, scale, m);
      store(py + here, load(px + here, m) * negative_power(scale, exponent), m);
    }
  });
}

// dx_c = dy_c s_c^-beta - 2 alpha beta / size x_c * (sum over the j whose window holds c of dy_j x_j s_j^(-beta - 1)).
template <class T>
void local_response_norm_backward(const Array& dy, const Array& x, const Array& s, const Array& dx, int64_t size,
                                  double alpha, double beta) {
  check_arrays(x, dx, s, size);
  FASTNN_CHECK(dy.size == x.size, "dy and x differ in size");
  const Window w{x.shape[1], x.shape[2], (size - 1) / 2, size / 2};  // who looks at c: the window turned round
  const T *pdy = in<T>(dy), *px = in<T>(x), *ps = in<T>(s);
  T* pdx = out<T>(dx);
  const T exponent = static_cast<T>(beta), factor = static_cast<T>(2 * alpha * beta / double(size));
  each_column<T>(x.shape[0], w, [=](int64_t at, int64_t i, int64_t m) {
    Scratch<T> powers(w.C * W<T>), parts(w.C * W<T>);  // s^-beta and dy x s^(-beta - 1) of this column
    for (int64_t c = 0; c < w.C; ++c) {
      const int64_t here = at + c * w.S + i;
      const Vec<T> scale = load(ps + here, m), power = negative_power(scale, exponent);
      store(powers.get() + c * W<T>, power);
      store(parts.get() + c * W<T>, load(pdy + here, m) * load(px + here, m) * power / scale);
    }
    for (int64_t c = 0; c < w.C; ++c) {
      Vec<T> sum{};
      for (int64_t j = w.begin(c); j < w.end(c); ++j) sum = sum + load(parts.get() + j * W<T>);
      const int64_t here = at + c * w.S + i;
      store(pdx + here, load(pdy + here, m) * load(powers.get() + c * W<T>) - load(px + here, m) * set(factor) * sum,
            m);
    }
  });
}

FASTNN_KERNELS(local_response, FASTNN_KERNEL(local_response_norm, "x -> y, s | size, alpha, beta, k"),
               FASTNN_KERNEL(local_response_norm_backward, "dy, x, s -> dx | size, alpha, beta"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
