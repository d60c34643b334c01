// SPDX-License-Identifier: Apache-2.0
// What a session owns beside its plans: one flat buffer each for parameters, gradients, the optimiser's
// moments and the layers' state. Flat on purpose: an update is one pass, a rollback one memcpy. Programs on a
// device work on copies of them there (device_mirror.h), which exist from attach() on.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "core/error.h"
#include "cpu/aligned_block.h"
#include "runtime/device_mirror.h"
#include "runtime/plan.h"

namespace hotloop {

class Memory {
 public:
  // Without `gradients` it is a snapshot: a place for what training changes, which no program runs on.
  Memory(const MemorySizes& sizes, Real real, bool gradients = true)
      : sizes_(sizes),
        real_(real),
        parameters_(bytes(sizes.parameters)),
        gradients_(gradients ? bytes(sizes.parameters) : 0),
        moment1_(sizes.moments >= 1 ? bytes(sizes.parameters) : 0),
        moment2_(sizes.moments >= 2 ? bytes(sizes.parameters) : 0),
        state_(bytes(sizes.state)),
        counters_(static_cast<std::size_t>(sizes.counters) * 8) {}

  // Makes room for what few runs need: sums of gradients over batches, and an average of the parameters.
  // Spaces that are there stay as and where they are. No program may be running.
  // Throws DeviceFault where a device has no room for them.
  void reserve(bool accumulated, bool ema);

  // Makes room for all spaces on a device, where programs may run from now on; what is there already stays.
  // Throws DeviceFault, InternalError if it is on another device or not of float32.
  void attach(std::shared_ptr<const Device> device);
  DeviceMirror* mirror() const { return mirror_.get(); }
  std::size_t n_device_bytes() const { return mirror_ ? mirror_->n_bytes() : 0; }
  // For whoever reads a space on the host.
  void fetch(Space which) const {
    if (mirror_) mirror_->fetch(which);
  }
  // For whoever reads and writes spaces on the host.
  void to_host() const {
    if (mirror_) mirror_->to_host();
  }

  const MemorySizes& sizes() const { return sizes_; }
  Real real() const { return real_; }
  std::size_t n_bytes() const {
    return parameters_.bytes() + gradients_.bytes() + moment1_.bytes() + moment2_.bytes() + state_.bytes() +
           counters_.bytes() + (accumulated_ ? accumulated_->bytes() : 0) +
           (ema_ ? ema_->average.bytes() + sizeof ema_->counter : 0);
  }
  // Of a copy without gradients.
  std::size_t n_snapshot_bytes() const {
    return parameters_.bytes() + moment1_.bytes() + moment2_.bytes() + state_.bytes() + counters_.bytes();
  }
  bool has_gradients() const { return gradients_.bytes() > 0 || sizes_.parameters == 0; }

  // Start of a space that belongs to the session, on the host; null for those that belong to a program, or
  // that are not there.
  std::byte* space(Space space) const {
    switch (space) {
      case Space::kParameter:
        return parameters_.data();
      case Space::kGradient:
        return gradients_.data();
      case Space::kAccumulated:
        return accumulated_ ? accumulated_->data() : nullptr;
      case Space::kEma:
        return ema_ ? ema_->average.data() : nullptr;
      case Space::kEmaCounter:
        return ema_ ? reinterpret_cast<std::byte*>(&ema_->counter) : nullptr;
      case Space::kMoment1:
        return moment1_.data();
      case Space::kMoment2:
        return moment2_.data();
      case Space::kState:
        return state_.data();
      case Space::kCounter:
        return counters_.data();
      default:
        return nullptr;
    }
  }

  // Whether what was derived from the parameters at version() may be out of date: a program changed them
  // since, or somebody else holds a view through which they may be changed.
  bool is_stale(std::uint64_t version) const {
    return version != version_.load() || loans_.writing[static_cast<int>(Space::kParameter)].load() > 0;
  }
  std::uint64_t version() const { return version_.load(); }
  void parameters_changed() { version_.fetch_add(1, std::memory_order_relaxed); }

  // Kept alive by every view of a space that is handed out. One that may be written through counts as a
  // change of the space; one that only reads costs no copy back to a device.
  class Loan {
   public:
    Loan(std::shared_ptr<Memory> memory, Space space, bool writes = true)
        : memory_(std::move(memory)), space_(space), writes_(writes) {
      count().fetch_add(1);  // first, so that a run that ends now sees it
      try {
        memory_->fetch(space_);
      } catch (...) {
        count().fetch_sub(1);
        throw;
      }
    }
    ~Loan() {
      if (writes_ && space_ == Space::kParameter) memory_->parameters_changed();
      if (writes_ && memory_->mirror_) memory_->mirror_->host_changed(space_);
      count().fetch_sub(1);
    }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;

   private:
    std::atomic<int>& count() const {
      DeviceMirror::Loans& loans = memory_->loans_;
      return (writes_ ? loans.writing : loans.reading)[static_cast<int>(space_)];
    }
    std::shared_ptr<Memory> memory_;
    Space space_;
    bool writes_;
  };

  // Kept alive by whoever was given the gradients themselves instead of a copy, and counts on their staying.
  class GradientLoan {
   public:
    explicit GradientLoan(const std::shared_ptr<Memory>& memory)
        : memory_(*memory), loan_(memory, Space::kGradient) {
      memory_.gradient_loans_.fetch_add(1);
    }
    ~GradientLoan() { memory_.gradient_loans_.fetch_sub(1); }
    GradientLoan(const GradientLoan&) = delete;
    GradientLoan& operator=(const GradientLoan&) = delete;

   private:
    Memory& memory_;
    Loan loan_;
  };
  bool gradients_are_lent() const { return gradient_loans_.load() > 0; }

  // Copies what training changes: parameters, moments, state and counters. The sizes must be equal.
  void copy_from(const Memory& other);

  // Begins an average at the parameters as they are. Needs reserve().
  void begin_ema();
  // Parameters and their average change places, so that whoever reads the parameters sees the average.
  void exchange_ema();

  // Whether no parameter and no state is NaN or infinite.
  bool is_finite() const;
  // Of the first n parameters, summed in double in an order that depends on n alone; read on the host.
  double square_norm(int64 n) const;

  // Held while a program runs on this memory; two threads on one model would mix their steps.
  class Lease {
   public:
    explicit Lease(Memory& memory) : memory_(memory) {
      if (memory_.busy_.exchange(true, std::memory_order_acquire))
        throw std::runtime_error(
            "[session] this model is in use in another thread; wait for it or use a copy");
    }
    ~Lease() { memory_.busy_.store(false, std::memory_order_release); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

   private:
    Memory& memory_;
  };

 private:
  std::size_t bytes(int64 elements) const { return static_cast<std::size_t>(elements) * real_bytes(real_); }
  std::size_t space_bytes(Space space) const;
  void copy_space(Space space, const Memory& other);

  struct Ema {
    explicit Ema(std::size_t n_bytes) : average(n_bytes) {}
    AlignedBlock average;
    std::int64_t counter = 0;  // updates that are in the average
  };

  MemorySizes sizes_;
  Real real_;
  AlignedBlock parameters_, gradients_, moment1_, moment2_, state_, counters_;
  std::unique_ptr<AlignedBlock> accumulated_;
  std::unique_ptr<Ema> ema_;
  std::atomic<bool> busy_{false};
  std::atomic<std::uint64_t> version_{0};
  DeviceMirror::Loans loans_;
  std::atomic<int> gradient_loans_{0};
  std::unique_ptr<DeviceMirror> mirror_;  // after loans_, which it reads
};

}  // namespace hotloop
