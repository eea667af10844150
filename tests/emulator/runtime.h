// What the text of a kernel, compiled by g++, asks of the emulator's runtime (runtime.cpp), and what the runtime and
// Python ask of a compiled unit. C types only: the runtime is built once, without sanitizers, and serves every unit.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct uint3 {
  unsigned x, y, z;
};

extern "C" {
// Of the thread that runs now.
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

// __syncthreads and __syncwarp, with the place they stand at.
void emulator_sync_block(const char* file, int line);
void emulator_sync_warp(const char* file, int line);

// A warp operation: every lane leaves `bytes` (at most EMULATOR_SLOT) and gets what all lanes left, slot by slot, valid
// until its next but one operation. `what` names it in errors: all 32 lanes must be at the same one. Orders no memory.
enum { EMULATOR_SLOT = 64 };
const unsigned char* emulator_exchange(const char* what, const void* mine, size_t bytes);

// The block's dynamic shared memory. Whether [p, p + bytes) lies in the block's shared memory, static or dynamic.
void* emulator_dynamic_shared();
bool emulator_is_shared(const void* p, size_t bytes);

// Asynchronous copies of the thread that runs, each of which the unit's own, sanitized code carries out when it lands.
struct emulator_copy {
  void* to;
  const void* from;
  int bytes, read;  // `bytes` are written, of which the first `read` are copied and the rest is 0
  uint64_t group;
};
void emulator_copy_start(const struct emulator_copy* copy);
void emulator_copy_commit();
// The next copy that must have landed once at most `pending` groups may be under way; false where there is none.
bool emulator_copy_land(int pending, struct emulator_copy* copy);

// Ends the launch with an error that names the thread.
[[noreturn]] void emulator_fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// A unit: its kernels by the order in which they were asked for, and where its static shared memory is.
struct emulator_kernel {
  const char* expression;
  const char* (*signature)();  // "const float32*,float32*,int64,": what g++ takes the parameters to be
  void (*call)(void** arguments);
};
struct emulator_unit {
  const struct emulator_kernel* kernels;
  int count;
  char *shared_begin, *shared_end;
};
const struct emulator_unit* emulator_get_unit();  // in each unit

// In which order threads of a block, and blocks, take turns.
enum emulator_order { EMULATOR_FORWARD, EMULATOR_REVERSE, EMULATOR_RANDOM };
struct emulator_launch {
  uint3 grid, block;
  uint64_t shared;      // bytes of dynamic shared memory
  int threads, blocks;  // enum emulator_order
  uint64_t seed;
};
// Runs a kernel to its end; 0, or 1 with the reason in `message`. `twin` is a second copy of the unit, whose static
// shared memory every other block uses, so that ThreadSanitizer sees blocks as unordered; else the unit itself.
int emulator_run(const struct emulator_unit* unit, const struct emulator_unit* twin, int kernel,
                 const struct emulator_launch* launch, void** arguments, char* message, size_t size);
}
