// How many CPUs' worth of time this process may use: the affinity of the calling thread, which may change at any time,
// and the CPU quota of its control groups and FASTNN_NUM_THREADS, which are read once.
#include "cpus.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <thread>

#include "internal.h"

namespace fastnn {
namespace {

constexpr int MAX_THREADS = 256;

// CPUs' worth of time that one control group allows; 0 when it sets no limit.
double quota_of(const std::string& group, bool v2) {
  double quota = 0, period = 0;
  if (v2) {
    std::string text;
    if (std::ifstream(group + "/cpu.max") >> text >> period && text != "max") quota = std::atof(text.c_str());
  } else {
    std::ifstream(group + "/cpu.cfs_quota_us") >> quota;  // -1: no limit
    std::ifstream(group + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

struct Limit {
  int count;
  std::string reason;
};

const Limit& limit() {
  static const Limit fixed = [] {
    Limit lowest{MAX_THREADS, "the most that fastnn starts"};
    if (const double quota = cpu_quota(""); quota > 0 && quota < lowest.count)
      lowest = {std::max(1, static_cast<int>(quota)), "the control group's CPU quota"};
    if (const char* text = std::getenv("FASTNN_NUM_THREADS"); text != nullptr && *text != '\0') {
      char* end = nullptr;
      const long wanted = std::strtol(text, &end, 10);
      if (*end != '\0' || wanted < 1) fail("FASTNN_NUM_THREADS=%s must be a whole number of at least 1", text);
      if (wanted < lowest.count) lowest = {static_cast<int>(wanted), "FASTNN_NUM_THREADS"};
    }
    return lowest;
  }();
  return fixed;
}

}  // namespace

// The lowest limit of the groups that hold this process and of all groups above them. A container may see its path in
// the host's tree, of which only a part is mounted: what does not exist sets no limit, and the mount's root is asked
// last. `root` stands before every path; tests put a tree of their own there.
double cpu_quota(const std::string& root) {
  double lowest = 0;
  std::ifstream groups(root + "/proc/self/cgroup");  // lines of hierarchy:controllers:path
  const std::string mount = root + "/sys/fs/cgroup";
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    std::string path = line.substr(second + 1);
    for (;; path = path.substr(0, path.find_last_of('/'))) {
      for (const std::string& tree : {mount + (v2 ? "" : "/cpu"), mount + "/" + (v2 ? "unified" : controllers)})
        if (const double quota = quota_of(tree + path, v2); quota > 0 && (lowest == 0 || quota < lowest))
          lowest = quota;
      if (path.find('/') == std::string::npos) break;
    }
  }
  return lowest;
}

#if defined(__linux__)

CpuMask CpuMask::of(pthread_t thread) {
  CpuMask mask;
  mask.known = pthread_getaffinity_np(thread, sizeof mask.cpus, &mask.cpus) == 0;
  return mask;
}

int CpuMask::count() const {
  return known ? CPU_COUNT(&cpus) : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

bool CpuMask::operator==(const CpuMask& other) const {
  return known && other.known ? CPU_EQUAL(&cpus, &other.cpus) : known == other.known;
}

CpuMask CpuMask::without(int cpu) const {
  CpuMask others = *this;
  CPU_CLR(static_cast<size_t>(cpu), &others.cpus);
  return others;
}

CpuMask CpuMask::only(int cpu) const {
  CpuMask one;
  one.known = known;
  CPU_ZERO(&one.cpus);
  CPU_SET(static_cast<size_t>(cpu), &one.cpus);
  return one;
}

bool CpuMask::exchange(pthread_t thread, const CpuMask& other) const {
  return known && other.count() > 0 && of(thread) == *this &&
         pthread_setaffinity_np(thread, sizeof other.cpus, &other.cpus) == 0;
}

int current_cpu() { return sched_getcpu(); }

int64_t cpu_time(pthread_t thread) {
  clockid_t clock;
  timespec time;
  if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &time) != 0) return -1;
  return int64_t(time.tv_sec) * 1000000000 + time.tv_nsec;
}

#else

CpuMask CpuMask::of(pthread_t) { return {}; }
int CpuMask::count() const { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }
bool CpuMask::operator==(const CpuMask&) const { return true; }
CpuMask CpuMask::without(int) const { return *this; }
CpuMask CpuMask::only(int) const { return *this; }
bool CpuMask::exchange(pthread_t, const CpuMask&) const { return false; }
int current_cpu() { return -1; }
int64_t cpu_time(pthread_t) { return -1; }

#endif

int default_num_threads(const CpuMask& mask) { return std::min(mask.count(), limit().count); }

int default_num_threads(std::string* reason) {
  const int cpus = CpuMask::of(pthread_self()).count();
  const bool limited = limit().count < cpus;
  *reason = limited ? limit().reason : "the CPUs this process may run on";
  return limited ? limit().count : cpus;
}

}  // namespace fastnn
