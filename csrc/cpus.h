// What cpus.cpp tells the thread pool: which CPUs a thread may run on, and how many threads that is worth.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <stdint.h>

#include <string>

namespace fastnn {

// The CPUs a thread may run on. Unknown where the system does not tell, or has more than 1024: then no two differ.
struct CpuMask {
  bool known = false;
#if defined(__linux__)
  cpu_set_t cpus;
#endif
  static CpuMask of(pthread_t thread);
  int count() const;
  bool operator==(const CpuMask& other) const;
  CpuMask without(int cpu) const;
  CpuMask only(int cpu) const;
  // Threads are not pinned for good: a thread that has this mask is given another, and gets this one back. Where it has
  // a mask that neither gave it, somebody else chose that, and it stays. (A change by others between the look and the
  // write is lost to this thread; as it will be one of the caller's mask too, the pool soon starts over.)
  bool exchange(pthread_t thread, const CpuMask& other) const;
};

int current_cpu();                             // -1 where the system does not tell
int64_t cpu_time(pthread_t thread);            // nanoseconds on a CPU so far; -1 where the system does not tell
int default_num_threads(const CpuMask& mask);  // min(mask, cgroup quota, FASTNN_NUM_THREADS)

}  // namespace fastnn
