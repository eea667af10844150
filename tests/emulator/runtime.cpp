// The emulator's runtime: a kernel's blocks run one after the other, and the threads of a block as fibers on one OS
// thread, which change places only where the kernel waits: at a barrier, at a warp operation, at its end. A barrier
// that not all threads reach ends the launch with an error, where a GPU would hang or go on wrongly. Every block starts
// with its shared memory full of NaN (all bits set). Nothing here is instrumented; ThreadSanitizer and
// AddressSanitizer, where loaded, are told of the fibers and of what orders them. Next: device.h, ptx.h (the kernels'
// side), build.py (Python's).
#include "runtime.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <mutex>
#include <optional>

extern "C" {
uint3 threadIdx, blockIdx, blockDim, gridDim;

// Present where a sanitizer is.
#define WEAK __attribute__((weak))
WEAK void* __tsan_get_current_fiber();
WEAK void* __tsan_create_fiber(unsigned flags);
WEAK void __tsan_destroy_fiber(void* fiber);
WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
WEAK void __tsan_acquire(void* tag);
WEAK void __tsan_release(void* tag);
WEAK void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
WEAK void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
WEAK void __asan_unpoison_memory_region(const volatile void* p, size_t size);
}

namespace {

enum { WARP = 32, MAX_THREADS = 1024, COPIES = 256, NO_SYNC = 1 };  // NO_SYNC: __tsan_switch_to_fiber orders nothing
constexpr size_t STACK = 256 << 10, PAGE = 4096, CANARY = 64;

enum class State : unsigned char { READY, AT_BARRIER, AT_WARP, DONE };

struct Place {
  const char* file;
  int line;
};

struct Fiber {
  char* stacks[2] = {};  // by the block's parity under ThreadSanitizer; the lowest page of each is a guard
  char* stack = nullptr;
#if defined(__x86_64__)
  void* sp = nullptr;
#else
  ucontext_t context;
#endif
  void* tsan[2] = {};         // ThreadSanitizer's, for even and odd blocks
  void* asan_fake = nullptr;  // AddressSanitizer's, while another fiber runs
  State state = State::DONE;
  Place place{};
  const char* operation = nullptr;
  emulator_copy copies[COPIES];  // a ring
  unsigned first_copy = 0, end_copy = 0;
  uint64_t group = 0;  // the one that is being filled
};

struct Warp {
  int arrived = 0;
  unsigned turn = 0;  // which of the two sets of slots the current operation fills
  alignas(16) unsigned char slots[2][WARP][EMULATOR_SLOT];
  char tags[2][2];  // by the block's parity, then the operation's
};

std::mutex one_launch;  // Python threads may launch at once
Fiber fibers[MAX_THREADS], host;
Warp warps[MAX_THREADS / WARP];
int threads, current, arrived;
Place expected;           // where the first that arrived waits
unsigned barriers;        // how many barriers the block has passed
char barrier_tags[2][2];  // by the block's parity, then the barrier's: what one barrier orders, the next must not
char block_tags[4], launch_tag, end_tag;
unsigned block_number;  // of the block that runs, in the order of running
int parity;             // of that number
emulator_launch now;
uint64_t random_state;
const emulator_unit* unit;
int kernel;
void** arguments;
char* dynamic_memory[2];  // by parity
bool failed;
char reason[1024];

// The host's stack, as AddressSanitizer knows it.
const void* host_bottom;
size_t host_size;

bool tsan() { return __tsan_create_fiber != nullptr; }

// Not memset, which sanitizers watch (build.py sees to it that no loop here becomes one).
void fill(char* p, char value, size_t bytes) {
#if defined(__x86_64__)
  asm volatile("rep stosb" : "+D"(p), "+c"(bytes) : "a"(value) : "memory");
#else
  for (size_t i = 0; i < bytes; ++i) p[i] = value;
#endif
}

#if defined(__x86_64__)
extern "C" void emulator_switch(void** save, void* load);
asm(R"(
.text
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, .-emulator_switch
)");
#endif

void enter();

void prepare(Fiber& f) {
  char*& stack = f.stacks[tsan() ? parity : 0];
  if (!stack) {
    stack = static_cast<char*>(mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (stack == MAP_FAILED || mprotect(stack, PAGE, PROT_NONE)) abort();
  }
  f.stack = stack;
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(f.stack + PAGE, STACK - PAGE);
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(f.stack + STACK) - 1;  // enter() begins with the stack as after a call
  *top = nullptr;
  *--top = reinterpret_cast<void*>(enter);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  f.sp = top;
#else
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack + PAGE;
  f.context.uc_stack.ss_size = STACK - PAGE;
  makecontext(&f.context, enter, 0);
#endif
  f.asan_fake = nullptr;
  f.state = State::READY;
  f.first_copy = f.end_copy = 0;
  f.group = 0;
}

void arrive_on_stack(Fiber& self, bool from_host) {
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(self.asan_fake, from_host ? &host_bottom : nullptr,
                                    from_host ? &host_size : nullptr);
}

bool from_host;

void switch_to(Fiber& from, Fiber& to, bool ends) {
  from_host = &from == &host;
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(ends ? nullptr : &from.asan_fake, &to == &host ? host_bottom : to.stack + PAGE,
                                   &to == &host ? host_size : STACK - PAGE);
  if (tsan()) __tsan_switch_to_fiber(to.tsan[parity], NO_SYNC);
#if defined(__x86_64__)
  emulator_switch(&from.sp, to.sp);
#else
  swapcontext(&from.context, &to.context);
#endif
  arrive_on_stack(from, from_host);
}

void acquire(char* tag) {
  if (tsan()) __tsan_acquire(tag);
}
void release(char* tag) {
  if (tsan()) __tsan_release(tag);
}

uint64_t random_number() {  // xorshift
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  return random_state ^= random_state << 17;
}

// The next thread that can run, or -1.
int next_ready() {
  int i = current;
  const int step = now.threads == EMULATOR_REVERSE ? threads - 1 : 1;
  if (now.threads == EMULATOR_RANDOM) i = random_number() % threads;
  for (int k = 0; k < threads; ++k) {
    i += step;
    if (i >= threads) i -= threads;
    if (fibers[i].state == State::READY) return i;
  }
  return -1;
}

void set_thread(int i) {
  current = i;
  threadIdx = {i % now.block.x, i / now.block.x % now.block.y, i / (now.block.x * now.block.y)};
}

// Leave the running thread, whose state says why, for another; the host where there is none.
void leave(bool ends = false) {
  Fiber& self = fibers[current];
  const int next = next_ready();
  if (next >= 0) set_thread(next);
  switch_to(self, next >= 0 ? fibers[next] : host, ends);
  // Whoever switched back has set the thread.
}

void enter() {
  Fiber& self = fibers[current];
  arrive_on_stack(self, from_host);
  acquire(&launch_tag);
  acquire(&block_tags[(block_number + 2) % 4]);  // the last block that used this shared memory, two ago
  unit->kernels[kernel].call(arguments);
  if (self.first_copy != self.end_copy)
    emulator_fail("ends with asynchronous copies that it did not wait for: the next block's shared memory may be hit");
  release(&block_tags[block_number % 4]);
  release(&end_tag);
  self.state = State::DONE;
  leave(true);
  abort();
}

const char* base(const char* file) {
  const char* name = file;
  for (const char* p = file; *p; ++p)
    if (*p == '/') name = p + 1;
  return name;
}

int describe(char* text, size_t size, int i) {
  return snprintf(text, size, "thread (%u, %u, %u) of block (%u, %u, %u)", i % now.block.x,
                  i / now.block.x % now.block.y, i / (now.block.x * now.block.y), blockIdx.x, blockIdx.y, blockIdx.z);
}

// Nothing can run and not everything is done: who waits, and who does not come.
void explain_standstill() {
  int waits = -1, missing = -1;
  for (int i = threads - 1; i >= 0; --i)
    if (fibers[i].state == State::AT_BARRIER || fibers[i].state == State::AT_WARP) waits = i;
  const Fiber& w = fibers[waits];
  const bool warp = w.state == State::AT_WARP;
  const int begin = warp ? waits / WARP * WARP : 0, end = warp ? begin + WARP : threads;
  for (int i = end - 1; i >= begin; --i)
    if (i >= threads || fibers[i].state != w.state) missing = i;
  int n = describe(reason, sizeof reason, waits);
  if (warp && !w.place.file)
    n += snprintf(reason + n, sizeof reason - n, " waits in %s", w.operation);
  else
    n += snprintf(reason + n, sizeof reason - n, " waits at %s (%s:%d)", warp ? "__syncwarp" : "__syncthreads",
                  base(w.place.file), w.place.line);
  const char* why = missing >= threads                           ? "does not exist"
                    : fibers[missing].state == State::DONE       ? "has ended"
                    : fibers[missing].state == State::AT_BARRIER ? "waits at a barrier of the block"
                                                                 : "waits for its warp";
  snprintf(reason + n, sizeof reason - n, ", which %s %d will not reach: it %s", warp ? "lane" : "thread",
           warp ? missing % WARP : missing, why);
}

// An access to no memory at all (or to a stack's guard): the thread goes on in emulator_fail. Sanitizers have their
// own.
#if defined(__x86_64__)
void* fault;
void crashed() { emulator_fail("accesses %p, where there is no memory", fault); }
void on_crash(int, siginfo_t* info, void* context) {
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  fault = info->si_addr;
  registers[REG_RIP] = reinterpret_cast<greg_t>(crashed);
  registers[REG_RSP] = reinterpret_cast<greg_t>(fibers[current].stack + STACK) - 8;  // as after a call
}
struct CrashHandler {
  struct sigaction segv, bus;
  stack_t stack;
  alignas(16) char memory[1 << 14];
  CrashHandler() {
    stack_t mine = {};
    mine.ss_sp = memory;
    mine.ss_size = sizeof memory;
    sigaltstack(&mine, &stack);
    struct sigaction action = {};
    action.sa_sigaction = on_crash;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &segv);
    sigaction(SIGBUS, &action, &bus);
  }
  ~CrashHandler() {
    sigaction(SIGSEGV, &segv, nullptr);
    sigaction(SIGBUS, &bus, nullptr);
    sigaltstack(&stack, nullptr);
  }
};
#else
struct CrashHandler {};
#endif

void run_block(const uint3& where, const emulator_unit* copy) {
  unit = copy;
  blockIdx = where;
  fill(unit->shared_begin, -1, unit->shared_end - unit->shared_begin);
  fill(dynamic_memory[parity], -1, now.shared);
  for (Warp& w : warps) w.arrived = 0, w.turn = 0;
  arrived = 0;
  barriers = 0;
  for (int i = 0; i < threads; ++i) prepare(fibers[i]);
  current = now.threads == EMULATOR_REVERSE ? 0 : threads - 1;
  set_thread(next_ready());
  switch_to(host, fibers[current], false);
  for (int i = 0; i < threads && !failed; ++i)
    if (fibers[i].state != State::DONE) failed = true, explain_standstill();
}

void create_tsan_fibers() {
  for (int p = 0; p < 2 && tsan(); ++p) {
    host.tsan[p] = __tsan_get_current_fiber();
    for (int i = 0; i < threads; ++i)
      if (!fibers[i].tsan[p]) fibers[i].tsan[p] = __tsan_create_fiber(0);
  }
}
void destroy_tsan_fibers() {  // abandoned in the middle of a call
  for (Fiber& f : fibers)
    for (void*& t : f.tsan)
      if (t) __tsan_destroy_fiber(t), t = nullptr;
}

// All lanes of the warp leave their bytes.
const unsigned char* meet(const char* what, Place place, const void* mine, size_t bytes) {
  Fiber& self = fibers[current];
  Warp& warp = warps[current / WARP];
  const int lane = current % WARP, first = current - lane;
  self.operation = what;
  self.place = place;
  for (int i = first; i < first + WARP && i < threads && warp.arrived; ++i)
    if (fibers[i].state == State::AT_WARP && fibers[i].operation != what)
      emulator_fail("is in %s while lane %d is in %s: all lanes of a warp must meet in one", what, i - first,
                    fibers[i].operation);
  const unsigned turn = warp.turn & 1;
  for (size_t i = 0; i < bytes; ++i) warp.slots[turn][lane][i] = static_cast<const unsigned char*>(mine)[i];
  if (++warp.arrived == WARP) {
    warp.arrived = 0;
    ++warp.turn;
    for (int i = first; i < first + WARP; ++i) fibers[i].state = State::READY;
  } else {
    self.state = State::AT_WARP;
    leave();
  }
  return &warp.slots[turn][0][0];
}

}  // namespace

extern "C" {

void emulator_fail(const char* format, ...) {
  int n = describe(reason, sizeof reason, current);
  n += snprintf(reason + n, sizeof reason - n, ": ");
  va_list list;
  va_start(list, format);
  vsnprintf(reason + n, sizeof reason - n, format, list);
  va_end(list);
  failed = true;
  switch_to(fibers[current], host, false);
  abort();
}

void emulator_sync_block(const char* file, int line) {
  Fiber& self = fibers[current];
  self.place = {file, line};
  if (!arrived)
    expected = self.place;
  else if (expected.file != file || expected.line != line)
    emulator_fail("reaches __syncthreads at %s:%d while others wait at %s:%d: all threads of a block must meet at one",
                  base(file), line, base(expected.file), expected.line);
  char* tag = &barrier_tags[parity][barriers & 1];
  release(tag);
  if (++arrived == threads) {
    arrived = 0;
    ++barriers;
    for (int i = 0; i < threads; ++i) fibers[i].state = State::READY;
  } else {
    self.state = State::AT_BARRIER;
    leave();
  }
  acquire(tag);
}

const unsigned char* emulator_exchange(const char* what, const void* mine, size_t bytes) {
  return meet(what, {}, mine, bytes);
}

void emulator_sync_warp(const char* file, int line) {
  Warp& warp = warps[current / WARP];
  char* tag = &warp.tags[parity][warp.turn & 1];
  release(tag);
  meet("__syncwarp", {file, line}, nullptr, 0);
  acquire(tag);
}

void* emulator_dynamic_shared() { return dynamic_memory[parity]; }

bool emulator_is_shared(const void* p, size_t bytes) {
  const char *begin = static_cast<const char*>(p), *end = begin + bytes;
  const char* dynamic = dynamic_memory[parity];
  return (begin >= unit->shared_begin && end <= unit->shared_end) || (begin >= dynamic && end <= dynamic + now.shared);
}

void emulator_copy_start(const emulator_copy* copy) {
  Fiber& self = fibers[current];
  if (self.end_copy - self.first_copy == COPIES)
    emulator_fail("has more than %d asynchronous copies under way", COPIES);
  emulator_copy& mine = self.copies[self.end_copy++ % COPIES];
  mine = *copy;
  mine.group = self.group;
}
void emulator_copy_commit() { ++fibers[current].group; }
bool emulator_copy_land(int pending, emulator_copy* copy) {
  Fiber& self = fibers[current];
  if (self.first_copy == self.end_copy) return false;
  const emulator_copy& first = self.copies[self.first_copy % COPIES];
  if (first.group + pending >= self.group) return false;
  *copy = first;
  ++self.first_copy;
  return true;
}

int emulator_run(const emulator_unit* even, const emulator_unit* odd, int which, const emulator_launch* launch,
                 void** values, char* message, size_t size) {
  const std::lock_guard<std::mutex> lock(one_launch);
  now = *launch;
  threads = now.block.x * now.block.y * now.block.z;
  kernel = which;
  arguments = values;
  failed = false;
  random_state = now.seed * 0x9e3779b97f4a7c15u + 1;
  blockDim = now.block;
  gridDim = now.grid;
  // Exactly as many bytes as asked for, so that AddressSanitizer sees the end; elsewhere a mark behind them does.
  const size_t beyond = __asan_unpoison_memory_region ? 0 : CANARY;
  for (char*& memory : dynamic_memory) {
    void* p;
    if (posix_memalign(&p, 16, now.shared + beyond)) abort();
    memory = static_cast<char*>(p);
    fill(memory, -1, now.shared + beyond);
  }
  std::optional<CrashHandler> handler;
  if (!tsan() && !__asan_unpoison_memory_region) handler.emplace();
  create_tsan_fibers();
  release(&launch_tag);
  const uint64_t blocks = uint64_t(now.grid.x) * now.grid.y * now.grid.z;
  for (uint64_t k = 0; k < blocks && !failed; ++k) {
    uint64_t i = now.blocks == EMULATOR_REVERSE ? blocks - 1 - k : k;
    block_number = k;
    parity = k & 1;
    run_block({unsigned(i % now.grid.x), unsigned(i / now.grid.x % now.grid.y),
               unsigned(i / (uint64_t(now.grid.x) * now.grid.y))},
              parity ? odd : even);
    for (size_t b = 0; b < beyond && !failed; ++b)
      if (dynamic_memory[parity][now.shared + b] != -1) {
        failed = true;
        snprintf(reason, sizeof reason, "block (%u, %u, %u) writes past its %llu bytes of dynamic shared memory",
                 blockIdx.x, blockIdx.y, blockIdx.z, static_cast<unsigned long long>(now.shared));
      }
  }
  acquire(&end_tag);
  if (failed && tsan()) destroy_tsan_fibers();
  for (char* memory : dynamic_memory) free(memory);
  if (failed) snprintf(message, size, "%s", reason);
  return failed;
}

// Checks that g++ puts into the units (-fsanitize=alignment,null,bounds), reported as errors of the launch.
struct SourceLocation {
  const char* file;
  unsigned line, column;
};
struct TypeDescriptor {
  unsigned short kind, info;
  char name[1];
};
struct TypeMismatch {
  SourceLocation where;
  const TypeDescriptor* type;
  unsigned char log_alignment, kind;
};
struct OutOfBounds {
  SourceLocation where;
  const TypeDescriptor *array, *index;
};
void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch* data, uintptr_t p) {
  if (!p) emulator_fail("%s:%u: access through a null pointer", base(data->where.file), data->where.line);
  emulator_fail("%s:%u: misaligned access: %s needs an address that is a multiple of %u", base(data->where.file),
                data->where.line, data->type->name, 1u << data->log_alignment);
}
void __ubsan_handle_out_of_bounds_abort(OutOfBounds* data, uintptr_t index) {
  emulator_fail("%s:%u: index %lld is out of bounds for %s", base(data->where.file), data->where.line,
                static_cast<long long>(index), data->array->name);
}
}
