// The thread pool behind parallel_run: own threads, no OpenMP (DESIGN: two OpenMP runtimes in one process, hangs after
// fork and collapse under load are what users of the others complain about most).
//
// A job's chunks are claimed one by one, by compare-and-swap on a ticket (generation, next chunk), by the caller and by
// whoever of the workers is awake: the caller never waits for a worker that has not started. Workers spin for a bounded
// time after a job, then sleep. Nested and concurrent calls run serially instead of oversubscribing. After fork the
// child starts a pool of its own. Results never depend on who ran a chunk.
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "internal.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastnn {

// FTZ and DAZ are bits 15 and 6 of MXCSR; FZ is bit 24 of FPCR. An FMA on denormals takes 60 ns instead of 0.9.
#if defined(__x86_64__)
FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(static_cast<unsigned>(saved_) | 0x8040u); }
FlushDenormals::~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(saved_)); }
#elif defined(__aarch64__)
FlushDenormals::FlushDenormals() {
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" ::"r"(saved_ | (1ull << 24)));
}
FlushDenormals::~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }
#else
FlushDenormals::FlushDenormals() : saved_(0) {}
FlushDenormals::~FlushDenormals() {}
#endif

namespace {

constexpr uint64_t CLOSED = 0xffffffffu;  // as next chunk: nothing to claim
constexpr int MAX_THREADS = 256;
constexpr auto SPIN = std::chrono::microseconds(60);

thread_local bool inside_parallel = false;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until done() holds or SPIN has passed; tells which. The clock is read once in 32 turns.
template <class F>
bool spin_until(F done) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 1;; ++i) {
    if (done()) return true;
    pause();
    if (i % 32 == 0 && std::chrono::steady_clock::now() - start > SPIN) return false;
  }
}

class Pool {
 public:
  explicit Pool(int threads) {
    // Where the system gives fewer threads than asked for, those that there are do the work: the bits are the same.
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
    }
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_.store(true);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void run(int64_t chunks, void (*body)(void*, int64_t), void* context) {
    const uint64_t generation = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    // Close the ticket before the fields change: a late worker that saw the last job can then claim nothing.
    ticket_.store(generation << 32 | CLOSED);
    // Release and acquire: whoever reads one of these sees the closed ticket too, so that its claim on the old one
    // fails.
    body_.store(body, std::memory_order_release);
    context_.store(context, std::memory_order_release);
    chunks_.store(chunks, std::memory_order_release);
    done_.store(0, std::memory_order_relaxed);
#if defined(__linux__)
    caller_cpu_.store(sched_getcpu(), std::memory_order_relaxed);
#endif
    ticket_.store(generation << 32);
    if (sleepers_.load() > 0) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
      }
      wake_.notify_all();
    }
    while (claim_and_run()) {
    }
    const auto finished = [&] { return done_.load() == chunks; };
    if (!finished() && !spin_until(finished)) {
      std::unique_lock<std::mutex> lock(mutex_);
      caller_sleeps_.store(true);
      finish_.wait(lock, finished);
      caller_sleeps_.store(false);
    }
    if (const std::exception_ptr error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
  }

 private:
  bool claim_and_run() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    int64_t chunk, chunks;
    void (*body)(void*, int64_t);
    void* context;
    do {
      chunk = static_cast<int64_t>(ticket & 0xffffffffu);
      chunks = chunks_.load(std::memory_order_acquire);
      body = body_.load(std::memory_order_acquire);
      context = context_.load(std::memory_order_acquire);
      if (chunk == static_cast<int64_t>(CLOSED) || chunk >= chunks) return false;
    } while (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire));
    try {
      body(context, chunk);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
    if (done_.fetch_add(1) + 1 == chunks && caller_sleeps_.load()) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
      }
      finish_.notify_one();
    }
    return true;
  }

  bool work_waits() const {
    const uint64_t next = ticket_.load() & 0xffffffffu;
    return stop_.load(std::memory_order_relaxed) ||
           (next != CLOSED && static_cast<int64_t>(next) < chunks_.load(std::memory_order_relaxed));
  }

  void work() {
    inside_parallel = true;
    FlushDenormals flush;
    while (!stop_.load()) {
      if (!spin_until([this] { return work_waits(); })) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, [this] { return work_waits(); });
        sleepers_.fetch_sub(1);
      }
      leave_callers_cpu();
      while (claim_and_run()) {
      }
    }
  }

  // A woken worker is often placed on the caller's own CPU, where it would only take turns with it. Ask for any other
  // CPU, then give the scheduler its freedom back: threads are not pinned for good.
  void leave_callers_cpu() {
#if defined(__linux__)
    const int cpu = caller_cpu_.load(std::memory_order_relaxed);
    if (cpu < 0 || sched_getcpu() != cpu) return;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2 || !CPU_ISSET(cpu, &allowed))
      return;
    cpu_set_t others = allowed;
    CPU_CLR(cpu, &others);
    sched_setaffinity(0, sizeof others, &others);
    sched_setaffinity(0, sizeof allowed, &allowed);
#endif
  }

  std::mutex mutex_;
  std::condition_variable wake_, finish_;
  std::exception_ptr error_;
  std::atomic<bool> stop_{false}, caller_sleeps_{false};
  std::atomic<int> sleepers_{0}, caller_cpu_{-1};
  // Each on a cache line of its own: the ticket and the count of finished chunks are written by every thread.
  alignas(64) std::atomic<uint64_t> ticket_{CLOSED};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<void (*)(void*, int64_t)> body_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int64_t> chunks_{0};
  std::vector<std::thread> workers_;  // last, so that they start when all the rest is there
};

struct Shared {
  std::mutex mutex;  // held by the one caller that uses the pool
  Pool* pool = nullptr;
  std::atomic<int> count{0};  // 0: not asked for yet
};

// Replaced, not repaired, in a forked child: the parent's threads do not exist there and its locks may be held.
Shared* shared = new Shared;

void after_fork_in_child() {
  const int count = shared->count.load();
  shared = new Shared;
  shared->count = count;
  inside_parallel = false;
}

[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, after_fork_in_child);

int affinity_count() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count > 0 ? static_cast<int>(count) : 1;
}

// CPUs' worth of time that the control groups above this process allow; 0 when there is no limit.
double cgroup_quota() {
  double lowest = 0;
  const auto take = [&lowest](double quota, double period) {
    if (quota > 0 && period > 0 && (lowest == 0 || quota / period < lowest)) lowest = quota / period;
  };
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    for (;; path = path.substr(0, path.find_last_of('/'))) {
      if (v2) {
        std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
        std::string quota;
        double period = 0;
        if (file >> quota >> period && quota != "max") take(std::atof(quota.c_str()), period);
      } else {
        double quota = 0, period = 0;
        std::ifstream("/sys/fs/cgroup/cpu" + path + "/cpu.cfs_quota_us") >> quota;
        std::ifstream("/sys/fs/cgroup/cpu" + path + "/cpu.cfs_period_us") >> period;
        take(quota, period);
      }
      if (path.empty() || path == "/") break;
    }
  }
  return lowest;
}

void run_serially(int64_t chunks, void (*body)(void*, int64_t), void* context) {
  for (int64_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk);
}

struct InsideParallel {
  InsideParallel() { inside_parallel = true; }
  ~InsideParallel() { inside_parallel = false; }
};

}  // namespace

int default_num_threads(std::string* reason) {
  int count = affinity_count();
  *reason = "the CPUs this process may run on";
  const double quota = cgroup_quota();
  if (quota > 0 && quota < count) {
    count = quota < 1 ? 1 : static_cast<int>(quota);
    *reason = "the control group's CPU quota";
  }
  if (const char* text = std::getenv("FASTNN_NUM_THREADS")) {
    char* end = nullptr;
    const long wanted = std::strtol(text, &end, 10);
    if (*text != '\0' && (*end != '\0' || wanted < 1))
      fail("FASTNN_NUM_THREADS=%s must be a whole number of at least 1", text);
    if (*text != '\0' && wanted < count) {
      count = static_cast<int>(wanted);
      *reason = "FASTNN_NUM_THREADS";
    }
  }
  return count < MAX_THREADS ? count : MAX_THREADS;
}

int get_num_threads() {  // without the lock, which a running kernel may hold for long
  int count = shared->count.load();
  if (count == 0) {
    std::string reason;
    const int wanted = default_num_threads(&reason);
    if (shared->count.compare_exchange_strong(count, wanted)) count = wanted;
  }
  return count;
}

// Taken literally, even beyond the number of CPUs, as PyTorch does: whoever calls it knows, and the tests of
// determinism need three threads on any machine.
void set_num_threads(int count) {
  if (count < 1 || count > MAX_THREADS)
    fail("set_num_threads: expected a number from 1 to %d, got %d", MAX_THREADS, count);
  std::lock_guard<std::mutex> lock(shared->mutex);
  if (count == shared->count) return;
  delete shared->pool;
  shared->pool = nullptr;
  shared->count = count;
}

void stop_threads() {
  std::lock_guard<std::mutex> lock(shared->mutex);
  delete shared->pool;
  shared->pool = nullptr;
}

void parallel_run(int64_t chunks, void (*body)(void*, int64_t), void* context) {
  if (chunks <= 1 || inside_parallel || chunks >= static_cast<int64_t>(CLOSED))
    return run_serially(chunks, body, context);
  std::unique_lock<std::mutex> lock(shared->mutex, std::try_to_lock);
  if (!lock.owns_lock()) return run_serially(chunks, body, context);
  const int threads = get_num_threads();
  InsideParallel inside;
  if (threads == 1) return run_serially(chunks, body, context);
  if (shared->pool == nullptr) shared->pool = new Pool(threads);
  shared->pool->run(chunks, body, context);
}

}  // namespace fastnn
