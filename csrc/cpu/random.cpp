// Random numbers as a pure function of (seed, stream, index): Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel
// random numbers: as easy as 1, 2, 3", 2011). Key = (seed low, high), counter = (index low, high, stream low, high), 32
// bits each; word i of a stream is word i % 4 of block i / 4. The same numbers come from python/fastnn/philox.py.
// Nothing is stored: dropout's gradient makes its mask again from (seed, stream).
#include "math.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {
#include "../formulas.h"

constexpr int BLOCKS = 16;         // made together: the compiler turns the loop over them into vectors
constexpr int WORDS = 4 * BLOCKS;  // 32-bit numbers made together

// words[0 .. WORDS) of the stream from block `index` on.
FASTNN_INLINE void philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t* words) {
  uint32_t a[BLOCKS], b[BLOCKS], c[BLOCKS], d[BLOCKS];
  for (int i = 0; i < BLOCKS; ++i) {
    a[i] = static_cast<uint32_t>(index + uint64_t(i));
    b[i] = static_cast<uint32_t>((index + uint64_t(i)) >> 32);
    c[i] = static_cast<uint32_t>(stream);
    d[i] = static_cast<uint32_t>(stream >> 32);
  }
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 1  // unrolled, the compiler sees no loop to make vectors of, and takes twice the time
    for (int i = 0; i < BLOCKS; ++i) {
      const uint64_t p = uint64_t(a[i]) * 0xD2511F53u, q = uint64_t(c[i]) * 0xCD9E8D57u;
      a[i] = static_cast<uint32_t>(q >> 32) ^ b[i] ^ key0;
      b[i] = static_cast<uint32_t>(q);
      c[i] = static_cast<uint32_t>(p >> 32) ^ d[i] ^ key1;
      d[i] = static_cast<uint32_t>(p);
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  for (int i = 0; i < BLOCKS; ++i) {
    words[4 * i] = a[i];
    words[4 * i + 1] = b[i];
    words[4 * i + 2] = c[i];
    words[4 * i + 3] = d[i];
  }
}

// Calls body(words, first, count) for the first n words of a stream, `count` <= WORDS at a time, in parallel.
template <class F>
FASTNN_INLINE void each_words(int64_t n, int64_t seed, int64_t stream, const F& body) {
  static_assert(GRAIN % WORDS == 0, "a chunk begins with a whole block");
  parallel_for(n, GRAIN, [=](int64_t begin, int64_t end) {
    uint32_t words[WORDS];
    for (int64_t i = begin; i < end; i += WORDS) {
      philox(uint64_t(seed), uint64_t(stream), uint64_t(i / 4), words);
      body(words, i, least(WORDS, end - i));
    }
  });
}

FASTNN_INLINE double unit53(const uint32_t* w) {  // [0, 1) from two words
  return static_cast<double>((uint64_t(w[0]) << 32 | w[1]) >> 11) * 0x1p-53;
}

static void random_bits(const Array& bits, int64_t seed, int64_t stream) {
  uint32_t* y = out<uint32_t>(bits);
  each_words(bits.size, seed, stream, [=](const uint32_t* words, int64_t first, int64_t count) {
    memcpy(y + first, words, size_t(count) * sizeof(uint32_t));
  });
}

// low + u (high - low), u in [0, 1) of 24 bits (float: word i) or 53 bits (double: words 2 i and 2 i + 1); what rounds
// up to high becomes low.
template <class T>
void uniform(const Array& y, double low, double high, int64_t seed, int64_t stream) {
  T* p = out<T>(y);
  constexpr int64_t each = sizeof(T) / 4;
  each_words(y.size * each, seed, stream, [=](const uint32_t* words, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count / each; ++i) {
      const double u = each == 1 ? double(words[i] >> 8) * 0x1p-24 : unit53(words + 2 * i);
      const T v = static_cast<T>(low + u * (high - low));
      p[first / each + i] = v < static_cast<T>(high) ? v : static_cast<T>(low);
    }
  });
}

// A word as a float, correctly rounded where there is an FMA.
FASTNN_INLINE Vec<float> to_float(Bits<float> word) {
  const auto high = __builtin_convertvector((word >> 16) & 0xffff, Vec<float>);
  return high * 65536.0f + __builtin_convertvector(word & 0xffff, Vec<float>);
}
// sqrt(-2 log u), u = (word + 1) 2^-32. Where u is close to 1 its logarithm is taken from 1 - u, which float holds
// exactly enough.
FASTNN_INLINE Vec<float> radius(Bits<float> word) {
  const Vec<float> rest = to_float(~word) * 0x1p-32f, u = to_float(word) * 0x1p-32f + 0x1p-32f;
  const Bits<float> e = ((Bits<float>)u - 0x3f3504f3) >> 23;  // as in log
  const auto near = rest < 0.29f;
  const Vec<float> f = near ? -rest : (Vec<float>)((Bits<float>)u - (e << 23)) - 1.0f;
  return sqrt(log_of(f, near ? Vec<float>{} : __builtin_convertvector(e, Vec<float>)) * -2.0f);
}
// cos and sin of 2 pi word / 2^32: the nearest quarter turn as an integer, a series for the rest.
struct Direction {
  Vec<float> cos, sin;
};
FASTNN_INLINE Direction direction(Bits<float> word) {
  const Bits<float> quarter = ((word >> 29) + 1) >> 1, rest = (word << 2) >> 2;
  const Vec<float> a = __builtin_convertvector(rest, Vec<float>) * 1.46291807926715968e-9f;  // 2 pi / 2^32
  const Vec<float> s = sin_of_eighth(a), c = cos_of_eighth(a);
  const auto odd = (quarter & 1) != 0, turned = ((quarter + 1) & 2) != 0, below = (quarter & 2) != 0;
  const Vec<float> x = odd ? s : c, y = odd ? c : s;
  return {turned ? -x : x, below ? -y : y};
}

// Box and Muller's pairs r cos t, r sin t, r = sqrt(-2 log u), u in (0, 1]. A pair takes two words (float) or four
// (double).
template <class T>
void normal(const Array& y, double mean, double std, int64_t seed, int64_t stream) {
  T* p = out<T>(y);
  constexpr int64_t each = sizeof(T) / 4;
  const int64_t n = y.size;
  each_words((n + n % 2) * each, seed, stream, [=](const uint32_t* words, int64_t first, int64_t count) {
    T numbers[WORDS / each];
    if constexpr (each == 1) {
      uint32_t us[WORDS / 2], ts[WORDS / 2];
      T xs[WORDS / 2], ys[WORDS / 2];
      for (int i = 0; i < WORDS / 2; ++i) {
        us[i] = words[2 * i];
        ts[i] = words[2 * i + 1];
      }
      for (int i = 0; i < WORDS / 2; i += W<T>) {
        Bits<T> u, t;
        memcpy(&u, us + i, sizeof u);
        memcpy(&t, ts + i, sizeof t);
        const Vec<T> r = radius(u) * static_cast<T>(std);
        const Direction d = direction(t);
        store(xs + i, r * d.cos + static_cast<T>(mean));
        store(ys + i, r * d.sin + static_cast<T>(mean));
      }
      for (int i = 0; i < WORDS / 2; ++i) {
        numbers[2 * i] = xs[i];
        numbers[2 * i + 1] = ys[i];
      }
    } else {
      for (int64_t i = 0; i < count / each; i += 2) {
        const uint32_t* w = words + i * each;
        const double t = 6.283185307179586476925 * unit53(w + 2);
        const double r = __builtin_sqrt(-2 * __builtin_log(1.0 - unit53(w))) * std;
        numbers[i] = mean + r * __builtin_cos(t);
        numbers[i + 1] = mean + r * __builtin_sin(t);
      }
    }
    memcpy(p + first / each, numbers, size_t(least(count / each, n - first / each)) * sizeof(T));
  });
}

// y = x / (1 - p) where the word is below (1 - p) 2^32, else 0; `group` neighbours share a word (a whole map of
// dropout2d).
template <class T>
void dropout(const Array& x, const Array& y, double p, int64_t seed, int64_t stream, int64_t group) {
  FASTNN_CHECK(x.size == y.size, "x and y differ in size");
  FASTNN_CHECK(p >= 0 && p <= 1, "p must be in [0, 1]");
  FASTNN_CHECK(group > 0 && x.size % group == 0, "x must hold whole groups");
  const T* px = in<T>(x);
  T* py = out<T>(y);
  const T scale = static_cast<T>(1 / (1 - p));
  const uint64_t threshold = static_cast<uint64_t>((1 - p) * 0x1p32);
  // A threshold of 2^32 keeps all: compare with one less, inclusively.
  const uint32_t last = static_cast<uint32_t>(threshold - (threshold > 0));
  const bool none = threshold == 0;
  each_words(x.size / group, seed, stream, [=](const uint32_t* words, int64_t first, int64_t count) {
    decltype(Bits<T>{}[0] +
             0) keep[WORDS];  // all ones or zero: a branch on a random bit is a wrong guess half the time
    for (int i = 0; i < WORDS; ++i) keep[i] = -decltype(keep[0] + 0)(!none && words[i] <= last);
    if (group == 1) {
      for (int64_t i = 0; i < count; i += W<T>) {
        Bits<T> mask;
        memcpy(&mask, keep + i, sizeof mask);
        const int64_t lanes = least(W<T>, count - i);
        const Vec<T> v = load(px + first + i, lanes) * scale;
        store(py + first + i, (Vec<T>)((Bits<T>)v & mask), lanes);
      }
    } else {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t j = (first + i) * group; j < (first + i + 1) * group; ++j) py[j] = keep[i] ? px[j] * scale : T(0);
    }
  });
}

// clang-format off: a row a line
FASTNN_KERNELS(random,
               FASTNN_KERNEL_ANY(random_bits, "-> bits:i32 | seed, stream"),
               FASTNN_KERNEL(uniform, "-> y | low, high, seed, stream"),
               FASTNN_KERNEL(normal, "-> y | mean, std, seed, stream"),
               FASTNN_KERNEL(dropout, "x -> y | p, seed, stream, group"))
// clang-format on

}  // namespace FASTNN_ISA
}  // namespace fastnn
