// The second bodies of csrc/cuda/ptx.cuh, for g++: the same functions with the same meaning, said in C++. Written from
// the PTX manual's description of each instruction, not from the kernels that use it.
#pragma once
#include "device.h"

#define FASTNN_DEVICE inline

constexpr unsigned ALL_LANES = 0xffffffffu;

inline int emulator_lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }
template <class T>
inline T emulator_slot(const unsigned char* slots, int lane) {
  T value;
  memcpy(&value, slots + EMULATOR_SLOT * lane, sizeof value);
  return value;
}
template <class T>
inline T emulator_shuffle(const char* what, T value, int from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  const unsigned char* slots = emulator_exchange(what, &value, sizeof value);
  return from >= 0 && from < 32 ? emulator_slot<T>(slots, from) : value;
}
template <class T>
inline T shuffle_xor(T value, int mask) {
  return emulator_shuffle("shuffle_xor", value, emulator_lane() ^ mask);
}
template <class T>
inline T shuffle_down(T value, int delta) {
  return emulator_shuffle("shuffle_down", value, emulator_lane() + delta);
}
template <class T>
inline T shuffle_up(T value, int delta) {
  return emulator_shuffle("shuffle_up", value, emulator_lane() - delta);
}
template <class T>
inline T shuffle(T value, int lane) {
  return emulator_shuffle("shuffle", value, lane & 31);
}
inline unsigned ballot(bool predicate) {
  const unsigned char* slots = emulator_exchange("ballot", &predicate, 1);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= unsigned(slots[EMULATOR_SLOT * lane]) << lane;
  return bits;
}

inline void* dynamic_shared_memory() { return emulator_dynamic_shared(); }

// What a lane brings to mma_*; each lane then computes its own four numbers of d from all lanes' operands, the sum in
// double and rounded once (the hardware's own order and rounding of partial sums are not documented).
struct EmulatorOperands {
  uint32_t a[4], b[2];
};
template <class Product>
inline void emulator_mma(const char* what, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         Product product) {
  EmulatorOperands mine;
  memcpy(mine.a, a, sizeof a);
  memcpy(mine.b, b, sizeof b);
  const unsigned char* slots = emulator_exchange(what, &mine, sizeof mine);
  const int group = emulator_lane() / 4, t = emulator_lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = group + 8 * (i / 2), column = 2 * t + i % 2;
    double sum = d[i];
    for (int k = 0; k < 4; ++k)  // the four lanes that hold row `row` of a, and those that hold column `column` of b
      sum += product(emulator_slot<EmulatorOperands>(slots, row % 8 * 4 + k),
                     emulator_slot<EmulatorOperands>(slots, column * 4 + k), row / 8);
    d[i] = static_cast<float>(sum);
  }
}
inline double emulator_tf32(uint32_t x) { return __uint_as_float(x & ~0x1fffu); }
inline double emulator_bf16(uint32_t x, int half) { return __uint_as_float(half ? x & 0xffff0000u : x << 16); }
inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator_mma("mma_tf32", d, a, b, [](const EmulatorOperands& x, const EmulatorOperands& y, int lower) {
    return emulator_tf32(x.a[lower]) * emulator_tf32(y.b[0]) + emulator_tf32(x.a[lower + 2]) * emulator_tf32(y.b[1]);
  });
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator_mma("mma_bf16", d, a, b, [](const EmulatorOperands& x, const EmulatorOperands& y, int lower) {
    double sum = 0;
    for (int k = 0; k < 2; ++k)
      for (int half = 0; half < 2; ++half) sum += emulator_bf16(x.a[lower + 2 * k], half) * emulator_bf16(y.b[k], half);
    return sum;
  });
}

inline void emulator_expect_shared(const char* what, const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes)
    emulator_fail("%s: the shared address is not a multiple of %zu", what, bytes);
  if (!emulator_is_shared(p, bytes)) emulator_fail("%s: the address is not in the block's shared memory", what);
}

// Every lane that passes an address reads its row itself, so that a sanitizer sees who reads what.
template <int N>
inline void emulator_ldmatrix(const char* what, uint32_t (&r)[N], const void* row, bool transposed) {
  uint32_t mine[4] = {};
  if (emulator_lane() < 8 * N) {
    emulator_expect_shared(what, row, 16);
    for (int i = 0; i < 4; ++i) mine[i] = static_cast<const uint32_t*>(row)[i];
  }
  const unsigned char* slots = emulator_exchange(what, mine, sizeof mine);
  const int group = emulator_lane() / 4, t = emulator_lane() % 4;
  const auto element = [&](int matrix, int i, int j) {
    uint16_t value;
    memcpy(&value, slots + EMULATOR_SLOT * (8 * matrix + i) + 2 * j, 2);
    return uint32_t(value);
  };
  for (int m = 0; m < N; ++m)
    r[m] = transposed ? element(m, 2 * t, group) | element(m, 2 * t + 1, group) << 16
                      : element(m, group, 2 * t) | element(m, group, 2 * t + 1) << 16;
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) { emulator_ldmatrix("ldmatrix_x4", r, row, false); }
inline void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  emulator_ldmatrix("ldmatrix_x4_transposed", r, row, true);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row) { emulator_ldmatrix("ldmatrix_x2", r, row, false); }
inline void ldmatrix_x2_transposed(uint32_t (&r)[2], const void* row) {
  emulator_ldmatrix("ldmatrix_x2_transposed", r, row, true);
}

// The target is NaN from the start of the copy to its landing, because the hardware may write at any time between.
template <int BYTES>
inline void cp_async(void* shared, const void* global, int bytes = BYTES) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async moves 4, 8 or 16 bytes");
  emulator_expect_shared("cp_async", shared, BYTES);
  if (reinterpret_cast<uintptr_t>(global) % BYTES)
    emulator_fail("cp_async: the global address is not a multiple of %d", BYTES);
  if (bytes < 0 || bytes > BYTES) emulator_fail("cp_async: %d of %d bytes", bytes, BYTES);
  for (int i = 0; i < BYTES / 4; ++i) static_cast<uint32_t*>(shared)[i] = 0xffffffffu;
  const emulator_copy copy = {shared, global, BYTES, bytes, 0};
  emulator_copy_start(&copy);
}
inline void cp_async_commit() { emulator_copy_commit(); }
template <int N>
inline void cp_async_wait() {
  emulator_copy copy;
  while (emulator_copy_land(N, &copy))
    for (int i = 0; i < copy.bytes; ++i)
      static_cast<char*>(copy.to)[i] = i < copy.read ? static_cast<const char*>(copy.from)[i] : 0;
}

inline uint32_t to_tf32(float x) {  // adding half a unit of the last kept bit rounds to nearest, ties away from 0
  const uint32_t bits = __float_as_uint(x);
  return (isfinite(x) ? bits + 0x1000u : bits) & ~0x1fffu;
}
inline uint32_t to_bf16x2(float low, float high) {
  const auto rounded = [](float x) -> uint32_t {
    const uint32_t bits = __float_as_uint(x);
    return isnan(x) ? 0x7fff : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
}
