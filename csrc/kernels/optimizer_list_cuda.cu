// SPDX-License-Identifier: Apache-2.0
// One step of an optimiser over a list of tensors that lie anywhere: what ops::adamw_ and its like are given.
// One launch takes up to a hundred of them; where they are, and the rule, come with the launch as its
// parameters, so that nothing is copied to the device first. A block takes a run of one tensor, which it
// finds by bisection. 28 bytes a parameter for Adam, as over one flat buffer; a hundred tensors of 1024 are
// one block each, and cost what one launch costs.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/launchers.h"
#include "kernels/optimizer_cuda.h"

namespace hotloop::cuda {
namespace {

enum KernelId : int {
#define HOTLOOP_KERNEL(name, Args) id_##name,
#include "kernels/kernels.def"
#undef HOTLOOP_KERNEL
};

constexpr int kListed = 100;                     // 40 bytes each for Adam
constexpr int kMostParameters = 4096;            // bytes of a launch, on every device
constexpr int kRunStep = 4 * kThreads;           // elements that a block's threads take at once
constexpr int64 kMostElements = int64{1} << 30;  // of an entry: a larger tensor is several

template <class Optimizer, int K>
struct UpdateTable {
  typename Optimizer::Rule rule;
  Optimizer optimizer;
  int tensors;
  int run;  // elements of a block
  int first_block[kListed];
  int size[kListed];
  const float* grad[kListed];
  State<K> state[kListed];
};

template <class Optimizer, int K>
HL_KERNEL HL_BOUNDS(kThreads, 4) update_list(UpdateTable<Optimizer, K> table) {
  const int block = static_cast<int>(blockIdx.x);
  int at = 0, last = table.tensors - 1;  // the last entry that begins at this block or before
  while (at < last) {
    const int middle = (at + last + 1) / 2;
    if (table.first_block[middle] <= block)
      at = middle;
    else
      last = middle - 1;
  }
  const State<K> state = table.state[at];
  const float* const grad = table.grad[at];
  const Update<Optimizer, K> one_step{table.optimizer, table.rule, state, grad};
  const int begin = (block - table.first_block[at]) * table.run, left = table.size[at] - begin;
  const int end = begin + (left < table.run ? left : table.run);
  const int whole = aligned_state(state, grad) ? end - (end - begin) % 4 : begin;
  const auto thread = static_cast<int>(threadIdx.x);
  for (int i = begin + 4 * thread; i < whole; i += kRunStep) one_step.four(i);
  for (int i = whole + thread; i < end; i += kThreads) one_step.one(i);
}

// As many elements a block as keep eight blocks busy on every multiprocessor.
int run_of(int64 elements, const Launch& l) {
  const int64 even = ceil_div(elements, int64{l.traits->multiprocessors} * 8);
  return static_cast<int>(ceil_div(even < 1 ? 1 : even, kRunStep) * kRunStep);
}

template <class Optimizer, int K>
void launch_table(const UpdateTable<Optimizer, K>& whole, unsigned blocks, const Launch& l) {
  static_assert(sizeof whole <= kMostParameters);
  if (blocks > 0) launch(stream_of(l), update_list<Optimizer, K>, blocks, kThreads, 0, whole);
}

// Tensors of one rule, a table at a time.
template <class Args, class Optimizer, int K>
void update_alike(const std::vector<const Args*>& list, const Optimizer& optimizer, const State<K>&,
                  const Launch& l) {
  int64 elements = 0;
  for (const Args* a : list) elements += a->n;
  UpdateTable<Optimizer, K> table{
      optimizer.rule(list.front()->scalars), optimizer, 0, run_of(elements, l), {}, {}, {}, {}};
  unsigned blocks = 0;
  const auto flush = [&] {
    launch_table(table, blocks, l);
    table.tensors = 0;
    blocks = 0;
  };
  const auto add = [&](State<K> state, const float* grad, int64 from, int64 size) {
    if (table.tensors == kListed) flush();
    for (float*& p : state.tensor) p += from;
    const int at = table.tensors++;
    table.state[at] = state;
    table.grad[at] = grad + from;
    table.size[at] = static_cast<int>(size);
    table.first_block[at] = static_cast<int>(blocks);
    blocks += static_cast<unsigned>(ceil_div(size, table.run));
  };
  for (const Args* a : list) {
    with_state(*a, [&]<int L>(const State<L>& state, const Optimizer&) {
      if constexpr (L == K) {
        for (int64 from = 0; from < a->n; from += kMostElements)
          add(state, a->grad, from, std::min(a->n - from, kMostElements));
      }
    });
  }
  flush();
}

// Those of the same scalars are updated together, in their order; those that are to be skipped, not at all.
template <class Args>
void update_each(const void* const* args, std::size_t n, const Launch& l) {
  constexpr std::size_t kBytes = kNumStepScalars * sizeof(double);
  std::vector<const Args*> left, alike, others;
  for (std::size_t i = 0; i < n; ++i) {
    const Args* a = static_cast<const Args*>(args[i]);
    if (a->n > 0 && a->scalars[kSkip] == 0.0) left.push_back(a);
  }
  while (!left.empty()) {
    alike.clear();
    others.clear();
    for (const Args* a : left)
      (std::memcmp(a->scalars, left.front()->scalars, kBytes) == 0 ? alike : others).push_back(a);
    with_state(*alike.front(),
               [&](const auto& state, const auto& optimizer) { update_alike(alike, optimizer, state, l); });
    left.swap(others);
  }
}

}  // namespace

bool update_list_launch(int kernel, const void* const* args, std::size_t n, const Launch& l) {
  switch (kernel) {
    case id_adam:
      update_each<AdamArgs<float>>(args, n, l);
      return true;
    case id_sgd:
      update_each<SgdArgs<float>>(args, n, l);
      return true;
    case id_rmsprop:
      update_each<RmspropArgs<float>>(args, n, l);
      return true;
    default:
      return false;
  }
}

}  // namespace hotloop::cuda
