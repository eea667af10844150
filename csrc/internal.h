// What bindings.cpp, dispatch.cpp, cpus.cpp, threads.cpp and memory.cpp offer one another. Kernels do not include this.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "kernels.h"

namespace fastnn {

// dispatch.cpp
struct IsaStatus {
  std::string name;
  bool supported;  // by this CPU and operating system
};
std::vector<IsaStatus> built_isas();  // best last
const std::string& active_isa();      // the best supported one, or FASTNN_ISA; std::invalid_argument if impossible
const std::vector<Kernel>& kernel_table();  // of the active instruction set

// cpus.cpp
int default_num_threads(std::string* reason);  // min(affinity, cgroup quota, FASTNN_NUM_THREADS), and which one decided
double cpu_quota(const std::string& root);     // CPUs' worth of time that the control groups allow; 0: no limit

// threads.cpp
int get_num_threads();
void set_num_threads(int count);
void stop_threads();  // they start again on the next call

// memory.cpp: blocks for arrays, 64-byte aligned, kept for reuse when freed.
void* block_take(size_t* bytes);  // at least so many; the block's size is written back
void block_give(void* block, size_t bytes);
struct MemoryStatus {
  size_t live, cached;
};
MemoryStatus memory_status();
void memory_trim();

// Flush denormals to zero while in scope, then restore the caller's floating-point state.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned long long saved_;
};

}  // namespace fastnn
