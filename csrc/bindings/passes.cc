// SPDX-License-Identifier: Apache-2.0
// Passes: a network inside somebody else's automatic differentiation. Each forward pass keeps an arena of
// its own until its gradients are taken, so that several may wait; what is read and written are addresses,
// because tensors of other libraries have no type here. The caller checks shapes and keeps tensors alive.
#include <cstring>

#include "bindings/copy_in.h"
#include "bindings/lent_tensor.h"
#include "bindings/register.h"

namespace hotloop {
namespace {

using Address = std::uintptr_t;

std::byte* pointer(Address address) { return reinterpret_cast<std::byte*>(address); }

// element type, buffer, least and largest value of integers
using InputTuple = std::tuple<std::string, int, double, double>;
// where a parameter's gradient begins in the flat buffer, and its shape
using GradientTuple = std::pair<int64, std::vector<int64>>;

ElementType type_named(const std::string& name) {
  if (name == "float32") return ElementType::kFloat32;
  if (name == "float64") return ElementType::kFloat64;
  if (name == "uint8") return ElementType::kUint8;
  if (name == "int32") return ElementType::kInt32;
  if (name == "int64") return ElementType::kInt64;
  throw py::type_error("[passes] unsupported dtype " + name);
}

struct Input {
  int buffer = 0;
  int64 row_size = 0;
  bool checked = false;  // real numbers may be anything
  Copy copy = nullptr;
  double low = 0.0, high = 0.0;
};

class Passes;

// One forward pass that waits for its gradients. Gives its arena back when they are taken, or with its death.
class Pass {
 public:
  Pass(std::shared_ptr<Passes> owner, std::unique_ptr<Program> program, int64 rows, std::uint64_t seed)
      : owner_(std::move(owner)), program_(std::move(program)), rows_(rows), seed_(seed) {}
  ~Pass() { close(); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  bool is_open() const { return program_ != nullptr; }
  void close();
  py::tuple backward(Address doutput, const std::vector<Address>& dinputs, bool apart);
  void accumulate(Address doutput, const std::vector<Address>& dinputs, bool add);

 private:
  std::shared_ptr<Passes> owner_;
  std::unique_ptr<Program> program_;
  int64 rows_;
  std::uint64_t seed_;
};

class Passes : public std::enable_shared_from_this<Passes> {
 public:
  Passes(py::object program, py::object team, const std::vector<InputTuple>& inputs,
         std::vector<double> params, int64 middle, int output, int doutput, std::vector<int> dinputs,
         std::vector<GradientTuple> gradients, bool adaptive, int64 team_rows,
         std::vector<py::array> batch_counters, const py::object& tensor_type)
      : program_object_(std::move(program)),
        first_(&program_object_.cast<const Program&>()),
        team_object_(std::move(team)),
        team_(team_object_.cast<ThreadTeam&>()),
        params_(std::move(params)),
        middle_(middle),
        output_(output),
        doutput_(doutput),
        dinputs_(std::move(dinputs)),
        gradients_(std::move(gradients)),
        adaptive_(adaptive),
        team_rows_(team_rows),
        batch_counters_(std::move(batch_counters)),
        maker_(tensor_type) {
    const Plan& plan = first_->plan();
    check(static_cast<int>(params_.size()) == plan.params_width(), "[passes] ", params_.size(),
          " step parameters, not ", plan.params_width());
    check(0 <= middle_ && middle_ <= n_steps(), "[passes] the forward section ends outside the plan");
    for (const InputTuple& input : inputs) add(input);
    check_real(output_);
    if (doutput_ >= 0) check_real(doutput_);
    for (const int buffer : dinputs_) check_real(buffer);
    for (const py::array& counter : batch_counters_)
      check(py::isinstance<py::array_t<int64>>(counter), "[passes] a counter of batches is not int64");
    for (const auto& [offset, shape] : gradients_) {
      check(offset >= 0 && offset + size_of(shape) <= first_->memory().sizes().parameters,
            "[passes] a gradient lies outside its buffer");
    }
  }

  // Runs the forward section and lets go of what it left; false if an id is out of range.
  bool run(int64 rows, const std::vector<Address>& inputs, Address output, std::uint64_t seed) {
    std::unique_ptr<Program> program = take();
    const bool clean = forward(*program, rows, inputs, output, seed);
    give_back(std::move(program));
    return clean;
  }

  // The same, and keeps what backward needs; None if an id is out of range. `again`: it is the repetition of
  // a pass, which moves no running statistics.
  std::unique_ptr<Pass> start(int64 rows, const std::vector<Address>& inputs, Address output,
                              std::uint64_t seed, bool again) {
    std::unique_ptr<Program> program = take();
    const Memory& memory = program->memory();
    memory.to_host();
    const auto n_bytes =
        static_cast<std::size_t>(again ? memory.sizes().state : 0) * real_bytes(memory.real());
    const std::byte* state = memory.space(Space::kState);
    const std::vector<std::byte> before(state, state + n_bytes);
    const bool clean = forward(*program, rows, inputs, output, seed, !again);
    if (n_bytes > 0) std::memcpy(memory.space(Space::kState), before.data(), n_bytes);
    if (!clean) return give_back(std::move(program)), nullptr;
    return std::make_unique<Pass>(shared_from_this(), std::move(program), rows, seed);
  }

  // A tensor for each gradient: views of the flat buffer itself if nobody holds gradients of an earlier pass
  // and `apart` is not asked for, else of a copy that leaves those as they were.
  py::tuple backward(Program& program, int64 rows, std::uint64_t seed, Address doutput,
                     const std::vector<Address>& dinputs, bool apart) {
    const std::shared_ptr<Memory>& memory = program.shared_memory();
    if (!apart && !memory->gradients_are_lent()) {
      go_back(program, rows, seed, doutput, dinputs, nullptr, false);
      return tensors(memory->space(Space::kGradient), std::make_shared<Memory::GradientLoan>(memory));
    }
    const auto copy = std::make_shared<AlignedBlock>(gradient_bytes(*memory));
    go_back(program, rows, seed, doutput, dinputs, copy->data(), false);
    return tensors(copy->data(), copy);
  }

  // Leaves the gradients in the flat buffer, added to what lies there or instead of it.
  void accumulate(Program& program, int64 rows, std::uint64_t seed, Address doutput,
                  const std::vector<Address>& dinputs, bool add) {
    const std::size_t n_bytes = gradient_bytes(program.memory());
    if (add && (before_ == nullptr || before_->bytes() < n_bytes))
      before_ = std::make_unique<AlignedBlock>(n_bytes);
    go_back(program, rows, seed, doutput, dinputs, add ? before_->data() : nullptr, add);
  }

  std::size_t arenas() const { return free_.size(); }

  std::unique_ptr<Program> take() {
    if (free_.empty()) return first_->twin();
    std::unique_ptr<Program> program = std::move(free_.back());
    free_.pop_back();
    return program;
  }
  void give_back(std::unique_ptr<Program> program) {
    if ((free_.size() + 1) * program->n_bytes() <= kKeptBytes || free_.empty())
      free_.push_back(std::move(program));
  }

 private:
  // Arenas that wait for the next pass; one is always kept.
  static constexpr std::size_t kKeptBytes = std::size_t{64} << 20;

  int64 n_steps() const { return static_cast<int64>(first_->plan().steps.size()); }
  static std::size_t gradient_bytes(const Memory& memory) {
    return static_cast<std::size_t>(memory.sizes().parameters) * real_bytes(memory.real());
  }

  const Buffer& buffer(int index) const {
    check(index >= 0 && index < static_cast<int>(first_->plan().buffers.size()), "[passes] no buffer ",
          index);
    return first_->plan().buffers[static_cast<std::size_t>(index)];
  }
  void check_real(int index) const {
    check(buffer(index).dtype == DType::kReal && buffer(index).size.constant == 0, "[passes] buffer ", index,
          " is not a row of real numbers each");
  }

  void add(const InputTuple& tuple) {
    const auto& [name, index, low, high] = tuple;
    const ElementType type = type_named(name);
    const Buffer& b = buffer(index);
    check(convertible(type, b.dtype) && b.size.constant == 0, "[passes] ", name, " does not fit its input");
    inputs_.push_back({index, b.size.per_row, b.dtype == DType::kIndex,
                       copy_for(type, b.dtype, first_->plan().real), low, high});
  }

  bool forward(Program& program, int64 rows, const std::vector<Address>& inputs, Address output,
               std::uint64_t seed, bool counts = true) {
    const Memory::Lease lease(program.memory());
    check(inputs.size() == inputs_.size(), "[passes] ", inputs.size(), " inputs of ", inputs_.size());
    check(0 <= rows && rows <= program.plan().max_rows, "[passes] ", rows, " rows");
    bool clean = true;
    {
      const py::gil_scoped_release release;  // native memory, and tensors that the caller holds
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const Input& input = inputs_[i];
        const bool good = input.copy(pointer(inputs[i]), program.address(input.buffer), rows * input.row_size,
                                     input.low, input.high);
        clean &= good || !input.checked;
      }
      if (clean) {
        run_section(program, rows, 0, middle_, seed, forward_choice_);
        copy_real(program, output_, rows, pointer(output), false);
      }
    }
    if (clean && counts)
      for (py::array& counter : batch_counters_) *static_cast<int64*>(counter.mutable_data()) += 1;
    return clean;
  }

  void copy_real(const Program& program, int index, int64 rows, std::byte* outside, bool in) const {
    const int64 size = program.plan().buffers[static_cast<std::size_t>(index)].size.at(rows);
    const auto n_bytes = static_cast<std::size_t>(size) * real_bytes(program.plan().real);
    if (in)
      std::memcpy(program.address(index), outside, n_bytes);
    else
      std::memcpy(outside, program.address(index), n_bytes);
  }

  // Only sections of equal size may be compared.
  struct Choice {
    TeamChoice choice;
    int64 rows = -1;
  };

  void run_section(Program& program, int64 rows, int64 begin, int64 end, std::uint64_t seed, Choice& choice) {
    StepContext ctx;
    ctx.seed = seed;
    program.set_params(ctx, params_.data());
    if (rows < team_rows_) return program.run(alone_, rows, begin, end, ctx);
    if (choice.rows != rows) choice = {TeamChoice(), rows};
    run_on_team(program, team_, rows, begin, end, ctx, adaptive_ ? &choice.choice : nullptr);
  }

  // Writes gradients into the flat buffer, and those by inputs to their addresses. What lay in the flat
  // buffer is kept in `before`, if there is one, and then added there, or the two change places.
  void go_back(Program& program, int64 rows, std::uint64_t seed, Address doutput,
               const std::vector<Address>& dinputs, std::byte* before, bool add) {
    const Memory& memory = program.memory();
    const Memory::Lease lease(program.memory());
    check(doutput_ >= 0 && dinputs.size() == dinputs_.size(), "[passes] no such backward pass");
    memory.to_host();
    std::byte* flat = memory.space(Space::kGradient);
    const std::size_t n_bytes = gradient_bytes(memory);
    const py::gil_scoped_release release;  // native memory, and tensors that the caller holds
    if (before != nullptr) std::memcpy(before, flat, n_bytes);
    copy_real(program, doutput_, rows, pointer(doutput), true);
    run_section(program, rows, middle_, n_steps(), seed, backward_choice_);
    for (std::size_t i = 0; i < dinputs_.size(); ++i)
      copy_real(program, dinputs_[i], rows, pointer(dinputs[i]), false);
    if (before == nullptr) return;
    if (!add) return void(std::swap_ranges(before, before + n_bytes, flat));
    if (memory.real() == Real::kFloat32)
      add_gradients<float>(before, flat);
    else
      add_gradients<double>(before, flat);
  }

  // Only those that this pass has written: others stay as they are.
  template <class real>
  void add_gradients(const std::byte* before, std::byte* flat) const {
    const auto* from = reinterpret_cast<const real*>(before);
    auto* to = reinterpret_cast<real*>(flat);
    for (const auto& [offset, shape] : gradients_)
      for (int64 i = offset, end = offset + size_of(shape); i < end; ++i) to[i] += from[i];
  }

  static int64 size_of(const std::vector<int64>& shape) {
    int64 size = 1;
    for (const int64 d : shape) size *= d;
    return size;
  }

  py::tuple tensors(std::byte* flat, const Keeper& keeper) const {
    py::tuple found(gradients_.size());
    const Real real = first_->plan().real;
    for (std::size_t i = 0; i < gradients_.size(); ++i) {
      const auto& [offset, shape] = gradients_[i];
      std::byte* at = flat + static_cast<std::size_t>(offset) * real_bytes(real);
      found[i] = maker_.make(at, real, shape, keeper);
    }
    return found;
  }

  py::object program_object_;
  const Program* first_;  // never run: its plan and memory are what others are made from
  py::object team_object_;
  ThreadTeam& team_;
  ThreadTeam alone_{1};
  std::vector<Input> inputs_;
  std::vector<double> params_;
  int64 middle_;  // the step that backward begins with
  int output_, doutput_;
  std::vector<int> dinputs_;
  std::vector<GradientTuple> gradients_;
  bool adaptive_;
  int64 team_rows_;  // below, one thread does it
  std::vector<py::array> batch_counters_;
  TensorMaker maker_;
  std::unique_ptr<AlignedBlock> before_;        // the gradients that others are added to
  std::vector<std::unique_ptr<Program>> free_;  // touched with the GIL held only
  Choice forward_choice_, backward_choice_;
};

void Pass::close() {
  if (program_ != nullptr) owner_->give_back(std::move(program_));
}

py::tuple Pass::backward(Address doutput, const std::vector<Address>& dinputs, bool apart) {
  check(is_open(), "[passes] this pass was gone back from");
  py::tuple found = owner_->backward(*program_, rows_, seed_, doutput, dinputs, apart);
  close();
  return found;
}

void Pass::accumulate(Address doutput, const std::vector<Address>& dinputs, bool add) {
  check(is_open(), "[passes] this pass was gone back from");
  owner_->accumulate(*program_, rows_, seed_, doutput, dinputs, add);
  close();
}

}  // namespace

void register_passes(py::module_& m) {
  py::class_<Pass>(m, "Pass", "A forward pass that waits for its gradients.")
      .def_property_readonly("is_open", &Pass::is_open, "Whether its gradients were not taken yet.")
      .def("backward", &Pass::backward, py::arg("doutput"), py::arg("dinputs"), py::arg("apart") = false,
           "From the gradient by the output at an address: writes those by the inputs to theirs, and gives "
           "those by the parameters, a tensor each: views of the flat buffer where nobody holds others, and "
           "not if they are to lie apart. Serves once.")
      .def("accumulate", &Pass::accumulate, py::arg("doutput"), py::arg("dinputs"), py::arg("add"),
           "The same, leaving the parameters' gradients in the flat buffer, added to those that lie there or "
           "in their place. Serves once.");
  py::class_<Passes, std::shared_ptr<Passes>>(m, "Passes",
                                              "Forward passes that may wait for their gradients.")
      .def(py::init<py::object, py::object, const std::vector<InputTuple>&, std::vector<double>, int64, int,
                    int, std::vector<int>, std::vector<GradientTuple>, bool, int64, std::vector<py::array>,
                    const py::object&>(),
           py::arg("program"), py::arg("team"), py::kw_only(), py::arg("inputs"), py::arg("params"),
           py::arg("middle"), py::arg("output"), py::arg("doutput"), py::arg("dinputs"), py::arg("gradients"),
           py::arg("adaptive"), py::arg("team_rows"), py::arg("batch_counters"),
           py::arg("tensor_type") = py::none())
      .def_property_readonly("arenas", &Passes::arenas, "How many wait for their next pass.")
      .def("run", &Passes::run, py::arg("rows"), py::arg("inputs"), py::arg("output"), py::arg("seed"),
           "Forward alone, from and to these addresses; False if an id is out of range.")
      .def("start", &Passes::start, py::arg("rows"), py::arg("inputs"), py::arg("output"), py::arg("seed"),
           py::arg("again") = false,
           "Forward, and what backward needs is kept; None if an id is out of range.");
}

}  // namespace hotloop
