// Lowering: a chunk of the padded image, copied so that every tap (c,r,s) finds its inputs for all the chunk's outputs
// as one contiguous run. Two ways, the same to whoever reads through the table of offsets:
//   columns  one copy for each s, taken with the horizontal stride; r is a shift by whole rows inside it (the copy
//            keeps its rows apart by their remainder by the vertical stride). R times less memory than im2col: the
//            memory-efficient convolution of Cho & Brand, 2017 (arXiv 1706.06873).
//   im2col   one copy for each (r,s): the textbook's matrix, in chunks.
// A chunk is some whole output rows, or a piece of one: its outputs are contiguous in y.
#pragma once
#include "conv.h"
#include "shuffle.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t CHUNK = 32768;  // elements of a lowered chunk: 128 KB, a quarter to half of an L2
constexpr int64_t SCRATCH_LIMIT =
    1 << 22;  // elements; a plan that would take more for its smallest chunk is not possible
constexpr int64_t FAR = int64_t(1) << 40;  // elements: stands for all that is far too much
constexpr int64_t LEAST_WIDTH = 64;        // outputs of a chunk, unless they pass SCRATCH_LIMIT

// Elements behind a buffer of runs: copy_row writes up to W past a run, tiles read whole vectors.
template <class T>
constexpr int64_t SLACK = 8 * W<T>;

// dst[j] = src[j*stride + shift] for j in the range that reads inside, 0 elsewhere in [0, count). The range is found
// once for many rows. Writes, but never reads, up to W beyond `count`.
template <class T>
FASTNN_INLINE void copy_row(T* dst, const T* src, int64_t count, int64_t stride, int64_t shift, const Range& range) {
  for (int64_t j = 0; j < range.begin; j += W<T>) store(dst + j, Vec<T>{});
  src += shift;
  int64_t j = range.begin;
  if (stride == 1) {
    if (range.end - j >= W<T>) {  // the last vector overlaps the one before it
      for (; j + W<T> < range.end; j += W<T>) store(dst + j, load(src + j));
      store(dst + range.end - W<T>, load(src + range.end - W<T>));
    } else {
      store(dst + j, load_n(src + j, range.end - j));
    }
  } else if (stride == 2) {
    for (; j + W<T> <= range.end; j += W<T>) store(dst + j, load_every_second(src + 2 * j));
    if (j < range.end) store(dst + j, load_every_second_n(src + 2 * j, range.end - j));
  } else {
    for (; j < range.end; ++j) dst[j] = src[j * stride];
  }
  for (j = range.end; j < count; j += W<T>) store(dst + j, Vec<T>{});
}
template <class T>
FASTNN_INLINE void zero_row(T* dst, int64_t count) {
  for (int64_t j = 0; j < count; j += W<T>) store(dst + j, Vec<T>{});
}

// dst[j*stride + shift] += src[j] for j in the range.
template <class T>
FASTNN_INLINE void add_row(T* dst, const T* src, int64_t stride, int64_t shift, const Range& range) {
  int64_t j = range.begin;
  dst += shift;
  if (stride == 1)
    for (; j + W<T> <= range.end; j += W<T>) store(dst + j, load(dst + j) + load(src + j));
  for (; j < range.end; ++j) dst[j * stride] += src[j];
}

struct Lowering {
  bool im2col;
  int64_t rows, width;    // outputs of the largest chunk; width < Wo only if rows is 1
  int64_t bands, pieces;  // chunks: bands of rows times pieces of a row
  int64_t height;         // rows of a copy that share a remainder by the stride
  int64_t channel;        // elements of a channel

  // Elements of one channel for chunks of so many outputs.
  static FASTNN_INLINE int64_t size(const Geometry& g, bool im2col, int64_t rows, int64_t width) {
    const int64_t height = ((rows - 1) * g.sh + (g.R - 1) * g.dh) / g.sh + 1;
    const double runs = im2col ? double(g.R) * double(rows) : double(g.sh) * double(height);
    const double elements = runs * double(g.S) * double(width);
    return elements < double(FAR) ? int64_t(elements) : FAR;
  }

  // Chunks that fit into CHUNK if they can, and at least `parts` of them if there are so many rows. g is not empty.
  FASTNN_INLINE Lowering(const Geometry& g, bool im2col_, int64_t channels, int64_t parts) : im2col(im2col_) {
    channels = most(1, channels);
    rows = (g.Ho + parts - 1) / parts;
    while (rows / 2 * g.Wo >= LEAST_WIDTH && size(g, im2col, rows, g.Wo) > CHUNK / channels) rows = (rows + 1) / 2;
    while (rows > 1 && size(g, im2col, rows, g.Wo) > SCRATCH_LIMIT / channels) rows = (rows + 1) / 2;
    bands = (g.Ho + rows - 1) / rows;
    rows = (g.Ho + bands - 1) / bands;
    width = g.Wo;
    if (rows == 1) {
      while (width > LEAST_WIDTH && size(g, im2col, 1, width) > CHUNK / channels) width = (width + 1) / 2;
      while (width > 1 && size(g, im2col, 1, width) > SCRATCH_LIMIT / channels) width = (width + 1) / 2;
    }
    pieces = (g.Wo + width - 1) / width;
    height = ((rows - 1) * g.sh + (g.R - 1) * g.dh) / g.sh + 1;
    channel = size(g, im2col, rows, width);
  }

  FASTNN_INLINE bool possible(int64_t channels) const { return channel <= SCRATCH_LIMIT / most(1, channels); }
  FASTNN_INLINE int64_t chunks() const { return bands * pieces; }

  struct Chunk {
    int64_t row, column, rows, width;
    int64_t position, count;  // in a plane of y
  };
  FASTNN_INLINE Chunk chunk(const Geometry& g, int64_t i) const {
    Chunk c;
    c.row = i / pieces * rows;
    c.column = i % pieces * width;
    c.rows = least(rows, g.Ho - c.row);
    c.width = least(width, g.Wo - c.column);
    c.position = c.row * g.Wo + c.column;
    c.count = c.rows * c.width;
    return c;
  }

  // offsets[t] for t = (c, r, s), as the weights have it. They hold for every chunk: rows are `width` apart in all.
  FASTNN_INLINE void offsets(const Geometry& g, int64_t channels, int64_t* to) const {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t r = 0; r < g.R; ++r)
        for (int64_t s = 0; s < g.S; ++s) {
          const int64_t copy = im2col ? (r * g.S + s) * rows : (s * g.sh + r * g.dh % g.sh) * height + r * g.dh / g.sh;
          *to++ = c * channel + copy * width;
        }
  }

  // Lowers `channels` planes of x, one after the other. Written in the order of memory, because a row runs over into
  // the next.
  template <class T>
  FASTNN_INLINE void lower(const Geometry& g, const Chunk& k, const T* x, int64_t channels, T* to) const {
    const int64_t left = k.column * g.sw - g.pl, top = k.row * g.sh - g.pt;
    const int64_t used = ((k.rows - 1) * g.sh + (g.R - 1) * g.dh) / g.sh + 1;
    // The rows h, h + sh, ... of a plane, shifted for tap s.
    const auto copy = [&](T* dst, const T* plane, int64_t h, int64_t count, int64_t s) __attribute__((always_inline)) {
      const int64_t shift = left + s * g.dw;
      const Range range = inside(k.width, g.sw, shift, g.W);
      for (int64_t i = 0; i < count; ++i, h += g.sh, dst += width)
        if (h >= 0 && h < g.H && range.begin < range.end)
          copy_row(dst, plane + h * g.W, k.width, g.sw, shift, range);
        else
          zero_row(dst, k.width);
    };
    for (int64_t c = 0; c < channels; ++c, x += g.H * g.W) {
      T* dst = to + c * channel;
      if (im2col) {
        for (int64_t r = 0; r < g.R; ++r)
          for (int64_t s = 0; s < g.S; ++s, dst += rows * width) copy(dst, x, top + r * g.dh, k.rows, s);
        continue;
      }
      for (int64_t s = 0; s < g.S; ++s)
        for (int64_t rest = 0; rest < g.sh; ++rest, dst += height * width) {
          bool read = false;
          for (int64_t r = 0; r < g.R; ++r) read = read || r * g.dh % g.sh == rest;
          if (read) copy(dst, x, top + rest, used, s);
        }
    }
  }

  // The transpose of lower for im2col: adds the chunk's patches into `channels` planes of dx.
  template <class T>
  FASTNN_INLINE void raise(const Geometry& g, const Chunk& k, const T* from, int64_t ld, int64_t channels,
                           T* dx) const {
    const int64_t left = k.column * g.sw - g.pl, top = k.row * g.sh - g.pt;
    for (int64_t c = 0; c < channels; ++c, dx += g.H * g.W)
      for (int64_t r = 0; r < g.R; ++r)
        for (int64_t s = 0; s < g.S; ++s, from += ld) {
          const Range range = inside(k.width, g.sw, left + s * g.dw, g.W);
          for (int64_t i = 0; i < k.rows; ++i) {
            const int64_t h = top + i * g.sh + r * g.dh;
            if (h >= 0 && h < g.H) add_row(dx + h * g.W, from + i * k.width, g.sw, left + s * g.dw, range);
          }
        }
  }
};

}  // namespace FASTNN_ISA
}  // namespace fastnn
