// SPDX-License-Identifier: Apache-2.0
// Where batches come from: arrays of equal row count, held by the caller, gathered row by row into a plan's
// input buffers and converted on the way (uint8 and float64 to the plan's real, int64 to index). An array may
// be some rows of a larger one, chosen by number: parts of a data set then cost their numbers, not a copy.
#pragma once

#include <vector>

#include "core/shuffle.h"
#include "kernels/isa.h"
#include "runtime/plan.h"

namespace hotloop {

enum class ElementType { kUint8, kInt32, kInt64, kFloat32, kFloat64 };

// rows x row_size elements. Row i is row numbers[i] of the `held` ones that lie at data, or i if it is null.
struct SourceArray {
  const std::byte* data = nullptr;
  ElementType type = ElementType::kFloat32;
  int64 rows = 0, row_size = 0;
  bool on_device = false;  // data is an address there; only a DeviceSource takes it
  const int64* numbers = nullptr;
  int64 held = 0;
};

// Whether all its numbers are those of rows that are there.
bool numbers_fit(const SourceArray& array);

// Whether an array can feed an input of that type: integers to index inputs, numbers to real ones.
bool convertible(ElementType from, DType to);

// Copies batches of rows from all arrays to their inputs. What is copied how is settled once; the rows of a
// batch are numbered once, for all arrays.
class Gather {
 public:
  explicit Gather(const IsaUnit& unit) : unit_(unit) {}

  // `out`: the plan's input, dense, elements of `dtype` in a plan of `real`.
  void add(const SourceArray& array, DType dtype, Real real, std::byte* out);

  // Chooses positions [first, first + count) of an epoch's order, or those rows themselves if it is null.
  void choose(int64 first, int64 count, const Permutation* order);

  // The chosen rows in pieces, which any thread may copy in any order.
  int64 tasks() const { return ceil_div(count_, rows_per_task_); }
  void run(int64 task) const;

 private:
  // Rows of the batch in hand as one way of counting numbers them.
  struct Numbering {
    const int64* numbers;  // of an array's rows; null: as they lie
    const int64* rows;     // those chosen; null: a run from `first_` on
    std::vector<int64> shuffled;
  };
  struct Feed {
    const std::byte* data;
    std::byte* out;
    int64 width;            // elements of a row
    std::size_t bytes;      // of a row in the array
    std::size_t numbering;  // place in numberings_
    void (*copy)(const Feed& feed, const int64* rows, int64 begin, int64 end);
    void (*copy_run)(const Feed& feed, int64 first, int64 begin, int64 end);
  };
  template <class From, class To>
  static Feed feed_of(const SourceArray& array, std::byte* out);
  template <class To>
  static Feed feed_to(const SourceArray& array, std::byte* out);

  std::size_t numbering_of(const int64* numbers);

  const IsaUnit& unit_;
  std::vector<Feed> feeds_;
  std::vector<Numbering> numberings_;  // one for all arrays that share their numbers
  int64 row_elements_ = 0, rows_per_task_ = 1;
  int64 first_ = 0, count_ = 0;
  std::vector<int64> order_;  // of the batch, if it is shuffled
};

}  // namespace hotloop
