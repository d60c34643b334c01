// SPDX-License-Identifier: Apache-2.0
// A memory's spaces on a device, beside those on the host. Of each space one of the two may be newer; the
// other is brought up to date only when somebody looks at it. Whoever holds a view of a space may write
// through it at any time, so that a lent space is copied in before each run and out after it.
#pragma once

#include <atomic>
#include <mutex>

#include "runtime/device_library.h"
#include "runtime/plan.h"

namespace hotloop {

class DeviceMirror {
 public:
  using Loans = std::atomic<int>[kNumSpaces];  // of each space, how many views there are
  DeviceMirror(std::shared_ptr<const Device> device, const Loans& loans);

  // Room for a space that lies at `host`, which is the newer one. Throws DeviceFault.
  void add(Space space, std::byte* host, std::size_t bytes);

  void remove(Space space);

  const std::shared_ptr<const Device>& device() const { return device_; }
  bool is_on(const Device& device) const;
  // Null if there is no such space.
  std::byte* address(Space space) const { return part(space).block ? part(space).block->data() : nullptr; }
  std::size_t n_bytes() const;

  // --- for the host
  // Makes the host's bytes current. During a run it does nothing: the run's end does it for lent spaces.
  void fetch(Space space);
  // The host's bytes were written, or may have been.
  void host_changed(Space space);
  // The host's bytes are about to be written, all of them. Throws std::runtime_error during a run.
  void overwrite(Space space);
  // Everything to the host, which is about to write it. Throws std::runtime_error during a run.
  void to_host();

  // --- for who keeps a space elsewhere on the device
  // All of a space comes from there, and is the newer one now; a copy in the order of a queue.
  void adopt(Space space, const void* from, const DeviceQueue& queue);

  // --- for runs on the device
  void begin_run(SpaceSet used);
  // `written`: what the run may have changed.
  void end_run(SpaceSet written);

  // --- work where the newer bytes are
  bool is_current(Space space) const;  // the device's bytes are
  bool is_ahead() const;               // the device's bytes of any space are the newer ones
  void copy_from(Space space, const DeviceMirror& other);
  void copy(Space to, Space from);
  void exchange(Space a, Space b);
  bool is_finite(Space space, int64 n);  // n floats

 private:
  enum class Newer { kSame, kHost, kDevice };
  struct Part {
    std::byte* host = nullptr;
    std::unique_ptr<DeviceBlock> block;
    Newer newer = Newer::kHost;
  };
  Part& part(Space space) { return parts_[static_cast<int>(space)]; }
  const Part& part(Space space) const { return parts_[static_cast<int>(space)]; }
  bool is_lent(Space space) const { return loans_[static_cast<int>(space)].load() > 0; }
  void require_idle() const;
  void push(Space space);          // makes the device's bytes current
  void take(Space space);          // makes the host's bytes current
  void written_here(Space space);  // on the device, outside a run

  std::shared_ptr<const Device> device_;
  const Loans& loans_;
  DeviceQueue queue_;
  DeviceBlock flag_;
  Part parts_[kNumSpaces];
  bool running_ = false;
  mutable std::mutex mutex_;  // of all above; never held while Python's lock is waited for
};

}  // namespace hotloop
