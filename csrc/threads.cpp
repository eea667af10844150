// The thread pool behind parallel_run: own threads, no OpenMP (DESIGN: two OpenMP runtimes in one process, hangs after
// fork and collapse under load are what users of the others complain about most).
//
// A job's chunks are claimed one by one, by compare-and-swap on a ticket (generation, taken from the front, taken from
// the back), by the caller and by whoever of the workers is awake: the caller never waits for a worker that has not
// started. The caller takes from the front, the first worker from the back and so on in turn: what a thread wrote in
// one kernel it mostly reads in the next, from its own caches. Workers spin for a bounded time after a job, then sleep.
// Nested and concurrent calls run serially instead of oversubscribing. After fork the child starts a pool of its own.
// Results never depend on who ran a chunk. How many threads: cpus.cpp.
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "cpus.h"
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

constexpr int TAKEN_BITS = 18;  // of a ticket: a count of chunks; the generation has the 28 bits that are left
constexpr uint64_t MOST_CHUNKS = (uint64_t(1) << TAKEN_BITS) - 1;
constexpr uint64_t CLOSED = MOST_CHUNKS << TAKEN_BITS | MOST_CHUNKS;  // as counts: nothing to claim
constexpr int MOST_THREADS = 256;                                     // that may be asked for

// Waking a sleeping worker costs the caller 7 us and brings help 30 us later (on a virtual machine, measured), so a
// worker spins on through the Python between the kernels of an eager step: SPIN from the last call of any kernel, but
// LINGER at most from the last job with chunks to share. A caller whose last chunk is still in a worker's hands spins
// about as long as sleeping would cost it.
using Clock = std::chrono::steady_clock;
constexpr auto SPIN = std::chrono::microseconds(100);
constexpr auto LINGER = std::chrono::microseconds(1000);
constexpr auto CALLER_SPIN = std::chrono::microseconds(60);
constexpr auto LOOK = std::chrono::microseconds(20);  // in which a running thread's CPU time surely moves
constexpr int TURNS = 32;                             // of a spin, about 1 us, between two looks at the clock

thread_local bool inside_parallel = false;

// Counts the calls of kernels, on a cache line of its own. Roughly: two at once may count as one.
struct alignas(64) Calls {
  std::atomic<uint32_t> count{0};
} calls;

void count_call() { calls.count.store(calls.count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Sleeps while the word holds the value, until woken; may end early. Not std::condition_variable: glibc's notify waits
// for sleepers that were woken before but have not run yet, so a worker without a CPU would hold its caller up.
void sleep_on(std::atomic<uint32_t>& word, uint32_t value) {
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
#else
  if (word.load() == value) std::this_thread::sleep_for(std::chrono::microseconds(100));
#endif
}

void wake(std::atomic<uint32_t>& word, int64_t count) {
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, static_cast<int>(count), nullptr, nullptr, 0);
#else
  (void)word, (void)count;
#endif
}

class Pool {
 public:
  Pool(int threads, const CpuMask& mask) : mask_(mask) {
    // Where the system gives fewer threads than asked for, those that there are do the work: the bits are the same.
    for (int i = 1; i < threads; ++i) {
      Worker& worker = workers_.emplace_back();
      worker.from_back = i % 2 == 1;
      try {
        worker.thread = std::thread([this, &worker] { work(worker); });
      } catch (const std::system_error&) {
        workers_.pop_back();
        break;
      }
    }
    helpers_.store(static_cast<int64_t>(workers_.size()), std::memory_order_relaxed);
  }

  ~Pool() {
    stop_.store(true);
    wake_ups_.fetch_add(1);
    wake(wake_ups_, INT_MAX);
    for (Worker& worker : workers_) worker.thread.join();
  }

  void run(int64_t chunks, void (*body)(void*, int64_t), void* context) {
    const uint64_t generation = job() + 1;
    // Close the ticket before the fields change: a late worker that saw the last job can then claim nothing.
    ticket_.store(generation << 2 * TAKEN_BITS | CLOSED);
    // Release and acquire: whoever reads one of these sees the closed ticket too, so that its claim on the old one
    // fails.
    body_.store(body, std::memory_order_release);
    context_.store(context, std::memory_order_release);
    chunks_.store(chunks, std::memory_order_release);
    done_.store(0, std::memory_order_relaxed);
    caller_cpu_.store(current_cpu(), std::memory_order_relaxed);
    ticket_.store(generation << 2 * TAKEN_BITS);
    // A worker counts itself as a sleeper, then looks for work; here it is the other way round: one sees the other.
    if (const int64_t sleeping = sleepers_.load(); sleeping > 0) {
      const int64_t awake = helpers_.load(std::memory_order_relaxed) - sleeping;
      if (chunks - 1 > awake) {
        wake_ups_.fetch_add(1);
        wake(wake_ups_, std::min(sleeping, chunks - 1 - awake));
      }
    }
    while (claim_and_run(false)) {
    }
    if (!spin_until_finished(chunks, CALLER_SPIN)) sleep_until_finished(chunks);
    if (const std::exception_ptr error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
  }

  // The caller asks for its own mask where that costs little: before it wakes a worker, and once in 1024 jobs.
  bool is_time_to_check() const { return sleepers_.load(std::memory_order_relaxed) > 0 || job() % 1024 == 0; }
  const CpuMask& mask() const { return mask_; }

 private:
  struct alignas(64) Worker {
    std::thread thread;
    bool from_back = false;
    std::atomic<bool> works{false};  // it may hold a chunk
    int64_t time_seen = -1;          // the caller's note
  };

  bool spin_until_finished(int64_t chunks, Clock::duration most) const {
    if (done_.load() == chunks) return true;
    const auto start = Clock::now();
    for (int i = 1; done_.load() != chunks; ++i) {
      pause();
      if (i % TURNS == 0 && Clock::now() - start > most) return false;
    }
    return true;
  }

  // A worker that lost its CPU to another process while it held a chunk would come back after that one's time slice, of
  // 3 ms and more: it gets the CPU that the caller is about to leave.
  void sleep_until_finished(int64_t chunks) {
    Worker* const worker = find_worker_without_cpu(chunks);
    const CpuMask here = mask_.only(current_cpu());
    const bool lent = worker != nullptr && mask_.exchange(worker->thread.native_handle(), here);
    // Stored again before every look: a late worker of the job before may have cleared it.
    for (caller_sleeps_.store(1); done_.load() != chunks; caller_sleeps_.store(1)) sleep_on(caller_sleeps_, 1);
    caller_sleeps_.store(0);
    if (lent) here.exchange(worker->thread.native_handle(), mask_);
  }

  // The first that holds a chunk but gets no CPU time while the caller spins for another moment.
  Worker* find_worker_without_cpu(int64_t chunks) {
    for (Worker& worker : workers_)
      worker.time_seen = worker.works.load() ? cpu_time(worker.thread.native_handle()) : -1;
    if (spin_until_finished(chunks, LOOK)) return nullptr;
    for (Worker& worker : workers_)
      if (worker.time_seen >= 0 && worker.works.load() && cpu_time(worker.thread.native_handle()) == worker.time_seen)
        return &worker;
    return nullptr;
  }

  bool spin_until_work() const {
    auto last_call = Clock::now(), last_job = last_call;
    uint64_t seen_calls = calls.count.load(std::memory_order_relaxed), seen_job = job();
    for (int i = 1; !work_waits(); ++i) {
      pause();
      if (i % TURNS != 0) continue;
      const auto now = Clock::now();
      // A job with a chunk for everybody counts, even if the others were quicker: the next one may be larger.
      if (const uint64_t latest = job(); latest != seen_job) {
        seen_job = latest;
        if (chunks_.load(std::memory_order_relaxed) > helpers_.load(std::memory_order_relaxed)) last_job = now;
      }
      if (const uint64_t count = calls.count.load(std::memory_order_relaxed); count != seen_calls) {
        seen_calls = count;
        last_call = now;
      }
      if (now - last_call > SPIN || now - last_job > LINGER) return false;
    }
    return true;
  }

  static int64_t front(uint64_t ticket) { return static_cast<int64_t>(ticket >> TAKEN_BITS & MOST_CHUNKS); }
  static int64_t back(uint64_t ticket) { return static_cast<int64_t>(ticket & MOST_CHUNKS); }

  bool claim_and_run(bool from_back) {
    const uint64_t one = from_back ? 1 : uint64_t(1) << TAKEN_BITS;
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    int64_t chunk, chunks;
    void (*body)(void*, int64_t);
    void* context;
    do {
      chunks = chunks_.load(std::memory_order_acquire);
      body = body_.load(std::memory_order_acquire);
      context = context_.load(std::memory_order_acquire);
      if (front(ticket) + back(ticket) >= chunks) return false;
      chunk = from_back ? chunks - 1 - back(ticket) : front(ticket);
    } while (
        !ticket_.compare_exchange_weak(ticket, ticket + one, std::memory_order_acq_rel, std::memory_order_acquire));
    try {
      body(context, chunk);
    } catch (...) {
      std::lock_guard<std::mutex> lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    if (done_.fetch_add(1) + 1 == chunks && caller_sleeps_.load() != 0 && caller_sleeps_.exchange(0) != 0)
      wake(caller_sleeps_, 1);
    return true;
  }

  uint64_t job() const { return ticket_.load(std::memory_order_relaxed) >> 2 * TAKEN_BITS; }

  bool work_waits() const {
    const uint64_t ticket = ticket_.load();
    return stop_.load() || front(ticket) + back(ticket) < chunks_.load(std::memory_order_relaxed);
  }

  void work(Worker& self) {
    inside_parallel = true;
    FlushDenormals flush;
    while (!stop_.load()) {
      if (!spin_until_work()) {
        sleepers_.fetch_add(1);
        const uint32_t seen = wake_ups_.load();
        if (!work_waits()) sleep_on(wake_ups_, seen);
        sleepers_.fetch_sub(1);
        continue;  // to spin again, even where others were quicker: waking it was what cost
      }
      leave_callers_cpu();
      self.works.store(true);
      while (claim_and_run(self.from_back)) {
      }
      self.works.store(false);
    }
  }

  // A woken worker is often placed on the caller's own CPU, where it would only take turns with it. Ask for any other.
  void leave_callers_cpu() const {
    const int cpu = caller_cpu_.load(std::memory_order_relaxed);
    if (cpu < 0 || current_cpu() != cpu) return;
    const CpuMask others = mask_.without(cpu);
    if (mask_.exchange(pthread_self(), others)) others.exchange(pthread_self(), mask_);
  }

  const CpuMask mask_;  // which every worker inherits from the caller that started it
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::atomic<bool> stop_{false};
  std::atomic<uint32_t> wake_ups_{0}, caller_sleeps_{0};
  std::atomic<int64_t> helpers_{0}, sleepers_{0};
  std::atomic<int> caller_cpu_{-1};
  // Each on a cache line of its own: the ticket and the count of finished chunks are written by every thread.
  alignas(64) std::atomic<uint64_t> ticket_{CLOSED};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<void (*)(void*, int64_t)> body_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int64_t> chunks_{0};
  std::deque<Worker> workers_;  // last, so that they start when all the rest is there; they stay where they are
};

struct Shared {
  std::mutex mutex;  // held by the one caller that uses the pool
  Pool* pool = nullptr;
  std::atomic<int> chosen{0};  // by set_num_threads; 0: nobody did
};

// Replaced, not repaired, in a forked child: the parent's threads do not exist there and its locks may be held.
Shared* shared = new Shared;

void after_fork_in_child() {
  const int chosen = shared->chosen.load();
  shared = new Shared;
  shared->chosen = chosen;
  inside_parallel = false;
}

[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, after_fork_in_child);

// The pool for this caller, or none where it has but one CPU. With shared->mutex held. Workers may run where the caller
// may: a caller with another mask gets a new pool (0.1 ms), and as many threads as its mask allows unless a number was
// chosen.
Pool* pool_for_caller() {
  Pool*& pool = shared->pool;
  if (pool != nullptr && !pool->is_time_to_check()) return pool;
  const int chosen = shared->chosen.load();
  if (chosen == 1) return nullptr;
  const CpuMask mask = CpuMask::of(pthread_self());
  const int threads = chosen > 0 ? chosen : default_num_threads(mask);
  if (threads == 1) return nullptr;
  if (pool != nullptr && !(pool->mask() == mask)) {
    delete pool;
    pool = nullptr;
  }
  if (pool == nullptr) pool = new Pool(threads, mask);
  return pool;
}

void run_serially(int64_t chunks, void (*body)(void*, int64_t), void* context) {
  for (int64_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk);
}

// More chunks than a ticket can count: a thousand at a time.
void run_in_groups(int64_t chunks, void (*body)(void*, int64_t), void* context) {
  constexpr int64_t GROUP = 1024;
  struct Groups {
    int64_t chunks;
    void (*body)(void*, int64_t);
    void* context;
  } groups{chunks, body, context};
  parallel_run((chunks + GROUP - 1) / GROUP,
               [](void* pointer, int64_t group) {
                 const Groups& g = *static_cast<const Groups*>(pointer);
                 const int64_t end = std::min(g.chunks, (group + 1) * GROUP);
                 for (int64_t chunk = group * GROUP; chunk < end; ++chunk) g.body(g.context, chunk);
               },
               &groups);
}

struct InsideParallel {
  InsideParallel() { inside_parallel = true; }
  ~InsideParallel() { inside_parallel = false; }
};

}  // namespace

int get_num_threads() {  // without the lock, which a running kernel may hold for long
  const int chosen = shared->chosen.load();
  return chosen > 0 ? chosen : default_num_threads(CpuMask::of(pthread_self()));
}

// Taken literally, even beyond the number of CPUs, as PyTorch does: whoever calls it knows, and the tests of
// determinism need three threads on any machine.
void set_num_threads(int count) {
  if (count < 1 || count > MOST_THREADS)
    fail("set_num_threads: expected a number from 1 to %d, got %d", MOST_THREADS, count);
  std::lock_guard<std::mutex> lock(shared->mutex);
  if (count == shared->chosen) return;
  delete shared->pool;
  shared->pool = nullptr;
  shared->chosen = count;
}

void stop_threads() {
  std::lock_guard<std::mutex> lock(shared->mutex);
  delete shared->pool;
  shared->pool = nullptr;
}

void parallel_run(int64_t chunks, void (*body)(void*, int64_t), void* context) {
  if (inside_parallel) return run_serially(chunks, body, context);
  count_call();
  if (chunks <= 1) return run_serially(chunks, body, context);
  if (chunks > static_cast<int64_t>(MOST_CHUNKS)) return run_in_groups(chunks, body, context);
  std::unique_lock<std::mutex> lock(shared->mutex, std::try_to_lock);
  if (!lock.owns_lock()) return run_serially(chunks, body, context);
  InsideParallel inside;
  if (Pool* pool = pool_for_caller()) return pool->run(chunks, body, context);
  run_serially(chunks, body, context);
}

}  // namespace fastnn
