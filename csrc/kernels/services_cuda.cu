// SPDX-License-Identifier: Apache-2.0
// What the executor launches between the steps of plans: on to the next batch, its rows to the inputs, and a
// few questions about memory. See cuda/api.h.
#include "core/shuffle.h"
#include "kernels/kernel_cuda.h"
#include "kernels/launchers.h"

namespace hotloop::cuda {
namespace {

HL_DEVICE bool is_finite(double v) { return v - v == 0.0; }

HL_KERNEL advance_step(DeviceStep* s) {
  const int64 place = s->place + 1, batch = place - s->before;
  // The totals only ever grow, so that once they are not finite they stay so.
  if (batch > 0 && s->totals != nullptr && s->diverged_at < 0 &&
      !(is_finite(s->totals[0]) && is_finite(s->totals[1])))
    s->diverged_at = place - 1;
  s->place = place;
  s->step = s->first_step + static_cast<std::uint64_t>(place);
  s->groups = s->params + (s->n_params == 1 ? 0 : place) * s->params_width;
  s->dropout = s->groups + s->groups_width;
  s->first = place % s->accumulate == 0;
  s->last = (place + 1) % s->accumulate == 0 || (s->more == 0 && batch + 1 == s->batches);
}

// Elements first, first + step, ... of a row.
template <class From, class To>
HL_DEVICE void copy_row(const DeviceFeed& feed, int64 from, int64 to, int64 first, int64 step) {
  const From* x = static_cast<const From*>(feed.data) + from * feed.width;
  To* y = static_cast<To*>(feed.out) + to * feed.width;
  for (int64 j = first; j < feed.width; j += step) y[j] = static_cast<To>(x[j]);
}

template <class To>
HL_DEVICE void copy_row_to(const DeviceFeed& feed, int64 from, int64 to, int64 first, int64 step) {
  switch (feed.type) {
    case FeedType::kUint8:
      return copy_row<std::uint8_t, To>(feed, from, to, first, step);
    case FeedType::kInt32:
      return copy_row<std::int32_t, To>(feed, from, to, first, step);
    case FeedType::kInt64:
      return copy_row<std::int64_t, To>(feed, from, to, first, step);
    case FeedType::kFloat32:
      return copy_row<float, To>(feed, from, to, first, step);
    case FeedType::kFloat64:
      return copy_row<double, To>(feed, from, to, first, step);
  }
}

// Elements of a row that one warp copies: eight loads a lane, on their way together. A batch of 128 rows of
// 784 then keeps 384 warps busy; its floor is 0.8 MB, a quarter of a microsecond of an H100's memory, so that
// latency and launch are all of it.
constexpr int64 kElementsPerWarp = 256;

// `parts` warps take a row: its number is worked out once in each, its elements are read side by side.
HL_KERNEL gather_rows(const DeviceStep* s, int64 rows, int64 parts) {
  const int64 warps = int64{gridDim.x} * (blockDim.x / kWarp);
  const int64 begin = (s->place - s->before) * s->batch_size;
  const Permutation order(s->network);
  for (int64 w = int64{blockIdx.x} * (blockDim.x / kWarp) + warp_id(); w < rows * parts; w += warps) {
    const int64 i = w / parts, first = (w % parts) * kWarp + lane_id(), at = begin + i;
    const int64 row =
        (s->shuffle != 0 ? static_cast<int64>(order(static_cast<std::uint64_t>(at))) : at) - s->feeds.first;
    for (int f = 0; f < s->feeds.n; ++f) {
      const DeviceFeed& feed = s->feeds.at[f];
      const int64 from = feed.numbers != nullptr ? feed.numbers[row] : row;
      if (feed.to_index != 0)
        copy_row_to<index>(feed, from, i, first, parts * kWarp);
      else
        copy_row_to<float>(feed, from, i, first, parts * kWarp);
    }
  }
}

HL_KERNEL exchange_bytes(unsigned char* a, unsigned char* b, int64 n) {
  for (int64 i = int64{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64{gridDim.x} * blockDim.x) {
    const unsigned char kept = a[i];
    a[i] = b[i];
    b[i] = kept;
  }
}

HL_KERNEL not_finite(const float* x, int64 n, int* found) {
  bool bad = false;
  for (int64 i = int64{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64{gridDim.x} * blockDim.x)
    bad |= !(x[i] - x[i] == 0.0f);
  if (sync_or(bad) && threadIdx.x == 0) atomic_add(found, 1);
}

// One block reads all: 64 KB are on their way at a time, and labels are looked at once per fit.
constexpr int kSearchThreads = 1024;

template <class T>
HL_KERNEL outside(const T* x, int64 n, double low, double high, std::int64_t* first) {
  HL_SHARED(std::int64_t, least, [kSearchThreads]);
  std::int64_t mine = n;
  for (int64 i = threadIdx.x; i < n && mine == n; i += kSearchThreads) {
    const double v = static_cast<double>(x[i]);
    if (!(v >= low && v <= high)) mine = i;
  }
  least[threadIdx.x] = mine;
  for (unsigned half = kSearchThreads / 2; half > 0; half /= 2) {
    sync();
    if (threadIdx.x < half && least[threadIdx.x + half] < least[threadIdx.x])
      least[threadIdx.x] = least[threadIdx.x + half];
  }
  if (threadIdx.x == 0 && least[0] < n && least[0] < *first) *first = least[0];
}

template <class T>
void launch_outside(const void* x, int64 n, double low, double high, std::int64_t* first,
                    DeviceStream stream) {
  launch(static_cast<Stream>(stream), outside<T>, 1, kSearchThreads, 0, static_cast<const T*>(x), n, low,
         high, first);
}

}  // namespace

void find_outside(const void* x, int type, std::int64_t n, double low, double high, std::int64_t* first,
                  DeviceStream stream) {
  if (n == 0) return;
  switch (static_cast<FeedType>(type)) {
    case FeedType::kUint8:
      return launch_outside<std::uint8_t>(x, n, low, high, first, stream);
    case FeedType::kInt32:
      return launch_outside<std::int32_t>(x, n, low, high, first, stream);
    case FeedType::kInt64:
      return launch_outside<std::int64_t>(x, n, low, high, first, stream);
    case FeedType::kFloat32:
      return launch_outside<float>(x, n, low, high, first, stream);
    case FeedType::kFloat64:
      return launch_outside<double>(x, n, low, high, first, stream);
  }
}

void advance(DeviceStep* step, DeviceStream stream) {
  launch(static_cast<Stream>(stream), advance_step, 1, 1, 0, step);
}

void gather(const DeviceStep* step, std::int64_t rows, std::int64_t row_elements, DeviceStream stream) {
  if (rows == 0) return;
  const int64 parts = row_elements > kElementsPerWarp ? ceil_div(row_elements, kElementsPerWarp) : 1;
  const int64 blocks = ceil_div(rows * parts, kThreads / kWarp);
  launch(static_cast<Stream>(stream), gather_rows, static_cast<unsigned>(blocks < 1024 ? blocks : 1024),
         kThreads, 0, step, rows, parts);
}

void exchange(void* a, void* b, std::size_t bytes, DeviceStream stream) {
  if (bytes == 0) return;
  const int64 n = static_cast<int64>(bytes), blocks = ceil_div(n, kThreads);
  launch(static_cast<Stream>(stream), exchange_bytes, static_cast<unsigned>(blocks < 1024 ? blocks : 1024),
         kThreads, 0, static_cast<unsigned char*>(a), static_cast<unsigned char*>(b), n);
}

void find_not_finite(const float* x, std::int64_t n, int* found, DeviceStream stream) {
  if (n == 0) return;
  const int64 blocks = ceil_div(n, kThreads);
  launch(static_cast<Stream>(stream), not_finite, static_cast<unsigned>(blocks < 1024 ? blocks : 1024),
         kThreads, 0, x, n, found);
}

}  // namespace hotloop::cuda
