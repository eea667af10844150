// Memory for arrays (blocks) and for kernels (scratch). Fresh pages cost more than most kernels that write them
// (1.2-1.6 GB/s in page faults), so both kinds are kept and reused: a steady training step faults no page.
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "internal.h"

namespace fastnn {
namespace {

constexpr size_t ALIGNMENT = 64;
constexpr size_t CACHE_LIMIT = size_t(1) << 29;  // bytes of free blocks kept; more goes back to the system
// From LARGE on a free block of up to LARGER times the size is taken too, the smallest one: maps of a network, each of
// a size of its own, follow one another in the same memory.
constexpr size_t LARGE = size_t(1) << 20;
constexpr size_t LARGER = 4;
constexpr size_t SCRATCH_BLOCK = size_t(1) << 20;

// Under AddressSanitizer every block is its own allocation of the exact size: rounding up and reuse would hide a kernel
// that reads or writes past an array's end.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1  // as GCC says it
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
constexpr bool EXACT = true;
#else
constexpr bool EXACT = false;
#endif

void* allocate(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, ALIGNMENT, bytes) != 0) throw std::bad_alloc();
  return memory;
}

// Sizes are rounded up to one of four steps between powers of two: at most 25 % waste, few distinct classes.
size_t size_class(size_t bytes) {
  if (EXACT) return bytes;
  if (bytes <= ALIGNMENT) return ALIGNMENT;
  size_t step = ALIGNMENT;
  while (step * 8 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

struct BlockCache {
  std::mutex mutex;
  std::map<size_t, std::vector<void*>> free_blocks;
  size_t live = 0, cached = 0;

  void trim() {
    for (auto& [bytes, blocks] : free_blocks)
      for (void* block : blocks) std::free(block);
    free_blocks.clear();
    cached = 0;
  }
};

BlockCache& cache() {
  static BlockCache* instance = new BlockCache;  // never destroyed: arrays may outlive static destructors
  return *instance;
}

struct ScratchBlock {
  char* memory = nullptr;
  size_t capacity = 0, used = 0;
};

// A stack of blocks, of which blocks[current] is the top; those above it are kept for the next call that needs them.
struct ScratchStack {
  std::vector<ScratchBlock> blocks{ScratchBlock{}};
  size_t current = 0;
  ~ScratchStack() {
    for (ScratchBlock& block : blocks) std::free(block.memory);
  }
};

thread_local ScratchStack scratch;

}  // namespace

void* block_take(size_t* bytes) {
  BlockCache& c = cache();
  const size_t rounded = size_class(*bytes);
  const size_t largest = rounded < LARGE ? rounded : LARGER * rounded;
  std::lock_guard<std::mutex> lock(c.mutex);
  void* block = nullptr;
  auto found = c.free_blocks.lower_bound(rounded);
  while (found != c.free_blocks.end() && found->first <= largest && found->second.empty()) ++found;
  if (found != c.free_blocks.end() && found->first <= largest) {
    *bytes = found->first;
    block = found->second.back();
    found->second.pop_back();
    c.cached -= *bytes;
  } else {
    *bytes = rounded;
    try {
      block = allocate(rounded);
    } catch (const std::bad_alloc&) {
      c.trim();
      block = allocate(rounded);
    }
  }
  c.live += *bytes;
  return block;
}

void block_give(void* block, size_t bytes) {
  BlockCache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  c.live -= bytes;
  if (EXACT || c.cached + bytes > CACHE_LIMIT) {
    std::free(block);
    return;
  }
  c.free_blocks[bytes].push_back(block);
  c.cached += bytes;
}

MemoryStatus memory_status() {
  BlockCache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  return {c.live, c.cached};
}

void memory_trim() {
  BlockCache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  c.trim();
}

// The mark holds where the top was: the block's index in the high 16 bits, the bytes used of it below.
void* scratch_take(size_t bytes, size_t* mark) {
  if (bytes > size_t(1) << 46) throw std::bad_alloc();
  const size_t rounded = EXACT ? bytes : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  ScratchStack& s = scratch;
  *mark = s.current << 48 | s.blocks[s.current].used;
  if (EXACT || s.blocks[s.current].capacity - s.blocks[s.current].used < rounded) {
    if (s.current + 1 == s.blocks.size()) s.blocks.push_back(ScratchBlock{});
    ScratchBlock& next = s.blocks[s.current + 1];
    if (EXACT || next.capacity < rounded) {
      const size_t capacity = EXACT || rounded > SCRATCH_BLOCK ? rounded : SCRATCH_BLOCK;
      void* memory = allocate(capacity);
      std::free(next.memory);
      next.memory = static_cast<char*>(memory);
      next.capacity = capacity;
    }
    next.used = 0;
    s.current += 1;
  }
  ScratchBlock& block = s.blocks[s.current];
  void* memory = block.memory + block.used;
  block.used += rounded;
  return memory;
}

void scratch_give(size_t mark) {
  scratch.current = mark >> 48;
  scratch.blocks[scratch.current].used = mark & ((size_t(1) << 48) - 1);
}

}  // namespace fastnn
