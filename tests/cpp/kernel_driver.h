// SPDX-License-Identifier: Apache-2.0
// Runs any kernel of any unit on a case: sizes, attributes and ranges of values by the names of args.h. Every
// operand ends at a page that may not be touched, begins after a canary, and is read from the same numbers in
// float and in double, so that the float64 column of the generic unit is the oracle of all others.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cpu/fp_mode.h"
#include "kernels/isa.h"

namespace test {

using hotloop::int64;

// Deterministic numbers; the same on every machine, unlike std's distributions.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 1) {}
  std::uint64_t bits() {  // splitmix64
    state_ += 0x9E3779B97F4A7C15ull;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  // A float in [low, high), as a double.
  double uniform(double low, double high) {
    const double unit = static_cast<double>(bits() >> 40) / static_cast<double>(1 << 24);
    return static_cast<double>(static_cast<float>(low + (high - low) * unit));
  }
  int64 below(int64 n) { return static_cast<int64>(bits() % static_cast<std::uint64_t>(n)); }

 private:
  std::uint64_t state_;
};

// Room for `most` bytes in front of a page that may be neither read nor written.
class GuardedMemory {
 public:
  static constexpr std::size_t kCanary = 64;

  explicit GuardedMemory(std::size_t most) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    usable_ = (most + kCanary + page - 1) / page * page;
    mapped_ = usable_ + page;
    void* start = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(static_cast<char*>(start) + usable_, page, PROT_NONE) != 0)
      std::abort();
    start_ = static_cast<unsigned char*>(start);
  }
  ~GuardedMemory() { munmap(start_, mapped_); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  // The last `count` elements before the guard page; the bytes in front of them become the canary.
  template <class T>
  T* place(int64 count) {
    unsigned char* at = start_ + usable_ - static_cast<std::size_t>(count) * sizeof(T);
    canary_ = at - kCanary;
    std::memset(canary_, 0xA5, kCanary);
    return reinterpret_cast<T*>(at);
  }
  bool intact() const {
    for (std::size_t i = 0; i < kCanary; ++i) {
      if (canary_[i] != 0xA5) return false;
    }
    return true;
  }

 private:
  unsigned char *start_ = nullptr, *canary_ = nullptr;
  std::size_t usable_ = 0, mapped_ = 0;
};

struct Operand {
  std::string_view name;
  int64 count;
  double low = -2.0, high = 2.0;  // of the values it starts with; whole numbers below high for index operands
  std::vector<double> values{};   // instead of random ones
};

struct Attribute {
  std::string_view name;
  double value;
};

struct Case {
  std::string_view kernel;
  std::vector<Attribute> attributes;
  std::vector<Operand> operands;  // those not named are null
  double tolerance = 32;          // in units of float's eps times the largest value of an output; 0: equal
};

// What a case left in the operands that it may write, by name.
using Outputs = std::map<std::string_view, std::vector<double>>;

// Dropout rates of layers 0 and 1, learning rate and weight decay of one group.
inline hotloop::StepContext context() {
  static const double rates[] = {0.0, 0.3};
  static const double groups[] = {0.02, 0.05};
  return {.seed = 5, .run = 2, .step = 11, .groups = groups, .dropout = rates, .first_row = 3};
}

inline void fail(const Case& c, std::string_view operand, const char* what) {
  std::fprintf(stderr, "%s(", std::string(c.kernel).c_str());
  for (const Attribute& a : c.attributes)
    std::fprintf(stderr, " %s=%g", std::string(a.name).c_str(), a.value);
  std::fprintf(stderr, " ) %s: %s\n", std::string(operand).c_str(), what);
}

// One operand in its memory, in the type that its field has for `real`.
template <class T>
void fill(T* data, const Operand& operand, bool poisoned, std::uint64_t seed) {
  Random random(seed);
  for (int64 i = 0; i < operand.count; ++i) {
    double value = random.uniform(operand.low, operand.high);
    if (!operand.values.empty()) value = operand.values[static_cast<std::size_t>(i) % operand.values.size()];
    value = static_cast<double>(static_cast<float>(value));  // the same in float and in double
    if (poisoned) value = std::numeric_limits<T>::has_quiet_NaN ? std::nan("") : -1234;
    data[i] = static_cast<T>(value);
  }
}

inline bool same_bytes(const void* a, const void* b, std::size_t size) {
  return size == 0 || std::memcmp(a, b, size) == 0;  // an empty vector's data may be null
}

template <class Body>
auto with_type(hotloop::DType dtype, bool is_double, Body&& body) {
  switch (dtype) {
    case hotloop::DType::kReal:
      return is_double ? body(double()) : body(float());
    case hotloop::DType::kIndex:
      return body(hotloop::index());
    case hotloop::DType::kDouble:
      return body(double());
    default:
      return body(int64());
  }
}

// A case with its operands in memory, ready to run in one column of a kernel table.
class PlacedCase {
 public:
  PlacedCase(const Case& c, bool is_double) : case_(c), is_double_(is_double) {
    const int found = hotloop::find_kernel(c.kernel);
    if (found < 0) std::abort();
    kernel_ = found;
    const auto& info = hotloop::kernel_info(static_cast<hotloop::Kernel>(kernel_));
    for (const auto& field : info.fields) place(field);
    if (used_ != c.attributes.size() + c.operands.size()) {
      fail(c, "", "names something that the kernel lacks");
      std::abort();
    }
  }

  // Runs all chunks, last first if `reverse`; false if something beside the outputs changed.
  bool run(const hotloop::KernelTable& table, bool reverse) {
    const hotloop::FlushDenormals flush;
    const hotloop::KernelFn& fn = table[kernel_];
    const int64 chunks = fn.chunks(args_);
    for (int64 i = 0; i < chunks; ++i) fn.run(args_, context(), reverse ? chunks - 1 - i : i);
    bool good = true;
    for (const Placed& p : placed_) {
      if (!p.memory->intact()) good = (fail(case_, p.operand->name, "was written before its start"), false);
      if (!p.written && !same_bytes(p.start.data(), p.data, p.start.size()))
        good = (fail(case_, p.operand->name, "is an input and was changed"), false);
    }
    return good;
  }

  Outputs outputs() const {
    Outputs found;
    for (const Placed& p : placed_) {
      if (!p.written) continue;
      with_type(p.dtype, is_double_, [&](auto zero) {
        const auto* data = reinterpret_cast<const decltype(zero)*>(p.data);
        found[p.operand->name].assign(data, data + p.operand->count);
      });
    }
    return found;
  }

 private:
  struct Placed {
    const Operand* operand;
    hotloop::DType dtype;
    bool written;
    std::unique_ptr<GuardedMemory> memory;
    unsigned char* data;
    std::vector<unsigned char> start;  // its bytes before the run
  };

  void place(const hotloop::Field& field) {
    using Kind = hotloop::FieldKind;
    for (const Attribute& a : case_.attributes) {
      if (a.name != field.name) continue;
      ++used_;
      if (field.kind == Kind::Real) std::memcpy(args_ + field.offset, &a.value, sizeof a.value);
      const auto whole = static_cast<int64>(a.value);
      if (field.kind != Kind::Real) std::memcpy(args_ + field.offset, &whole, sizeof whole);
    }
    for (const Operand& operand : case_.operands) {
      if (operand.name != field.name) continue;
      const bool fresh = field.kind == Kind::Out || field.kind == Kind::OutOpt;
      const bool written = fresh || field.kind == Kind::InOut || field.kind == Kind::InOutOpt;
      auto memory = std::make_unique<GuardedMemory>(static_cast<std::size_t>(operand.count) * 8);
      with_type(field.dtype, is_double_, [&](auto zero) {
        auto* data = memory->place<decltype(zero)>(operand.count);
        fill(data, operand, fresh, ++used_);
        auto* bytes = reinterpret_cast<unsigned char*>(data);
        const std::size_t size = static_cast<std::size_t>(operand.count) * sizeof zero;
        placed_.push_back({&operand, field.dtype, written, std::move(memory), bytes, {bytes, bytes + size}});
        std::memcpy(args_ + field.offset, &data, sizeof data);
      });
    }
  }

  const Case& case_;
  bool is_double_;
  int kernel_ = 0;
  std::size_t used_ = 0;
  std::vector<Placed> placed_;
  alignas(16) unsigned char args_[hotloop::kMaxArgsBytes] = {};
};

// NaN where the oracle has it, infinities alike, the rest within the case's tolerance of the largest value.
inline bool close(const Case& c, const Outputs& got, const Outputs& want) {
  bool good = true;
  for (const auto& [name, exact] : want) {
    const std::vector<double>& values = got.at(name);
    double largest = 1.0 / 16, worst = 0.0;  // of a few tiny results all digits may have cancelled
    for (const double x : exact) largest = std::isfinite(x) ? std::fmax(largest, std::fabs(x)) : largest;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const bool same = values[i] == exact[i] || (std::isnan(values[i]) && std::isnan(exact[i]));
      const double error = same ? 0.0 : std::fabs(values[i] - exact[i]);
      worst = error <= worst ? worst : error;  // NaN stays
    }
    const double eps = static_cast<double>(std::numeric_limits<float>::epsilon());
    if (!(worst <= c.tolerance * eps * largest)) {
      good = false;
      fail(c, name, "differs from the float64 result");
      std::fprintf(stderr, "  by %g, largest value %g\n", worst, largest);
    }
  }
  return good;
}

// Whether a unit's result is the oracle's, the same for chunks in any order, and touches nothing else.
inline bool agrees(const hotloop::IsaUnit& unit, const Case& c) {
  PlacedCase oracle(c, true), forward(c, false), backward(c, false);
  const auto& generic = hotloop::find_isa("generic");
  if (!oracle.run(*generic.table_double, false)) return false;
  if (!forward.run(*unit.table_float, false) || !backward.run(*unit.table_float, true)) return false;
  const Outputs got = forward.outputs(), again = backward.outputs();
  for (const auto& [name, values] : got) {
    if (!same_bytes(values.data(), again.at(name).data(), values.size() * sizeof(double))) {
      fail(c, name, "depends on the order of the chunks");
      return false;
    }
  }
  return close(c, got, oracle.outputs());
}

}  // namespace test
