// SPDX-License-Identifier: Apache-2.0
// What a session owns beside its plans: one flat buffer each for parameters, gradients, the optimiser's
// moments and the layers' state. Flat on purpose: an update is one pass, a rollback one memcpy.
#pragma once

#include <atomic>

#include "core/error.h"
#include "cpu/aligned_block.h"
#include "runtime/plan.h"

namespace hotloop {

class Memory {
 public:
  Memory(const MemorySizes& sizes, Real real)
      : sizes_(sizes),
        real_(real),
        parameters_(bytes(sizes.parameters)),
        gradients_(bytes(sizes.parameters)),
        moment1_(sizes.moments >= 1 ? bytes(sizes.parameters) : 0),
        moment2_(sizes.moments >= 2 ? bytes(sizes.parameters) : 0),
        state_(bytes(sizes.state)),
        counters_(static_cast<std::size_t>(sizes.counters) * 8) {}

  const MemorySizes& sizes() const { return sizes_; }
  Real real() const { return real_; }

  // Start of a space that belongs to the session; null for those that belong to a program.
  std::byte* space(Space space) const {
    switch (space) {
      case Space::kParameter:
        return parameters_.data();
      case Space::kGradient:
        return gradients_.data();
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

  MemorySizes sizes_;
  Real real_;
  AlignedBlock parameters_, gradients_, moment1_, moment2_, state_, counters_;
  std::atomic<bool> busy_{false};
};

}  // namespace hotloop
