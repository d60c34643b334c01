// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_mirror.h"

namespace hotloop {

using Guard = std::lock_guard<std::mutex>;

DeviceMirror::DeviceMirror(std::shared_ptr<const Device> device, const Loans& loans)
    : device_(std::move(device)), loans_(loans), queue_(device_), flag_(device_, sizeof(int)) {}

void DeviceMirror::add(Space space, std::byte* host, std::size_t bytes) {
  const Guard guard(mutex_);
  require_idle();
  if (bytes == 0) return;
  part(space).block = std::make_unique<DeviceBlock>(device_, bytes);
  part(space).host = host;
}

void DeviceMirror::remove(Space space) {
  const Guard guard(mutex_);
  part(space) = Part();
}

bool DeviceMirror::is_on(const Device& device) const {
  return &device.api() == &device_->api() && device.traits().number == device_->traits().number;
}

std::size_t DeviceMirror::n_bytes() const {
  std::size_t n = flag_.bytes();
  for (const Part& p : parts_) n += p.block ? p.block->bytes() : 0;
  return n;
}

void DeviceMirror::require_idle() const {
  if (running_)
    throw std::runtime_error("[memory] a run on the device uses it; wait for its end or use a copy");
}

void DeviceMirror::push(Space space) {
  Part& p = part(space);
  if (!p.block || (p.newer != Newer::kHost && !is_lent(space))) return;
  queue_.copy(p.block->data(), p.host, p.block->bytes(), CopyKind::kToDevice);
  queue_.wait();
  p.newer = Newer::kSame;
}

void DeviceMirror::take(Space space) {
  Part& p = part(space);
  if (!p.block || p.newer != Newer::kDevice) return;
  queue_.copy(p.host, p.block->data(), p.block->bytes(), CopyKind::kToHost);
  queue_.wait();
  p.newer = Newer::kSame;
}

void DeviceMirror::written_here(Space space) {
  part(space).newer = Newer::kDevice;
  if (is_lent(space)) take(space);
}

void DeviceMirror::fetch(Space space) {
  const Guard guard(mutex_);
  if (running_ || part(space).newer != Newer::kDevice) return;
  device_->use();
  take(space);
}

void DeviceMirror::host_changed(Space space) {
  const Guard guard(mutex_);
  // What a view wrote while a run was changing the same bytes is lost, as it is when both are on the host.
  if (part(space).newer != Newer::kDevice) part(space).newer = Newer::kHost;
}

void DeviceMirror::overwrite(Space space) {
  const Guard guard(mutex_);
  require_idle();
  part(space).newer = Newer::kHost;
}

void DeviceMirror::to_host() {
  const Guard guard(mutex_);
  require_idle();
  device_->use();
  for (int i = 0; i < kNumSpaces; ++i) {
    take(static_cast<Space>(i));
    parts_[i].newer = Newer::kHost;
  }
}

void DeviceMirror::adopt(Space space, const void* from, const DeviceQueue& queue) {
  const Guard guard(mutex_);
  require_idle();
  Part& p = part(space);
  if (!p.block) return;
  device_->use();
  queue.copy(p.block->data(), from, p.block->bytes(), CopyKind::kOnDevice);
  p.newer = Newer::kDevice;
}

void DeviceMirror::begin_run(SpaceSet used) {
  const Guard guard(mutex_);
  require_idle();
  for (int i = 0; i < kNumSpaces; ++i)
    if (used & bit(static_cast<Space>(i))) push(static_cast<Space>(i));
  running_ = true;
}

void DeviceMirror::end_run(SpaceSet written) {
  const Guard guard(mutex_);
  running_ = false;
  for (int i = 0; i < kNumSpaces; ++i)
    if (written & bit(static_cast<Space>(i))) parts_[i].newer = Newer::kDevice;
  for (int i = 0; i < kNumSpaces; ++i)
    if (is_lent(static_cast<Space>(i))) take(static_cast<Space>(i));
}

bool DeviceMirror::is_current(Space space) const {
  const Guard guard(mutex_);
  require_idle();
  return part(space).block && part(space).newer != Newer::kHost && !is_lent(space);
}

bool DeviceMirror::is_ahead() const {
  const Guard guard(mutex_);
  require_idle();
  for (const Part& p : parts_)
    if (p.newer == Newer::kDevice) return true;
  return false;
}

void DeviceMirror::copy_from(Space space, const DeviceMirror& other) {
  const Guard guard(mutex_);
  require_idle();
  if (!part(space).block) return;
  device_->use();
  queue_.copy(part(space).block->data(), other.address(space), part(space).block->bytes(),
              CopyKind::kOnDevice);
  queue_.wait();
  written_here(space);
}

void DeviceMirror::copy(Space to, Space from) {
  const Guard guard(mutex_);
  require_idle();
  if (!part(to).block) return;
  device_->use();
  push(from);
  queue_.copy(part(to).block->data(), part(from).block->data(), part(to).block->bytes(), CopyKind::kOnDevice);
  queue_.wait();
  written_here(to);
}

void DeviceMirror::exchange(Space a, Space b) {
  const Guard guard(mutex_);
  require_idle();
  if (!part(a).block) return;
  device_->use();
  push(a);
  push(b);
  device_->api().exchange(part(a).block->data(), part(b).block->data(), part(a).block->bytes(),
                          queue_.stream());
  queue_.wait();
  written_here(a);
  written_here(b);
}

bool DeviceMirror::is_finite(Space space, int64 n) {
  const Guard guard(mutex_);
  require_idle();
  if (!part(space).block) return true;
  device_->use();
  queue_.fill(flag_.data(), 0, flag_.bytes());
  device_->api().find_not_finite(reinterpret_cast<const float*>(part(space).block->data()), n,
                                 reinterpret_cast<int*>(flag_.data()), queue_.stream());
  int found = 0;
  queue_.copy(&found, flag_.data(), sizeof found, CopyKind::kToHost);
  queue_.wait();
  return found == 0;
}

}  // namespace hotloop
