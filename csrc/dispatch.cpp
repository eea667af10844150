// Which instruction sets were built, which of them this CPU and operating system allow, and which one is active.
// FASTNN_ISA overrides the choice. Adding an instruction set: a row here and one in CMakeLists.txt.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "internal.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fastnn {

#define FASTNN_DECLARE(isa)                   \
  namespace isa {                             \
  const KernelList* kernel_lists(int* count); \
  }
#if FASTNN_HAS_BASELINE
FASTNN_DECLARE(baseline)
#endif
#if FASTNN_HAS_NEON
FASTNN_DECLARE(neon)
#endif
#if FASTNN_HAS_AVX2
FASTNN_DECLARE(avx2)
#endif
#if FASTNN_HAS_AVX512
FASTNN_DECLARE(avx512)
#endif
#if FASTNN_HAS_WIDE
FASTNN_DECLARE(wide)
#endif
#undef FASTNN_DECLARE

namespace {

// What -march=x86-64-v2, v3 and v4 let the compiler use. __builtin_cpu_supports asks the operating system too (XGETBV):
// one that does not save the AVX state counts as having none. Three instructions it cannot be asked for everywhere.
#if defined(__x86_64__)
[[maybe_unused]] bool has_baseline() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}
[[maybe_unused]] bool has_avx2() {
  unsigned a, b, c = 0, d, extended = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !__get_cpuid(0x80000001, &a, &b, &extended, &d)) return false;
  const bool movbe = c & (1u << 22), f16c = c & (1u << 29), lzcnt = extended & (1u << 5);
  return has_baseline() && movbe && f16c && lzcnt && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
[[maybe_unused]] bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
[[maybe_unused]] bool has_baseline() { return true; }
#endif

struct Isa {
  const char* name;
  bool supported;
  bool automatic;  // may be chosen without being asked for
  const KernelList* (*lists)(int*);
};

std::vector<Isa> isas() {
  std::vector<Isa> rows;
#if FASTNN_HAS_BASELINE
  rows.push_back({"baseline", has_baseline(), true, baseline::kernel_lists});
#endif
#if FASTNN_HAS_NEON
  rows.push_back({"neon", true, true, neon::kernel_lists});  // every arm64 CPU has it
#endif
#if FASTNN_HAS_WIDE
  rows.push_back({"wide", has_avx2(), false, wide::kernel_lists});
#endif
#if FASTNN_HAS_AVX2
  rows.push_back({"avx2", has_avx2(), true, avx2::kernel_lists});
#endif
#if FASTNN_HAS_AVX512
  rows.push_back({"avx512", has_avx512(), true, avx512::kernel_lists});
#endif
  return rows;
}

Isa choose() {
  const std::vector<Isa> rows = isas();
  const char* wanted = std::getenv("FASTNN_ISA");
  if (wanted == nullptr || *wanted == '\0') {
    const Isa* best = nullptr;
    for (const Isa& row : rows)
      if (row.supported && row.automatic) best = &row;
    if (best == nullptr) throw std::invalid_argument("fastnn was built for instruction sets that this CPU lacks");
    return *best;
  }
  std::string possible;
  for (const Isa& row : rows) {
    if (!row.supported) continue;
    if (std::string(wanted) == row.name) return row;
    possible += (possible.empty() ? "" : ", ") + std::string(row.name);
  }
  throw std::invalid_argument("FASTNN_ISA=" + std::string(wanted) + " is not possible: this build on this CPU has " +
                              possible);
}

const Isa& active() {
  static const Isa isa = choose();
  return isa;
}

}  // namespace

std::vector<IsaStatus> built_isas() {
  std::vector<IsaStatus> status;
  for (const Isa& row : isas()) status.push_back({row.name, row.supported});
  return status;
}

const std::string& active_isa() {
  static const std::string name = active().name;
  return name;
}

const std::vector<Kernel>& kernel_table() {
  static const std::vector<Kernel> table = [] {
    std::vector<Kernel> rows;
    int count = 0;
    const KernelList* lists = active().lists(&count);
    for (int i = 0; i < count; ++i) rows.insert(rows.end(), lists[i].rows, lists[i].rows + lists[i].count);
    return rows;
  }();
  return table;
}

void fail(const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  throw std::invalid_argument(message);
}

}  // namespace fastnn
