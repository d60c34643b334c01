// SPDX-License-Identifier: Apache-2.0
// Snapshots and the check for divergence: both read or write each byte once, and the epoch loop needs both
// after every epoch.
#include "runtime/memory.h"

#include <algorithm>
#include <cstring>

#include "core/finite.h"

namespace hotloop {
namespace {

// What training changes, and a snapshot keeps.
constexpr Space kTrained[] = {Space::kParameter, Space::kMoment1, Space::kMoment2, Space::kState,
                              Space::kCounter};

}  // namespace

std::size_t Memory::space_bytes(Space which) const {
  switch (which) {
    case Space::kParameter:
      return parameters_.bytes();
    case Space::kGradient:
      return gradients_.bytes();
    case Space::kAccumulated:
      return accumulated_ ? accumulated_->bytes() : 0;
    case Space::kEma:
      return ema_ ? ema_->average.bytes() : 0;
    case Space::kEmaCounter:
      return ema_ ? sizeof ema_->counter : 0;
    case Space::kMoment1:
      return moment1_.bytes();
    case Space::kMoment2:
      return moment2_.bytes();
    case Space::kState:
      return state_.bytes();
    case Space::kCounter:
      return counters_.bytes();
    default:
      return 0;
  }
}

void Memory::attach(std::shared_ptr<const Device> device) {
  if (mirror_) return check(mirror_->is_on(*device), "[memory] it is on another device already");
  check(real_ == Real::kFloat32, "[memory] devices compute in float32 only");
  auto mirror = std::make_unique<DeviceMirror>(std::move(device), loans_);
  for (int i = 0; i < kNumSpaces; ++i) {
    const Space which = static_cast<Space>(i);
    mirror->add(which, space(which), space_bytes(which));
  }
  mirror_ = std::move(mirror);
}

void Memory::reserve(bool accumulated, bool ema) {
  accumulated &= !sizes_.accumulated;
  ema &= !sizes_.ema;
  const auto add = [this](Space which) {
    if (mirror_) mirror_->add(which, space(which), space_bytes(which));
  };
  try {
    if (accumulated) accumulated_ = std::make_unique<AlignedBlock>(bytes(sizes_.parameters));
    if (accumulated) add(Space::kAccumulated);
    if (ema) ema_ = std::make_unique<Ema>(bytes(sizes_.parameters));
    if (ema) add(Space::kEma), add(Space::kEmaCounter);
  } catch (...) {
    if (mirror_) {
      if (accumulated) mirror_->remove(Space::kAccumulated);
      if (ema) mirror_->remove(Space::kEma), mirror_->remove(Space::kEmaCounter);
    }
    if (accumulated) accumulated_.reset();
    if (ema) ema_.reset();
    throw;
  }
  sizes_.accumulated |= accumulated;
  sizes_.ema |= ema;
}

void Memory::copy_space(Space which, const Memory& other) {
  DeviceMirror* from = other.mirror_.get();
  if (mirror_ && from && mirror_->is_on(*from->device()) && from->is_current(which))
    return mirror_->copy_from(which, *from);
  other.fetch(which);
  if (mirror_) mirror_->overwrite(which);
  if (space_bytes(which) > 0) std::memcpy(space(which), other.space(which), space_bytes(which));
}

void Memory::copy_from(const Memory& other) {
  check(real_ == other.real_ && sizes_.parameters == other.sizes_.parameters &&
            sizes_.state == other.sizes_.state && sizes_.counters == other.sizes_.counters &&
            sizes_.moments == other.sizes_.moments,
        "[memory] copied from a memory of other sizes");
  if (!mirror_ && other.mirror_ && other.mirror_->is_ahead()) try {
      attach(other.mirror_->device());
    } catch (const DeviceFault& fault) {
      if (fault.status() != kDeviceMemory) throw;  // no room there: the copy lies on the host
    }
  for (const Space which : kTrained) copy_space(which, other);
  parameters_changed();
}

void Memory::begin_ema() {
  check(ema_ != nullptr, "[memory] no room for an average of the parameters");
  if (mirror_) mirror_->overwrite(Space::kEmaCounter);
  ema_->counter = 0;
  if (mirror_ && mirror_->is_current(Space::kParameter)) return mirror_->copy(Space::kEma, Space::kParameter);
  if (mirror_) mirror_->overwrite(Space::kEma);
  if (parameters_.bytes() > 0) std::memcpy(ema_->average.data(), parameters_.data(), parameters_.bytes());
}

void Memory::exchange_ema() {
  check(ema_ != nullptr, "[memory] no room for an average of the parameters");
  if (mirror_ && (mirror_->is_current(Space::kParameter) || mirror_->is_current(Space::kEma))) {
    mirror_->exchange(Space::kParameter, Space::kEma);
    return parameters_changed();
  }
  for (const Space which : {Space::kParameter, Space::kEma})
    if (mirror_) mirror_->fetch(which), mirror_->overwrite(which);
  std::swap_ranges(parameters_.data(), parameters_.data() + parameters_.bytes(), ema_->average.data());
  parameters_changed();
}

bool Memory::is_finite() const {
  const auto finite = [this](Space which, const AlignedBlock& block, int64 n) {
    if (mirror_ && mirror_->is_current(which)) return mirror_->is_finite(which, n);
    fetch(which);
    return all_finite(block.data(), n, real_bytes(real_));
  };
  return finite(Space::kParameter, parameters_, sizes_.parameters) &&
         finite(Space::kState, state_, sizes_.state);
}

}  // namespace hotloop
