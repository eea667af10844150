// Local response normalisation over channels of (N, C, S); arguments as in csrc/cpu/local_response.cpp:
// s = k + alpha / size * (sum of x^2 over the channels around), y = x s^-beta. A thread walks over `chunk` channels of
// one position and keeps the window in registers where SIZE is known (5, as in AlexNet); SIZE 0 is any size, and reads
// the window again for each channel.
#include "divide.cuh"

// Channel c looks at [c - before, c + after]; the walks are (N, chunks of C, S), of which `by_s` and `by_chunks` divide
// by S and by the chunks of an image.
struct Response {
  int C, S, before, after, walks, chunk;
  int64_t by_s, by_chunks;
};

struct Walk {
  int64_t at;  // offset of channel 0
  int begin, end;
};
FASTNN_INLINE Walk walk_of(int i, const Response& p) {
  const int unit = divide(i, p.by_s), image = divide(unit, p.by_chunks);
  const int begin = (unit - image * divide_up(p.C, p.chunk)) * p.chunk;
  return {int64_t(image) * p.C * p.S + i - unit * p.S, begin, begin + p.chunk < p.C ? begin + p.chunk : p.C};
}

// s^-beta; the exponent 0.75 of the paper needs no logarithm.
template <class T>
FASTNN_INLINE T negative_power(T s, T beta) {
  if (beta == T(0.75)) {
    const T root = rsqrt(s);
    return root * sqrt(root);
  }
  return exp(log(s) * -beta);
}

// Calls body(c, window) for the channels of a walk, where window[i], i < SIZE, is value(c - before + i), zero beyond
// the channels.
template <int SIZE, class V, class F, class G>
FASTNN_INLINE void slide(const Walk& walk, const Response& p, const F& value, const G& body) {
  V window[SIZE];
  const auto at = [&](int c) { return below(c, p.C) ? value(c) : V{}; };
#pragma unroll
  for (int i = 1; i < SIZE; ++i) window[i] = at(walk.begin - p.before + i - 1);
#pragma unroll 4
  for (int c = walk.begin; c < walk.end; ++c) {
#pragma unroll
    for (int i = 1; i < SIZE; ++i) window[i - 1] = window[i];
    window[SIZE - 1] = at(c + p.after);
    body(c, window);
  }
}
// Calls add(value(j)) for the channels j that c looks at.
template <class F, class G>
FASTNN_INLINE void look(int c, const Response& p, const F& value, const G& add) {
  const int end = c + p.after < p.C ? c + p.after + 1 : p.C;
  for (int j = c < p.before ? 0 : c - p.before; j < end; ++j) add(value(j));
}

template <class T, int SIZE>
__global__ void local_response_norm(const T* x, T* y, T* s, Response p, T factor, T beta, T k) {
  const int i = own_number();
  if (!below(i, p.walks)) return;
  const Walk walk = walk_of(i, p);
  x += walk.at;
  y += walk.at;
  s += walk.at;
  const auto value = [&](int c) { return x[c * p.S]; };
  const auto write = [&](int c, T own, T sum) {
    const T scale = sum * factor + k;
    s[c * p.S] = scale;
    y[c * p.S] = own * negative_power(scale, beta);
  };
  if constexpr (SIZE > 0) {
    slide<SIZE, T>(walk, p, value, [&](int c, const T(&window)[SIZE]) {
      T sum{};
#pragma unroll
      for (int j = 0; j < SIZE; ++j) sum += window[j] * window[j];
      write(c, window[SIZE / 2], sum);
    });
  } else {
    for (int c = walk.begin; c < walk.end; ++c) {
      T sum{};
      look(c, p, value, [&](T v) { sum += v * v; });
      write(c, value(c), sum);
    }
  }
}

// dx_c = dy_c s_c^-beta - factor x_c (sum over the j whose window holds c of dy_j x_j s_j^(-beta - 1)), factor = 2
// alpha beta / size. The host turns the window round: `before` and `after` say who looks at c.
template <class T>
struct Share {
  T own, x, part;  // dy s^-beta, x, dy x s^(-beta - 1)
};
template <class T, int SIZE>
__global__ void local_response_norm_backward(const T* dy, const T* x, const T* s, T* dx, Response p, T factor, T beta) {
  const int i = own_number();
  if (!below(i, p.walks)) return;
  const Walk walk = walk_of(i, p);
  dy += walk.at;
  x += walk.at;
  s += walk.at;
  dx += walk.at;
  const auto value = [&](int c) {
    const int at = c * p.S;
    const T scale = s[at], v = x[at], own = dy[at] * negative_power(scale, beta);
    return Share<T>{own, v, own * v / scale};
  };
  const auto write = [&](int c, const Share<T>& share, T sum) { dx[c * p.S] = share.own - share.x * factor * sum; };
  if constexpr (SIZE > 0) {
    slide<SIZE, Share<T>>(walk, p, value, [&](int c, const Share<T>(&window)[SIZE]) {
      T sum{};
#pragma unroll
      for (int j = 0; j < SIZE; ++j) sum += window[j].part;
      write(c, window[SIZE / 2], sum);
    });
  } else {
    for (int c = walk.begin; c < walk.end; ++c) {
      T sum{};
      look(c, p, value, [&](const Share<T>& share) { sum += share.part; });
      write(c, value(c), sum);
    }
  }
}
