// SPDX-License-Identifier: Apache-2.0
// A chain of steps in one launch, on NumPy arrays: for tests. Steps that name the same array share its copy
// on the device, and so each other's results.
#include <cstring>
#include <map>

#include "bindings/register.h"
#include "core/error.h"
#include "runtime/device_library.h"

namespace hotloop {
namespace {

using DevicePtr = std::shared_ptr<Device>;

// Copies of arrays on the device, by the arrays' own addresses.
class Arrays {
 public:
  Arrays(const DevicePtr& device, const DeviceQueue& queue) : device_(device), queue_(queue) {}

  const void* address(const py::array& array, bool written) {
    Copy& copy = copies_[array.data()];
    if (copy.block == nullptr) {
      copy.block = std::make_unique<DeviceBlock>(device_, static_cast<std::size_t>(array.nbytes()));
      queue_.copy(copy.block->data(), array.data(), copy.block->bytes(), CopyKind::kToDevice);
      copy.array = array;
    }
    copy.written = copy.written || written;
    return copy.block->data();
  }

  void fetch() {
    for (auto& [at, copy] : copies_)
      if (copy.written)
        queue_.copy(copy.array.mutable_data(), copy.block->data(), copy.block->bytes(), CopyKind::kToHost);
    queue_.wait();
  }

 private:
  struct Copy {
    py::array array;
    std::unique_ptr<DeviceBlock> block;
    bool written = false;
  };
  const DevicePtr& device_;
  const DeviceQueue& queue_;
  std::map<const void*, Copy> copies_;
};

struct BoundStep {
  alignas(8) std::byte args[kMaxArgsBytes] = {};
  std::vector<std::int64_t> per_row;
  ChainStep step;

  // fields: as of run_kernel; moves: how far each operand moves, each size grows with a row, 0 if not named.
  void bind(const py::tuple& given, Arrays& arrays) {
    const std::string name = given[0].cast<std::string>();
    const py::dict fields = given[1].cast<py::dict>(), moves = given[2].cast<py::dict>();
    const py::set unread = given[3].cast<py::set>();
    step.kernel = find_kernel(name);
    if (step.kernel < 0) throw py::key_error("[run_chain] no kernel " + name);
    const std::span<const Field> schema = kernel_info(static_cast<Kernel>(step.kernel)).fields;
    for (std::size_t i = 0; i < schema.size(); ++i) {
      const Field& f = schema[i];
      const auto put = [&](auto v) { std::memcpy(args + f.offset, &v, sizeof v); };
      const py::str key{std::string(f.name)};
      const py::object value = fields[key];
      per_row.push_back(moves.contains(key) ? moves[key].cast<std::int64_t>() : 0);
      if (unread.contains(key)) step.unread |= 1u << i;
      if (f.kind == FieldKind::Dim || f.kind == FieldKind::Int) {
        put(value.cast<int64>());
      } else if (f.kind == FieldKind::Real) {
        put(value.cast<double>());
      } else if (!value.is_none()) {
        put(arrays.address(value.cast<py::array>(), f.kind != FieldKind::In && f.kind != FieldKind::InOpt));
      }
    }
    step.args = args;
    step.per_row = per_row.data();
  }
};

// Whether there was one launch for it: if not, nothing has run.
bool run_chain(const DevicePtr& device, const std::vector<py::tuple>& steps, std::int64_t rows,
               std::uint64_t seed, std::uint32_t run, std::uint64_t number,
               const std::vector<double>& dropout, const std::string& precision, int multiprocessors,
               std::size_t shared_memory, bool mma) {
  const DeviceQueue queue(device);
  Arrays arrays(device, queue);
  std::vector<std::unique_ptr<BoundStep>> bound;
  std::vector<ChainStep> chain;
  for (const py::tuple& given : steps) {
    bound.push_back(std::make_unique<BoundStep>());
    bound.back()->bind(given, arrays);
    chain.push_back(bound.back()->step);
  }
  DeviceTraits traits = device->traits();
  if (multiprocessors > 0) traits.multiprocessors = multiprocessors;
  if (shared_memory > 0) traits.shared_per_block = shared_memory;
  traits.has_mma = traits.has_mma != 0 && mma;
  const Precision wanted = precision == "tf32"   ? Precision::kTf32
                           : precision == "bf16" ? Precision::kBf16
                                                 : Precision::kFloat32;
  const DeviceApi& api = device->api();
  if (api.chain_fits(chain.data(), chain.size(), rows, traits, wanted) == 0) return false;
  const DeviceBlock probabilities(device, (dropout.size() + 1) * sizeof(double));
  queue.copy(probabilities.data(), dropout.data(), dropout.size() * sizeof(double), CopyKind::kToDevice);
  DeviceStep ctx;
  ctx.seed = seed;
  ctx.run = run;
  ctx.step = number;
  ctx.dropout = reinterpret_cast<const double*>(probabilities.data());
  const DeviceBlock block(device, sizeof ctx);
  queue.copy(block.data(), &ctx, sizeof ctx, CopyKind::kToDevice);
  const DeviceBlock workspace(
      device, kWorkspaceCounters + api.chain_workspace(chain.data(), chain.size(), rows, traits, wanted));
  api.chain_launch(
      chain.data(), chain.size(), rows,
      {queue.stream(), reinterpret_cast<const DeviceStep*>(block.data()), workspace.data(), &traits, wanted});
  queue.wait();
  arrays.fetch();
  return true;
}

}  // namespace

void register_gpu_chain(py::module_& m) {
  m.def(
      "run_chain", &run_chain, py::arg("device"), py::arg("steps"), py::arg("rows"), py::kw_only(),
      py::arg("seed") = 0, py::arg("run") = 0, py::arg("step") = 0,
      py::arg("dropout") = std::vector<double>(), py::arg("precision") = "float32",
      py::arg("multiprocessors") = 0, py::arg("shared_memory") = 0, py::arg("mma") = true,
      "Run steps (kernel, fields, elements that a row moves each field on, names of outputs that nobody else "
      "reads) as one launch on copies of dense arrays, if there is one for them. The last three: as if the "
      "device had so many multiprocessors, so much shared memory, no matrix units. For tests.");
}

}  // namespace hotloop
