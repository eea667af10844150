// The plans `direct` and `im2col`: all three passes as unpacked GEMMs (conv_tile.h) over lowered chunks (conv_lower.h).
// Work is cut into (image, group, chunk of outputs), by shape alone.
#pragma once
#include "conv_lower.h"
#include "conv_tile.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t UNITS = 8;  // pieces of work wanted at least, so that a small batch too keeps several threads busy

FASTNN_INLINE int64_t parts_for(int64_t units) { return units >= UNITS ? 1 : (UNITS + units - 1) / units; }

// y = w * x (+ bias, relu): for each chunk a GEMM with M = Kg, N = the chunk's outputs, K = T.
template <class T>
void forward_lowered(const Geometry& g, bool im2col, const T* x, const T* w, const T* bias, bool relu, T* y) {
  const Lowering lowering(g, im2col, g.Cg, parts_for(g.N * g.groups));
  Scratch<int64_t> offsets(g.T);
  lowering.offsets(g, g.Cg, offsets.get());
  Scratch<T> packed(g.K * g.T);
  for (int64_t group = 0; group < g.groups; ++group) {
    const T* from = w + group * g.Kg * g.T;
    pack_rows(g.Kg, g.T, packed.get() + group * g.Kg * g.T, [&](int64_t m, int64_t t) { return from[m * g.T + t]; });
  }
  const int64_t chunks = lowering.chunks();
  parallel_for(g.N * g.groups * chunks, 1, [&](int64_t begin, int64_t end) {
    Scratch<T> patches(g.Cg * lowering.channel + SLACK<T>);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / chunks / g.groups, group = unit / chunks % g.groups;
      const auto chunk = lowering.chunk(g, unit % chunks);
      lowering.lower(g, chunk, x + (image * g.C + group * g.Cg) * g.H * g.W, g.Cg, patches.get());
      multiply(packed.get() + group * g.Kg * g.T, g.Kg, g.T, patches.get(), offsets.get(),
               y + (image * g.K + group * g.Kg) * g.P + chunk.position, g.P, chunk.count,
               Epilogue{bias ? bias + group * g.Kg : nullptr, relu});
    }
  });
}

// to = the partial sums [part][i], added in order; with one part, which is `to` itself, nothing is left to do.
template <class T>
void add_parts(const T* sums, int64_t parts, int64_t total, T* to) {
  if (parts > 1)
    parallel_for(total, 32768, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        T sum = sums[i];
        for (int64_t part = 1; part < parts; ++part) sum += sums[part * total + i];
        to[i] = sum;
      }
    });
}

// dw = dy * x: for each image and chunk a GEMM with M = Kg, N = T, K = the chunk's outputs. Images are dealt to a fixed
// number of partial sums, channels to blocks whose chunk fits the scratch; the partial sums are added in order.
template <class T>
void backward_weight_lowered(const Geometry& g, bool im2col, const T* dy, const T* x, T* dw) {
  const int64_t area = g.R * g.S, total = g.K * g.T;
  const Lowering one(g, im2col, 1, 1);
  const int64_t block = most(1, least(g.Cg, CHUNK / one.channel)), blocks = (g.Cg + block - 1) / block;
  const Lowering lowering(g, im2col, block, parts_for(g.N * g.groups * blocks));
  const int64_t chunks = lowering.chunks(), stride = block * lowering.channel;
  // Images that a tile sums in its registers before it adds up its lanes: some 1000 positions are worth that.
  const int64_t worth = least(divide_up(1024, g.P), divide_up(g.N, UNITS));
  const int64_t together = chunks > 1 ? 1 : most(1, least(worth, 2 * CHUNK / stride));
  const int64_t units = (g.N + together - 1) / together * chunks;
  const int64_t parts = least(units, most(1, least(UNITS, (int64_t(1) << 21) / total)));
  Scratch<int64_t> offsets(block * area);
  lowering.offsets(g, block, offsets.get());
  Scratch<T> sums(parts > 1 ? parts * total : 0);
  parallel_for(parts * g.groups * blocks, 1, [&](int64_t begin, int64_t end) {
    Scratch<T> patches(together * stride + SLACK<T>);
    for (int64_t job = begin; job < end; ++job) {
      const int64_t part = job / blocks / g.groups, group = job / blocks % g.groups, c = job % blocks * block;
      const int64_t channels = least(block, g.Cg - c);
      T* to = (parts > 1 ? sums.get() + part * total : dw) + group * g.Kg * g.T + c * area;
      for (int64_t k = 0; k < g.Kg; ++k)
        for (int64_t t = 0; t < channels * area; ++t) to[k * g.T + t] = 0;
      for (int64_t unit = part * units / parts; unit < (part + 1) * units / parts; ++unit) {
        const int64_t image = unit / chunks * together, images = least(together, g.N - image);
        const auto chunk = lowering.chunk(g, unit % chunks);
        for (int64_t i = 0; i < images; ++i)
          lowering.lower(g, chunk, x + ((image + i) * g.C + group * g.Cg + c) * g.H * g.W, channels,
                         patches.get() + i * stride);
        const DotOperands<T> operands{dy + (image * g.K + group * g.Kg) * g.P + chunk.position,
                                      g.P,
                                      g.K * g.P,
                                      patches.get(),
                                      stride,
                                      images,
                                      chunk.count};
        dots(operands, g.Kg, offsets.get(), channels * area, to, g.T);
      }
    }
  });
  add_parts(sums.get(), parts, total, dw);
}

// dx, stride 1, the transpose of lowering by columns: with dy padded above and below, a GEMM with M = Cg * S,
// K = Kg * R gives for each (c,s) the rows of dx before they are shifted by s; those are then added up.
struct Raising {
  int64_t rows, bands, height;  // rows of dx in a chunk; rows of dy that they need
  int64_t source, product;      // elements of scratch
  FASTNN_INLINE explicit Raising(const Geometry& g) {
    const int64_t parts = parts_for(g.N * g.groups);
    rows = (g.H + parts - 1) / parts;
    const int64_t row = (g.Kg + g.Cg * g.S) * g.Wo, beyond = (g.R - 1) * g.dh;
    while (rows / 2 * g.Wo >= LEAST_WIDTH && row * (rows + beyond) > CHUNK) rows = (rows + 1) / 2;
    while (rows > 1 && row * (rows + beyond) > SCRATCH_LIMIT) rows = (rows + 1) / 2;
    bands = (g.H + rows - 1) / rows;
    rows = (g.H + bands - 1) / bands;
    height = rows + (g.R - 1) * g.dh;
    source = g.Kg * height * g.Wo;
    product = g.Cg * g.S * rows * g.Wo;
  }
  static FASTNN_INLINE bool possible(const Geometry& g) {
    const double row = (double(g.Kg) + double(g.Cg * g.S)) * double(g.Wo);
    return unit_stride(g) && row * (1 + double(g.R - 1) * double(g.dh)) < double(SCRATCH_LIMIT);
  }
};

template <class T>
void backward_input_direct(const Geometry& g, const T* dy, const T* w, T* dx) {
  const Raising raising(g);
  const int64_t taps = g.Kg * g.R, m = g.Cg * g.S, area = g.R * g.S;
  Scratch<int64_t> offsets(taps);
  for (int64_t k = 0; k < g.Kg; ++k)
    for (int64_t r = 0; r < g.R; ++r) offsets[k * g.R + r] = (k * raising.height + (g.R - 1 - r) * g.dh) * g.Wo;
  Scratch<T> packed(g.groups * m * taps);
  for (int64_t group = 0; group < g.groups; ++group) {
    const T* from = w + group * g.Kg * g.T;
    pack_rows(m, taps, packed.get() + group * m * taps, [&](int64_t row, int64_t t) {
      return from[t / g.R * g.T + row / g.S * area + t % g.R * g.S + row % g.S];
    });
  }
  parallel_for(g.N * g.groups * raising.bands, 1, [&](int64_t begin, int64_t end) {
    Scratch<T> source(raising.source + SLACK<T>), product(raising.product);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / raising.bands / g.groups, group = unit / raising.bands % g.groups;
      const int64_t h = unit % raising.bands * raising.rows, rows = least(raising.rows, g.H - h);
      const int64_t top = h + g.pt - (g.R - 1) * g.dh, columns = rows * g.Wo;
      // Rows [top, top + height) of dy, zero where there are none: one run, as rows lie one after the other.
      const int64_t height = rows + (g.R - 1) * g.dh;
      for (int64_t k = 0; k < g.Kg; ++k) {
        const T* plane = dy + (image * g.K + group * g.Kg + k) * g.P;
        T* to = source.get() + k * raising.height * g.Wo;
        copy_row(to, plane, height * g.Wo, 1, top * g.Wo, inside(height * g.Wo, 1, top * g.Wo, g.P));
      }
      multiply(packed.get() + group * m * taps, m, taps, source.get(), offsets.get(), product.get(), columns, columns,
               Epilogue{nullptr, false});
      for (int64_t c = 0; c < g.Cg; ++c) {
        T* to = dx + ((image * g.C + group * g.Cg + c) * g.H + h) * g.W;
        memset(to, 0, static_cast<size_t>(rows * g.W) * sizeof(T));
        for (int64_t s = 0; s < g.S; ++s) {
          const int64_t shift = s * g.dw - g.pl;
          const Range range = inside(g.Wo, 1, shift, g.W);
          const T* from_row = product.get() + (c * g.S + s) * columns;
          for (int64_t i = 0; i < rows; ++i) add_row(to + i * g.W, from_row + i * g.Wo, 1, shift, range);
        }
      }
    }
  });
}

// dx through im2col's matrix: for each chunk a GEMM with M = T, K = Kg, whose columns are added into dx. Cut by image
// and by block of channels, so that two chunks never add into one place. The blocks follow the size of the batch, the
// bands must not: they are the order of additions, and an image's gradient may not depend on the images beside it.
template <class T>
void backward_input_im2col(const Geometry& g, const T* dy, const T* w, T* dx) {
  const int64_t area = g.R * g.S;
  const int64_t parts = least(g.Cg, parts_for(g.N * g.groups));
  const int64_t block = (g.Cg + parts - 1) / parts, blocks = (g.Cg + block - 1) / block;
  // A chunk holds Cg * area rows of the product and Kg rows of dy: both count.
  const Lowering lowering(g, true, most(g.Cg, divide_up(g.Kg, area)), 1);
  const int64_t largest = lowering.rows * lowering.width;
  Scratch<int64_t> offsets(g.Kg);
  for (int64_t k = 0; k < g.Kg; ++k) offsets[k] = k * largest;
  Scratch<T> packed(g.K * g.T);
  for (int64_t group = 0; group < g.groups; ++group)
    for (int64_t c = 0; c < g.Cg; c += block) {
      const T* from = w + group * g.Kg * g.T + c * area;
      pack_rows(least(block, g.Cg - c) * area, g.Kg, packed.get() + (group * g.T + c * area) * g.Kg,
                [&](int64_t m, int64_t k) { return from[k * g.T + m]; });
    }
  parallel_for(g.N * g.groups * blocks, 1, [&](int64_t begin, int64_t end) {
    Scratch<T> source(g.Kg * largest + SLACK<T>), product(block * area * largest);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / blocks / g.groups, group = unit / blocks % g.groups, c = unit % blocks * block;
      const int64_t channels = least(block, g.Cg - c);
      T* to = dx + (image * g.C + group * g.Cg + c) * g.H * g.W;
      memset(to, 0, static_cast<size_t>(channels * g.H * g.W) * sizeof(T));
      for (int64_t i = 0; i < lowering.chunks(); ++i) {
        const auto chunk = lowering.chunk(g, i);
        for (int64_t k = 0; k < g.Kg; ++k)
          copy_row(source.get() + k * largest, dy + (image * g.K + group * g.Kg + k) * g.P + chunk.position,
                   chunk.count, 1, 0, Range{0, chunk.count});
        multiply(packed.get() + (group * g.T + c * area) * g.Kg, channels * area, g.Kg, source.get(), offsets.get(),
                 product.get(), chunk.count, chunk.count, Epilogue{nullptr, false});
        lowering.raise(g, chunk, product.get(), chunk.count, channels, to);
      }
    }
  });
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
