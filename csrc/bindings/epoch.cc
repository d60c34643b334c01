// SPDX-License-Identifier: Apache-2.0
// Passes over a data set: the source of rows, the flag that stops, and the epoch, in one call or bound once
// for a whole run.
#include "runtime/epoch.h"

#include <optional>

#include "bindings/epoch_call.h"
#include "bindings/register.h"
#include "core/error.h"
#include "core/fingerprint.h"
#include "core/finite.h"
#include "kernels/isa.h"

namespace hotloop {
namespace {

using DoubleArray = py::array_t<double, py::array::c_style>;

// Keeps the arrays alive next to the pointers into them.
class Source {
 public:
  explicit Source(std::vector<py::array> arrays) : owned_(std::move(arrays)), arrays_(describe(owned_)) {}
  const std::vector<SourceArray>& arrays() const { return arrays_; }
  int64 rows() const { return arrays_.empty() ? 0 : arrays_[0].rows; }

 private:
  std::vector<py::array> owned_;
  std::vector<SourceArray> arrays_;
};

EpochAnswer drive(Program& program, const Source& source, ThreadTeam& team, EpochOptions& options) {
  return with_signals(options, [&] { return run_epoch(program, source.arrays(), team, options); });
}

EpochAnswer epoch(Program& program, const Source& source, ThreadTeam& team, const std::vector<int>& inputs,
                  int64 batch_size, bool shuffle, std::uint64_t seed, std::uint32_t run,
                  std::uint32_t epoch_number, std::uint64_t step, int64 first_batch, int64 batches,
                  const DoubleArray& params, int64 begin, int64 end, int64 accumulate, const Outputs& outputs,
                  const StopFlag* stop, std::optional<double> deadline_s, bool adaptive, bool check_finite,
                  int64 before, bool more) {
  EpochOptions options = run_options(program.plan(), inputs, batch_size, shuffle, seed, run, accumulate);
  options.outputs = epoch_outputs(program.plan(), source.rows(), outputs);
  options.epoch = epoch_number;
  options.step = step;
  options.first_batch = first_batch;
  options.batches = batches;
  set_params(options, program.plan(), params);
  options.begin = begin;
  if (end >= 0) options.end = end;
  options.deadline_s = deadline_s.value_or(-1.0);
  options.adaptive = adaptive;
  options.check_finite = check_finite;
  options.before = before;
  options.more = more;
  options.stop = stop == nullptr ? nullptr : &stop->value;
  return drive(program, source, team, options);
}

// The epochs of one training run: what stays the same from one to the next is given once, so that an epoch
// costs Python one short call. The objects it was made from must outlive it (keep_alive below).
class BoundEpoch {
 public:
  BoundEpoch(Program& program, const Source& source, ThreadTeam& team, std::vector<int> inputs,
             int64 batch_size, bool shuffle, std::uint64_t seed, std::uint32_t run, bool adaptive,
             int64 accumulate)
      : program_(program), source_(source), team_(team) {
    check(batch_size >= 1, "[epoch] batch size ", batch_size);
    options_ = run_options(program.plan(), std::move(inputs), batch_size, shuffle, seed, run, accumulate);
    options_.adaptive = adaptive;
  }

  EpochAnswer run(std::uint32_t epoch_number, const DoubleArray& params, const StopFlag* stop,
                  std::optional<double> deadline_s, int64 first_batch, int64 batches) {
    EpochOptions options = epoch_options(options_, program_.plan(), source_.rows(), epoch_number, params,
                                         stop, deadline_s, first_batch, batches);
    return drive(program_, source_, team_, options);
  }

 private:
  Program& program_;
  const Source& source_;
  ThreadTeam& team_;
  EpochOptions options_;
};

void add_bytes(Fingerprinter& state, const py::array& array) {
  check((array.flags() & py::array::c_style) != 0, "[fingerprint] an array is not C-contiguous");
  check(state.whole(), "[fingerprint] a piece before this one was no multiple of ", Fingerprinter::kBlock,
        " bytes");
  const auto* data = static_cast<const std::byte*>(array.data());
  const auto bytes = static_cast<std::size_t>(array.nbytes());
  const py::gil_scoped_release release;  // the argument keeps the bytes; who writes them meanwhile errs
  state.add(data, bytes);
}

bool is_finite(const py::array& array) {
  const py::dtype type = array.dtype();
  const auto each = static_cast<std::size_t>(type.itemsize());
  check(type.kind() == 'f' && (each == 4 || each == 8) && type.byteorder() == '=',
        "[is_finite] an array is no float32 or float64");
  check((array.flags() & py::array::c_style) != 0, "[is_finite] an array is not C-contiguous");
  const auto* data = static_cast<const std::byte*>(array.data());
  const py::gil_scoped_release release;  // the argument keeps the bytes
  return all_finite(data, array.size(), each);
}

std::pair<std::uint64_t, std::uint64_t> read(const Fingerprinter& state) {
  const Fingerprint found = state.finish();
  return {found.hi, found.lo};
}

}  // namespace

void register_epoch(py::module_& m) {
  py::class_<Source>(m, "Source", "Arrays of equal row count that batches are gathered from.")
      .def(py::init<std::vector<py::array>>(), py::arg("arrays"))
      .def_property_readonly("rows", &Source::rows);
  py::class_<StopFlag>(m, "StopFlag", "Ends an epoch after the step in hand; may be set from any thread.")
      .def(py::init<>())
      .def("set", [](StopFlag& flag) { flag.value.store(true); })
      .def("clear", [](StopFlag& flag) { flag.value.store(false); })
      .def("is_set", [](const StopFlag& flag) { return flag.value.load(); });
  py::class_<BoundEpoch>(m, "BoundEpoch", "The epochs of one training run over one source.")
      .def(py::init<Program&, const Source&, ThreadTeam&, std::vector<int>, int64, bool, std::uint64_t,
                    std::uint32_t, bool, int64>(),
           py::arg("program"), py::arg("source"), py::arg("team"), py::kw_only(), py::arg("inputs"),
           py::arg("batch_size"), py::arg("shuffle"), py::arg("seed"), py::arg("run"), py::arg("adaptive"),
           py::arg("accumulate") = 1, py::keep_alive<1, 2>(), py::keep_alive<1, 3>(), py::keep_alive<1, 4>())
      .def("run", &BoundEpoch::run, py::arg("epoch"), py::arg("params"), py::arg("stop") = py::none(),
           py::arg("deadline_s") = py::none(), py::arg("first_batch") = 0, py::arg("batches") = -1,
           "One epoch, or a part of it, as run_epoch; ends at the first loss that is not finite.");
  m.def(
      "run_epoch", &epoch, py::arg("program"), py::arg("source"), py::arg("team"), py::kw_only(),
      py::arg("inputs"), py::arg("batch_size"), py::arg("shuffle"), py::arg("seed") = 0, py::arg("run") = 0,
      py::arg("epoch") = 0, py::arg("step") = 0, py::arg("first_batch") = 0, py::arg("batches") = -1,
      py::arg("params"), py::arg("begin") = 0, py::arg("end") = -1, py::arg("accumulate") = 1,
      py::arg("outputs") = Outputs(), py::arg("stop") = py::none(), py::arg("deadline_s") = py::none(),
      py::arg("adaptive") = false, py::arg("check_finite") = false, py::arg("before") = 0,
      py::arg("more") = false,
      "One pass over the source, or `batches` of it from `first_batch` on: (steps run, 'done' | 'stopped' | "
      "'time' | 'diverged' | 'paused'). Metrics are zeroed first, unless it begins in mid-epoch. `before` "
      "and "
      "`more`: batches of the epoch that ran from other sources, and whether others come.");
  m.def("is_finite", &is_finite, py::arg("array"),
        "Whether a C-contiguous array of float32 or float64 holds neither NaN nor infinity.");
  m.def(
      "fingerprint",
      [](const py::array& array) {
        Fingerprinter state;
        add_bytes(state, array);
        return read(state);
      },
      py::arg("array"), "128 bits that tell an array's bytes from others; not cryptographic.");
  py::class_<Fingerprinter>(m, "Fingerprinter", "The fingerprint of bytes that come in pieces.")
      .def(py::init<>())
      .def("add", &add_bytes, py::arg("array"), "The next piece; all but the last are multiples of 64 bytes.")
      .def("read", &read, "The fingerprint of all pieces so far, as if they were one array.");
  m.def(
      "permutation",
      [](int64 n, std::uint64_t seed, std::uint32_t run, std::uint32_t epoch_number, int64 first, int64 count,
         const std::string& isa) {
        check(first >= 0 && first <= n, "[permutation] first is ", first, "; allowed 0 to ", n);
        if (count < 0) count = n - first;
        check(count <= n - first, "[permutation] ", count, " positions from ", first, " on; there are ", n);
        py::array_t<int64> order(count);
        const Permutation permutation(static_cast<std::uint64_t>(n), seed, run, epoch_number);
        find_isa(isa).shuffle_rows(permutation, first, count, order.mutable_data());
        return order;
      },
      py::arg("n"), py::kw_only(), py::arg("seed"), py::arg("run"), py::arg("epoch"), py::arg("first") = 0,
      py::arg("count") = -1, py::arg("isa") = "",
      "The order in which an epoch reads its rows, or `count` of it from position `first` on.");
}

}  // namespace hotloop
