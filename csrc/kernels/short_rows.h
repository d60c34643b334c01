// SPDX-License-Identifier: Apache-2.0
// Rows too short to fill vectors of their own (ten classes) are taken a vector's width at a time and turned:
// lane i is row i, and what is reduced along a row is an ordinary sum of vectors. Nothing is horizontal, no
// lane idles, and a row's bits depend on its length alone.
#pragma once

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

// Longer rows fill their vectors well enough. A turned matrix of 32 columns is 1 or 2 KB of the stack.
constexpr int64 kShortCols = 32;

// One vector per column of `count` rows <= width, lane i = row i; whole tiles, so some past cols.
template <class real>
struct ShortRows {
  using V = Vec<real>;
  static constexpr int64 width = V::width;
  V column[(kShortCols + width - 1) / width * width];

  // Whether whole vectors for every row end within `room` elements from the first row on.
  static HOTLOOP_INLINE bool fits(int64 cols, int64 room) {
    return (width - 1) * cols + ceil_div(cols, width) * width <= room;
  }

  // Rows of x (count, cols). Vectors run into the next row, but not past x[room]: room >= count * cols.
  HOTLOOP_INLINE void load(const real* x, int64 count, int64 cols, int64 room) {
    const bool whole = fits(cols, room);
    for (int64 c = 0; c < cols; c += width) {
      V tile[width];
      if (whole) {
        for (int64 i = 0; i < width; ++i) tile[i] = V::load(x + i * cols + c);
      } else {
        for (int64 i = 0; i < width; ++i) {
          const int64 at = (i < count ? i : 0) * cols + c;  // the lanes past count hold some row
          tile[i] = V::load_n(x + at, room - at < width ? room - at : width);
        }
      }
      transpose(tile);
      for (int64 j = 0; j < width; ++j) column[c + j] = tile[j];
    }
  }

  // Rows of y (count, cols). What the last tile's vectors put into the next row is written over by that
  // row's own, which come later: so y[count * cols] up to y[room] must be still to write.
  HOTLOOP_INLINE void store(real* y, int64 count, int64 cols, int64 room) const {
    const bool whole = fits(cols, room);
    for (int64 c = (cols - 1) / width * width; c >= 0; c -= width) {
      V tile[width];
      for (int64 j = 0; j < width; ++j) tile[j] = column[c + j];
      transpose(tile);
      if (whole) {
        for (int64 i = 0; i < width; ++i) tile[i].store(y + i * cols + c);
      } else {
        for (int64 i = 0; i < width; ++i) {
          const int64 left = i < count ? room - i * cols - c : 0;
          if (left >= width) {
            tile[i].store(y + i * cols + c);
          } else if (left > 0) {
            tile[i].store_n(y + i * cols + c, left);
          }
        }
      }
    }
  }

  // The largest of each row that is not NaN; -inf if there is none.
  HOTLOOP_INLINE V largest(int64 cols) const {
    V best(-static_cast<real>(__builtin_inf()));
    for (int64 c = 0; c < cols; ++c) best = max(column[c], best);
    return best;
  }
};

// total = sum over c < cols of body(c): even and odd columns apart, for half the rounding.
template <class real, class Body>
HOTLOOP_INLINE Vec<real> sum_short(int64 cols, Body&& body) {
  Vec<real> even = Vec<real>::zero();
  Vec<real> odd = Vec<real>::zero();
  int64 c = 0;
  for (; c + 2 <= cols; c += 2) {
    even = even + body(c);
    odd = odd + body(c + 1);
  }
  if (c < cols) even = even + body(c);
  return even + odd;
}

}  // namespace hotloop::HOTLOOP_ISA
