// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_order.h"

#include <algorithm>

namespace hotloop {
namespace {

bool meet(const Accesses& a, const Accesses& b) {
  for (const Access& x : a)
    for (const Access& y : b)
      if ((x.writes || y.writes) && x.region == y.region && x.begin < y.end && y.begin < x.end) return true;
  return false;
}

}  // namespace

Access access_of(const Plan& plan, int buffer, int64 offset, int64 rows, bool writes) {
  const Buffer& b = plan.buffers[static_cast<std::size_t>(buffer)];
  const std::size_t each = dtype_bytes(b.dtype, plan.real);
  return {static_cast<int>(b.space), b.offset + static_cast<std::size_t>(offset) * each,
          b.offset + static_cast<std::size_t>(b.size.at(rows)) * each, writes};
}

bool reads_step(const PlanStep& step) {
  if (step.kernel == Kernel::k_optimizer_begin || step.kernel == Kernel::k_accumulate_begin) return true;
  const auto fields = kernel_info(step.kernel).fields;
  for (std::size_t i = 0; i < fields.size(); ++i)
    if (fields[i].name == "dropout" && step.fields[i].integer >= 0) return true;
  return false;
}

void add_accesses(const Plan& plan, int64 number, int64 rows, Accesses& to) {
  const PlanStep& step = plan.steps[static_cast<std::size_t>(number)];
  if (reads_step(step)) to.push_back({kStepRegion, 0, 1, false});
  const auto fields = kernel_info(step.kernel).fields;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const FieldValue& value = step.fields[i];
    if (is_operand(fields[i].kind) && value.buffer >= 0)
      to.push_back(access_of(plan, value.buffer, value.offset, rows, is_written(fields[i].kind)));
  }
}

// From the latest launch back: what is met first is waited for, and what that one waits for need not be. The
// search ends where all earlier launches are known to come before.
std::vector<std::size_t> LaunchOrder::add(Accesses accesses) {
  const std::size_t n = launches_.size();
  std::vector<bool> after(n, false);
  std::vector<std::size_t> direct;
  std::size_t known = 0;  // of the launches that were not looked at yet, how many are waited for
  for (std::size_t left = n; left > known; --left) {
    const std::size_t i = left - 1;
    if (after[i]) {
      --known;
      continue;
    }
    if (!meet(accesses, launches_[i].accesses)) continue;
    direct.push_back(i);
    after[i] = true;
    const std::vector<bool>& implied = launches_[i].after;
    for (std::size_t j = 0; j < i; ++j) {
      if (!implied[j] || after[j]) continue;
      after[j] = true;
      ++known;
    }
  }
  launches_.push_back({std::move(accesses), std::move(after)});
  std::reverse(direct.begin(), direct.end());
  return direct;
}

}  // namespace hotloop
