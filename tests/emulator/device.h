// CUDA C++ as g++ sees it: included before every kernel's text (build.py). Only words that csrc/cuda uses; whatever
// needs other threads goes to the runtime. Next: ptx.h.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static  // a unit has no other variables that are zero at first: its .bss is its shared memory
#define __constant__ static
#define __syncthreads() emulator_sync_block(__FILE__, __LINE__)
#define __syncwarp() emulator_sync_warp(__FILE__, __LINE__)
#define __syncthreads_or(predicate) emulator_sync_or(predicate, __FILE__, __LINE__)

__shared__ int emulator_any;
inline int emulator_sync_or(int predicate, const char* file, int line) {
  emulator_sync_block(file, line);  // the previous call's readers are done
  __atomic_store_n(&emulator_any, 0, __ATOMIC_RELAXED);
  emulator_sync_block(file, line);
  if (predicate) __atomic_store_n(&emulator_any, 1, __ATOMIC_RELAXED);
  emulator_sync_block(file, line);
  return __atomic_load_n(&emulator_any, __ATOMIC_RELAXED);
}
inline int atomicMax(int* p, int value) {
  int old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(p, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

template <class A, class B>
inline constexpr std::common_type_t<A, B> min(A a, B b) {
  typedef std::common_type_t<A, B> T;
  if constexpr (std::is_floating_point_v<T>) return fmin(T(a), T(b));
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B>
inline constexpr std::common_type_t<A, B> max(A a, B b) {
  typedef std::common_type_t<A, B> T;
  if constexpr (std::is_floating_point_v<T>) return fmax(T(a), T(b));
  return T(a) < T(b) ? T(b) : T(a);
}
template <class To, class From>
inline To emulator_bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To r;
  memcpy(&r, &x, sizeof r);
  return r;
}
inline float __int_as_float(int x) { return emulator_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emulator_bits<float>(x); }
inline int __float_as_int(float x) { return emulator_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emulator_bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return emulator_bits<double>(x); }
inline long long __double_as_longlong(double x) { return emulator_bits<long long>(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rsqrt(float x) { return 1 / sqrtf(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T>
inline T __ldg(const T* p) {
  return *p;
}

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// A kernel's entry in its unit: what the parameters are, and a call with a pointer to each.
template <class T>
struct EmulatorType {
  static constexpr const char* name = "?";
};
#define EMULATOR_TYPE(type, text)             \
  template <>                                 \
  struct EmulatorType<type> {                 \
    static constexpr const char* name = text; \
  };
EMULATOR_TYPE(bool, "bool")
EMULATOR_TYPE(int8_t, "int8")
EMULATOR_TYPE(uint8_t, "uint8")
EMULATOR_TYPE(int16_t, "int16")
EMULATOR_TYPE(uint16_t, "uint16")
EMULATOR_TYPE(int32_t, "int32")
EMULATOR_TYPE(uint32_t, "uint32")
EMULATOR_TYPE(long, "int64")
EMULATOR_TYPE(long long, "int64")
EMULATOR_TYPE(unsigned long, "uint64")
EMULATOR_TYPE(unsigned long long, "uint64")
EMULATOR_TYPE(float, "float32")
EMULATOR_TYPE(double, "float64")

template <auto F>
struct EmulatorKernel;
template <class... A, void (*F)(A...)>
struct EmulatorKernel<F> {
  template <size_t... I>
  static void spread(void** arguments, std::index_sequence<I...>) {
    F(*static_cast<A*>(arguments[I])...);
  }
  static void call(void** arguments) { spread(arguments, std::index_sequence_for<A...>()); }
  // "const float32*,float32*,int64,struct(40),"
  static const char* signature() {
    static char text[1024] = "?";  // not zero, see __shared__
    size_t n = text[0] = 0;
    ((n += describe<A>(text + n, sizeof text - n)), ...);
    return text;
  }
  template <class T>
  static size_t describe(char* text, size_t size) {
    typedef std::remove_pointer_t<T> Pointee;
    typedef std::remove_cv_t<Pointee> Plain;
    if (std::is_class_v<Plain>) return snprintf(text, size, "struct(%zu),", sizeof(T));
    return snprintf(text, size, "%s%s%s,", std::is_const_v<Pointee> ? "const " : "", EmulatorType<Plain>::name,
                    std::is_pointer_v<T> ? "*" : "");
  }
};
