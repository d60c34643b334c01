// SPDX-License-Identifier: Apache-2.0
// One step of an optimiser over hundreds of tensors in one call: what torch's loop over them costs in Python
// and dispatch is most of the time of a small model's step. All tensors are looked at before one changes;
// what is not plain goes back to Python by its number, and nothing has happened.
#include <algorithm>
#include <cmath>
#include <new>
#include <utility>
#include <vector>

#include "bindings/operand.h"
#include "cpu/fp_mode.h"
#include "kernels/isa.h"
#include "runtime/team_calls.h"

namespace hotloop {
namespace {

// A thread's share of the work, and below how much of it another thread is not worth waking: some 40 us.
constexpr int64 kTaskElements = kElementwiseChunk;
constexpr int64 kAloneElements = 160'000;

// What the tensors of one group share. `kind` is 0 for SGD, 1 for Adam, 2 for AdamW.
struct Rule {
  int kind = 0;
  double lr = 0, weight_decay = 0, beta1 = 0, beta2 = 0, eps = 0;  // of SGD, beta1 is the momentum
  double dampening = 0;
  bool nesterov = false, maximize = false;
};

// One tensor, ready for its kernel.
struct Item {
  Item() {}  // all is written by `add`; zeros first would take half of its time
  alignas(8) std::byte args[kMaxArgsBytes];
  double scalars[8];
  const KernelFn* fn;
  int64 chunks, size;
};

// The four arrays of an update; `second` is missing for SGD, and `first` too without momentum.
struct Arrays {
  Operand param = {}, grad = {}, first = {}, second = {};
  bool has_first = false, has_second = false;

  bool plain() const {
    const bool fits = param.is_real() && param.writeable && param.is_dense() && grad.same_layout(param);
    return fits && (!has_first || (first.writeable && first.same_layout(param))) &&
           (!has_second || (second.writeable && second.same_layout(param)));
  }
};

template <class real>
void bind(Item& item, const Rule& rule, const Arrays& x, Kernel kernel) {
  if (kernel == Kernel::k_adam) {
    auto& args = *new (item.args) AdamArgs<real>;
    args.param = static_cast<real*>(x.param.data);
    args.exp_avg = static_cast<real*>(x.first.data);
    args.exp_avg_sq = static_cast<real*>(x.second.data);
    args.grad = static_cast<const real*>(x.grad.data);
    args.scalars = item.scalars;
    args.n = x.param.size;
    args.decoupled = rule.kind == 2 ? 1 : 0;
    args.beta1 = rule.beta1;
    args.beta2 = rule.beta2;
    args.eps = rule.eps;
  } else {
    auto& args = *new (item.args) SgdArgs<real>;
    args.param = static_cast<real*>(x.param.data);
    args.momentum_buffer = x.has_first ? static_cast<real*>(x.first.data) : nullptr;
    args.grad = static_cast<const real*>(x.grad.data);
    args.scalars = item.scalars;
    args.n = x.param.size;
    args.nesterov = rule.nesterov ? 1 : 0;
    args.momentum = rule.beta1;
  }
}

// The tensors of one call, `most` at most: arguments point into them, so that they may not move.
class Updates {
 public:
  explicit Updates(std::size_t most) { items_.reserve(most); }

  // `step` counts from 1; `begins`: the momentum buffer is fresh, and takes the whole first gradient.
  void add(const Rule& rule, const Arrays& x, double step, bool begins) {
    Item& item = items_.emplace_back();
    const bool adam = rule.kind != 0;
    const double own = adam || begins || !x.has_first ? 1.0 : 1.0 - rule.dampening;
    if (adam && (step != step_ || rule.beta1 != beta1_ || rule.beta2 != beta2_)) {
      step_ = step, beta1_ = rule.beta1, beta2_ = rule.beta2;
      correction1_ = 1.0 - std::pow(rule.beta1, step);
      correction2_ = std::sqrt(1.0 - std::pow(rule.beta2, step));
    }
    // The order of optimizer_begin in args.h. Dampening scales gradient and decay alike.
    item.scalars[0] = 0.0;
    item.scalars[1] = rule.lr;
    item.scalars[2] = own * rule.weight_decay;
    item.scalars[3] = rule.maximize ? -own : own;
    item.scalars[4] = correction1_;
    item.scalars[5] = correction2_;
    item.scalars[6] = step;
    item.scalars[7] = 0.0;
    const Kernel kernel = adam ? Kernel::k_adam : Kernel::k_sgd;
    const bool is_double = x.param.is_double();
    item.fn = found(kernel, is_double);
    item.size = x.param.size;
    (is_double ? bind<double> : bind<float>)(item, rule, x, kernel);
    item.chunks = item.fn->chunks(item.args);
    size_ += item.size;
  }

  // Needs no GIL. Chunks are a tensor's own, so that its bits depend on nothing but itself.
  void run(ThreadTeam* team) {
    const StepContext ctx{};
    const FlushDenormals flush;
    const auto alone = [&] {
      for (const Item& item : items_) item.fn->run_all(item.args, ctx);
    };
    if (team == nullptr || team->threads() == 1 || size_ < kAloneElements) return alone();
    struct Piece {
      const Item* item;
      int64 chunk;
    };
    std::vector<Piece> pieces;
    std::vector<std::size_t> begins = {0};  // of the tasks: so many pieces as make a worthwhile one
    int64 gathered = 0;
    for (const Item& item : items_) {
      for (int64 chunk = 0; chunk < item.chunks; ++chunk) {
        pieces.push_back({&item, chunk});
        gathered += ceil_div(item.size, item.chunks);
        if (gathered < kTaskElements) continue;
        begins.push_back(pieces.size());
        gathered = 0;
      }
    }
    if (begins.back() != pieces.size()) begins.push_back(pieces.size());
    const auto work = [&](int64 task) {
      const auto at = static_cast<std::size_t>(task);
      for (std::size_t i = begins[at]; i < begins[at + 1]; ++i)
        pieces[i].item->fn->run(pieces[i].item->args, ctx, pieces[i].chunk);
    };
    TeamCalls::here().run(team, fn_, size_, static_cast<int64>(begins.size()) - 1, work, alone);
  }

 private:
  // Looked up once: which unit is in use may be said by the environment, which is slow to ask.
  const KernelFn* found(Kernel kernel, bool is_double) {
    if (fn_ == nullptr || kernel != kernel_ || is_double != is_double_) {
      kernel_ = kernel, is_double_ = is_double;
      fn_ = &kernel_in_use(kernel, is_double);
    }
    return fn_;
  }

  std::vector<Item> items_;
  int64 size_ = 0;
  const KernelFn* fn_ = nullptr;
  Kernel kernel_ = {};
  bool is_double_ = false;
  double step_ = 0, beta1_ = 0, beta2_ = 0, correction1_ = 1, correction2_ = 1;
};

Rule rule_of(const py::tuple& t) {
  Rule rule;
  rule.kind = t[0].cast<int>();
  rule.lr = t[1].cast<double>();
  rule.weight_decay = t[2].cast<double>();
  rule.beta1 = t[3].cast<double>();
  rule.beta2 = t[4].cast<double>();
  rule.eps = t[5].cast<double>();
  rule.dampening = t[6].cast<double>();
  rule.nesterov = t[7].cast<bool>();
  rule.maximize = t[8].cast<bool>();
  return rule;
}

// --- torch's optimisers: a parameter brings its gradient, and its state is a dictionary ---------------

struct Names {
  PyObject* grad = PyUnicode_InternFromString("grad");
  PyObject* is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* step = PyUnicode_InternFromString("step");
  PyObject* exp_avg = PyUnicode_InternFromString("exp_avg");
  PyObject* exp_avg_sq = PyUnicode_InternFromString("exp_avg_sq");
  PyObject* momentum_buffer = PyUnicode_InternFromString("momentum_buffer");
};
const Names& names() {
  static const Names all;
  return all;
}

bool entry(const py::object& state, PyObject* name, Operand& x) {
  PyObject* value = PyDict_GetItemWithError(state.ptr(), name);  // borrowed
  if (value != nullptr) return read_operand(value, x);
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  return false;
}

// Whether torch reads a tensor's numbers with their signs turned. Such are imaginary parts of conjugates,
// which have gaps, so that they are looked at anyway, unless they are a single number.
bool is_negated(py::handle tensor) {
  if (PyObject_HasAttr(tensor.ptr(), names().is_neg) == 0) return false;
  const auto found =
      py::reinterpret_steal<py::object>(PyObject_CallMethodObjArgs(tensor.ptr(), names().is_neg, nullptr));
  if (!found) throw py::error_already_set();
  return found.cast<bool>();
}

// One parameter that has a gradient; false if anything of it is not plain.
struct Found {
  Arrays arrays;
  float* step = nullptr;
};
bool look_at(const Rule& rule, py::handle param, const py::object& grad, const py::object& state,
             Found& found) {
  Arrays& x = found.arrays;
  if (!read_operand(param, x.param) || !read_operand(grad, x.grad) || !PyDict_Check(state.ptr()))
    return false;
  if (rule.kind != 0) {
    Operand step;
    if (!entry(state, names().step, step) || !entry(state, names().exp_avg, x.first) ||
        !entry(state, names().exp_avg_sq, x.second) || step.size != 1 || step.element != Element::kFloat)
      return false;
    x.has_first = x.has_second = true;
    found.step = static_cast<float*>(step.data);
  } else if (rule.beta1 != 0) {
    if (!entry(state, names().momentum_buffer, x.first)) return false;
    x.has_first = true;
  }
  return x.plain() && !(x.grad.size == 1 && is_negated(grad));
}

// groups: [(parameters, rule)]; state: parameter -> dict, as of torch.optim.Optimizer. begins: the
// parameters, as (group, number), whose momentum buffer is fresh. Gives (changed, odd): what was changed, or,
// nothing having been, the (group, number) of each parameter that is not plain.
py::tuple update_tensors(const py::list& groups, const py::object& state, ThreadTeam* team,
                         const py::object& begins) {
  py::list changed, odd;
  std::vector<py::object> held;  // gradients and states, until the kernels have run
  std::vector<float*> steps;
  std::size_t most = 0;
  for (const py::handle group : groups) most += py::len(group[py::int_(0)]);
  Updates updates(most);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const py::tuple group = groups[g];
    const py::list params = group[0];
    const Rule rule = rule_of(group[1]);
    for (std::size_t i = 0; i < params.size(); ++i) {
      const py::handle param = PyList_GET_ITEM(params.ptr(), static_cast<py::ssize_t>(i));
      py::object grad = py::reinterpret_steal<py::object>(PyObject_GetAttr(param.ptr(), names().grad));
      if (!grad) throw py::error_already_set();
      if (grad.is_none()) continue;
      py::object own = py::reinterpret_steal<py::object>(PyObject_GetItem(state.ptr(), param.ptr()));
      if (!own) throw py::error_already_set();
      Found found;
      if (!look_at(rule, param, grad, own, found)) {
        odd.append(py::make_tuple(g, i));
        continue;
      }
      const bool fresh = !begins.is_none() && begins.contains(py::make_tuple(g, i));
      if (found.step != nullptr) steps.push_back(found.step);
      updates.add(rule, found.arrays, found.step == nullptr ? 1.0 : double{*found.step} + 1.0, fresh);
      changed.append(param);
      held.push_back(std::move(grad));
      held.push_back(std::move(own));
    }
  }
  if (!odd.empty()) return py::make_tuple(py::list(), odd);
  {
    const py::gil_scoped_release release;  // `held` and the caller's lists keep the memory
    for (float* step : steps) *step += 1.0f;
    updates.run(team);
  }
  return py::make_tuple(changed, odd);
}

// --- lists of arrays -------------------------------------------------------------------------------

// Memory, from the first byte to past the last.
using Pieces = std::vector<std::pair<std::uintptr_t, std::uintptr_t>>;

// Whether no two pieces have bytes in common. Steps of one model bring the same pieces again, and sorting 256
// of them takes a fifth of an update of 100 000 parameters: those that were found apart last need no second
// look.
bool apart(const Pieces& pieces) {
  thread_local Pieces known;
  if (pieces == known) return true;
  Pieces sorted = pieces;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i].first < sorted[i - 1].second) return false;
  }
  known = pieces;
  return true;
}

// params, grads, firsts, seconds: NumPy arrays; the last two empty where the rule has no such state.
// steps: one number for all, or one for each. False, and nothing has happened, if any array is not plain.
bool update_arrays(const py::list& params, const py::list& grads, const py::list& firsts,
                   const py::list& seconds, const std::vector<double>& steps, const py::tuple& rule_tuple,
                   ThreadTeam* team) {
  const Rule rule = rule_of(rule_tuple);
  const std::size_t count = params.size();
  const auto fits = [&](const py::list& list) { return list.empty() || list.size() == count; };
  if (grads.size() != count || !fits(firsts) || !fits(seconds) ||
      (steps.size() != 1 && steps.size() != count))
    return false;
  Updates updates(count);
  Pieces memory;
  memory.reserve(4 * count);
  const auto read = [&](const py::list& list, std::size_t i, Operand* out) {
    const py::handle value = PyList_GET_ITEM(list.ptr(), static_cast<py::ssize_t>(i));
    if (!py::isinstance<py::array>(value)) return false;  // a tensor may require grad, which Python asks
    if (!read_operand(value, *out)) return false;
    if (out->size != 0) memory.emplace_back(out->begin(), out->end());
    return true;
  };
  for (std::size_t i = 0; i < count; ++i) {
    Arrays x;
    x.has_first = !firsts.empty();
    x.has_second = !seconds.empty();
    const bool known = read(params, i, &x.param) && read(grads, i, &x.grad) &&
                       (!x.has_first || read(firsts, i, &x.first)) &&
                       (!x.has_second || read(seconds, i, &x.second));
    if (!known || !x.plain()) return false;
    updates.add(rule, x, steps[steps.size() == 1 ? 0 : i], false);
  }
  if (!apart(memory)) return false;
  const py::gil_scoped_release release;  // the lists hold the arrays
  updates.run(team);
  return true;
}

}  // namespace

void register_update_many(py::module_& m) {
  m.def("introduce_type", &introduce_type, py::arg("type"),
        "Makes tensors of exactly this type readable without Python; False if it offers no way.");
  m.def("update_tensors", &update_tensors, py::arg("groups"), py::arg("state"), py::arg("team") = nullptr,
        py::arg("begins") = py::none(),
        "One step over all tensors of torch-like groups: (changed, odd); nothing changes if any is odd.");
  m.def("update_arrays", &update_arrays, py::arg("params"), py::arg("grads"), py::arg("firsts"),
        py::arg("seconds"), py::arg("steps"), py::arg("rule"), py::arg("team") = nullptr,
        "One step over a list of arrays; False, and nothing changes, if any is not plain.");
}

}  // namespace hotloop
