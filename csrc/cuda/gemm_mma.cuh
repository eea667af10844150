// Products on tensor cores (sm_80 and up): the main loop of GEMM and of implicit-GEMM convolution, C(M x N) = A(M x K)
// B(K x N), float in, float sums. It knows nothing of where operands come from or sums go to: loaders (matrix.cuh for
// plain matrices) copy the block's panels of A and B to shared memory with cp.async, some stages ahead; the kernel
// takes the sums from Sums::each.
//
//   MmaTile<BM, BN, WM, WN>         the block's tile and its warps' tiles
//   AlongK<ROWS>, AlongRows<ROWS>   how a stage keeps a panel of 16 columns of A (or of B transposed: rows are then n)
//   a loader L                      typedef L::Panel, one of these; l(panel, k) starts the copies of columns k to k +
//   15
//                                   into the panel, 0 where they end. All threads call it, k = first, first + 16, ...
//   multiply_tiles<PRECISION>(sums, load_a, load_b, first, end)     sums = A B over columns first to end;
//                                   PRECISION: Tf32, Tf32x3, Bf16, Bf16Pairs
#pragma once
#include "common.cuh"

// The block's tile, the tile of each of its warps. Sums take WM WN / 32 registers of a thread, operands WM / 2 and 16
// more. A warp reads WM + WN rows of a panel for WM WN products: at 64 x 64, the most that registers hold, shared
// memory is as busy as the tensor cores; smaller tiles wait for it.
template <int BM_, int BN_, int WM_, int WN_, int STAGES_ = 4, int PAD_ = 8>
struct MmaTile {
  static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, STAGES = STAGES_;
  static constexpr int BK = 16, PAD = PAD_;  // PAD: 8 where there may be AlongRows, else 0
  static constexpr int WARPS_N = BN / WN, THREADS = (BM / WM) * WARPS_N * WARP;
  static constexpr int PANEL_A = BK * (BM + PAD), STAGE = PANEL_A + BK * (BN + PAD);  // floats
  static constexpr int SHARED = STAGES * STAGE * 4;                                   // bytes
};

template <bool FIRST, class A, class B>
struct Choose {
  typedef A Type;
};
template <class A, class B>
struct Choose<false, A, B> {
  typedef B Type;
};

// Panels of 16 columns. The instructions want, in registers that follow one another, for A rows g and g + 8 (kept as
// rows 2g and 2g + 1 of 16) of column t, then of column t + 4; for B the two columns of one row g of 8, where
// g = lane / 4 and t = lane % 4. Whatever came in another order would be moved, one instruction for each number: more
// than all others together. None of the accesses below meets another in its bank.
//
// Columns next to each other, two rows to a line of 128 bytes, its eight packs exchanged by the line's number. ldmatrix
// reads the same pack of eight rows (all even, all odd or all eight that follow one another) into the right registers,
// four times at once; copies of packs fill lines in order.
template <int ROWS>
struct AlongK {
  static FASTNN_INLINE int at(int row, int k) {
    return row / 2 * 32 + ((row % 2 * 4 + k / 4) ^ (row / 2 % 8)) * 4 + k % 4;
  }

  // x[s][r]: what the instruction of columns 8 s to 8 s + 7 wants in register r.
  static FASTNN_INLINE void read_a(float (&x)[2][4], const float* panel, int row) {
    const int lane = threadIdx.x % WARP, line = lane % 8, matrix = lane / 8;
#pragma unroll
    for (int s = 0; s < 2; ++s) read(x[s], panel + at(row + 2 * line + matrix % 2, 8 * s + matrix / 2 * 4));
  }
  // Both: x[2 s + r].
  static FASTNN_INLINE void read_b(float (&x)[4], const float* panel, int row) {
    const int lane = threadIdx.x % WARP;
    read(x, panel + at(row + lane % 8, lane / 8 * 4));
  }

 private:
  static FASTNN_INLINE void read(float (&x)[4], const float* line) {
    uint32_t bits[4];
    ldmatrix_x4(bits, line);
#pragma unroll
    for (int r = 0; r < 4; ++r) x[r] = __uint_as_float(bits[r]);
  }
};
// Rows next to each other; columns are 8 numbers further apart than there are rows, so that four columns of eight rows
// fall into all 32 banks, and those of four to seven are moved by four more: eight columns of four rows do too, as they
// come one by one from a matrix whose columns are next to each other.
template <int ROWS>
struct AlongRows {
  static FASTNN_INLINE int at(int row, int k) { return k * (ROWS + 8) + k % 8 / 4 * 4 + row; }

  static FASTNN_INLINE void read_a(float (&x)[2][4], const float* panel, int row) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Pack<float, 2> pair = load_pack<2>(panel + at(row + lane / 4 * 2, lane % 4 + 4 * i));
      x[i / 2][i % 2 * 2] = pair.v[0];
      x[i / 2][i % 2 * 2 + 1] = pair.v[1];
    }
  }
  static FASTNN_INLINE void read_b(float (&x)[4], const float* panel, int row) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = panel[at(row + lane / 4, lane % 4 + 4 * i)];
  }
};

// Precisions: the operands of 16 rows of A and of 8 columns of B, 16 columns of K; strip += A B for four such B.
//
// TF32: 11 bits of the operands.
struct Tf32 {
  struct A {
    uint32_t x[2][4];
  };
  struct B {
    uint32_t x[2][2];
  };
  static FASTNN_INLINE void round(A& to, const float (&x)[2][4]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) to.x[i / 4][i % 4] = to_tf32(x[i / 4][i % 4]);
  }
  static FASTNN_INLINE void round(B& to, const float (&x)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to.x[i / 2][i % 2] = to_tf32(x[i]);
  }
  static FASTNN_INLINE void multiply(float (&strip)[4][4], const A& a, const B (&b)[4]) {
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int j = 0; j < 4; ++j) mma_tf32(strip[j], a.x[s], b[j].x[s]);
  }
};

// 3xTF32: x = big + small, 11 bits each (small keeps 11 of the 12 that remain, its last one cut off by the
// instruction); big big + big small + small big is what float would give within 2^-22. The instruction's own sums are
// cut, not rounded, and so drift: those of 16 columns are made apart and added by an ordinary addition. An infinity
// becomes NaN (inf - inf), and so does what rounds to one; a NaN stays one in `small`.
struct Tf32x3 {
  struct A {
    uint32_t big[2][4], small[2][4];
  };
  struct B {
    uint32_t big[2][2], small[2][2];
  };
  static FASTNN_INLINE void split(uint32_t& big, uint32_t& small, float x) {
    big = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;  // to nearest; to_tf32 takes two instructions more, for NaN
    small = __float_as_uint(x - __uint_as_float(big));
  }
  static FASTNN_INLINE void round(A& to, const float (&x)[2][4]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) split(to.big[i / 4][i % 4], to.small[i / 4][i % 4], x[i / 4][i % 4]);
  }
  static FASTNN_INLINE void round(B& to, const float (&x)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) split(to.big[i / 2][i % 2], to.small[i / 2][i % 2], x[i]);
  }
  static FASTNN_INLINE void multiply(float (&strip)[4][4], const A& a, const B (&b)[4]) {
    float sums[4][4] = {};
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#pragma unroll
      for (int j = 0; j < 4; ++j) mma_tf32(sums[j], a.small[s], b[j].big[s]);
#pragma unroll
      for (int j = 0; j < 4; ++j) mma_tf32(sums[j], a.big[s], b[j].small[s]);
#pragma unroll
      for (int j = 0; j < 4; ++j) mma_tf32(sums[j], a.big[s], b[j].big[s]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) strip[j][r] += sums[j][r];
  }
};

// bf16: 8 bits of the operands, the range of float; two columns to a register, in an order that A and B share.
struct Bf16 {
  struct A {
    uint32_t x[4];
  };
  struct B {
    uint32_t x[2];
  };
  static FASTNN_INLINE void round(A& to, const float (&x)[2][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to.x[i] = to_bf16x2(x[i / 2][i % 2], x[i / 2][i % 2 + 2]);
  }
  static FASTNN_INLINE void round(B& to, const float (&x)[4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) to.x[i] = to_bf16x2(x[2 * i], x[2 * i + 1]);
  }
  static FASTNN_INLINE void multiply(float (&strip)[4][4], const A& a, const B (&b)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) mma_bf16(strip[j], a.x, b[j].x);
  }
};

// The same of operands that were rounded before: 32 columns of K, two to each of the panels' numbers.
struct Bf16Pairs {
  struct A {
    uint32_t x[2][4];
  };
  struct B {
    uint32_t x[2][2];
  };
  static FASTNN_INLINE void round(A& to, const float (&x)[2][4]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) to.x[i / 4][i % 4] = __float_as_uint(x[i / 4][i % 4]);
  }
  static FASTNN_INLINE void round(B& to, const float (&x)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to.x[i / 2][i % 2] = __float_as_uint(x[i]);
  }
  static FASTNN_INLINE void multiply(float (&strip)[4][4], const A& a, const B (&b)[4]) {
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int j = 0; j < 4; ++j) mma_bf16(strip[j], a.x[s], b[j].x[s]);
  }
};

// A thread's sums of its block's tile: strips of 16 rows and 32 columns, each as the registers of four instructions.
template <class TILE>
struct Sums {
  float strip[TILE::WM / 16][TILE::WN / 32][4][4];

  static FASTNN_INLINE int warp_row() { return threadIdx.x / WARP / TILE::WARPS_N * TILE::WM; }
  static FASTNN_INLINE int warp_column() { return threadIdx.x / WARP % TILE::WARPS_N * TILE::WN; }
  // Where the lane's pack of 4 columns is, in rows 2g + pack / 2 % 2 and half pack % 2 of the columns of strip pack
  // / 4.
  static FASTNN_INLINE int row_of(int pack) {
    return warp_row() + pack / 4 / (TILE::WN / 32) * 16 + threadIdx.x % WARP / 4 * 2 + pack / 2 % 2;
  }
  static FASTNN_INLINE int column_of(int pack) {
    const int t = threadIdx.x % 4;
    return warp_column() + pack / 4 % (TILE::WN / 32) * 32 + pack % 2 * 16 + t % 2 * 8 + t / 2 * 4;
  }

  // Calls f(row, column, const float (&sums)[4]): sums of columns `column` to `column` + 3, a multiple of 4, of the
  // block's tile. Unrolled: f should be short. All lanes call it together: a lane has two columns of each instruction,
  // and gives one of two to its neighbour for two more of the other.
  template <class F>
  FASTNN_INLINE void each(F f) const {
    const bool odd = threadIdx.x % 2;
#pragma unroll
    for (int pack = 0; pack < TILE::WM * TILE::WN / 128; ++pack) {
      const float (&c)[4][4] = strip[pack / 4 / (TILE::WN / 32)][pack / 4 % (TILE::WN / 32)];
      const int left = pack % 2 * 2, right = left + 1, r = pack / 2 % 2 * 2;
      const float kept[2] = {odd ? c[right][r] : c[left][r], odd ? c[right][r + 1] : c[left][r + 1]};
      const float got[2] = {shuffle_xor(odd ? c[left][r] : c[right][r], 1),
                            shuffle_xor(odd ? c[left][r + 1] : c[right][r + 1], 1)};
      const float sums[4] = {odd ? got[0] : kept[0], odd ? got[1] : kept[1], odd ? kept[0] : got[0],
                             odd ? kept[1] : got[1]};
      f(row_of(pack), column_of(pack), sums);
    }
  }
  // Calls f(row, column) for the same packs, in a rolled loop.
  template <class F>
  static FASTNN_INLINE void places(F f) {
#pragma unroll 1
    for (int pack = 0; pack < TILE::WM * TILE::WN / 128; ++pack) f(row_of(pack), column_of(pack));
  }
};

// sums = A B over columns `first` to `end`, through TILE::SHARED bytes of dynamic shared memory. All stages but one are
// on their way while that one is multiplied; one barrier for each.
template <class PRECISION, class TILE, class LOAD_A, class LOAD_B>
FASTNN_INLINE void multiply_tiles(Sums<TILE>& sums, LOAD_A& load_a, LOAD_B& load_b, int64_t first, int64_t end) {
  typedef typename LOAD_A::Panel PanelA;
  typedef typename LOAD_B::Panel PanelB;
  constexpr int ROWS = TILE::WM / 16, COLUMNS = TILE::WN / 32, AHEAD = TILE::STAGES - 1;
  float* const memory = dynamic_shared<float>();

  int64_t next = first;
  const auto start = [&](int stage) {
    if (next < end) {
      load_a(memory + stage * TILE::STAGE, next);
      load_b(memory + stage * TILE::STAGE + TILE::PANEL_A, next);
    }
    next += TILE::BK;
    cp_async_commit();  // an empty group too: the count of groups is what wait goes by
  };

#pragma unroll
  for (int i = 0; i < ROWS * COLUMNS * 16; ++i) sums.strip[i / 16 / COLUMNS][i / 16 % COLUMNS][i / 4 % 4][i % 4] = 0.0f;
#pragma unroll 1
  for (int stage = 0; stage < AHEAD; ++stage) start(stage);

  int stage = 0;
#pragma unroll 1
  for (int64_t k = first; k < end; k += TILE::BK) {
    cp_async_wait<AHEAD - 1>();
    __syncthreads();  // this stage has landed for all, and all have left the one before, which is filled again
    const float* const panel_a = memory + stage * TILE::STAGE;
    const float* const panel_b = panel_a + TILE::PANEL_A;
    typename PRECISION::A a[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      float x[2][4];
      PanelA::read_a(x, panel_a, Sums<TILE>::warp_row() + 16 * i);
      PRECISION::round(a[i], x);
    }
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      typename PRECISION::B b[4];
#pragma unroll
      for (int l = 0; l < 4; ++l) {
        float x[4];
        PanelB::read_b(x, panel_b, Sums<TILE>::warp_column() + 32 * j + 8 * l);
        PRECISION::round(b[l], x);
      }
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
        PRECISION::multiply(sums.strip[i][j], a[i], b);
        // The tensor cores have work: time to give the next copies out.
        if (j == 0 && i == (COLUMNS > 1 ? ROWS - 1 : 0)) start(stage == 0 ? AHEAD : stage - 1);
      }
    }
    stage = stage == AHEAD ? 0 : stage + 1;
  }
  cp_async_wait<0>();
}
