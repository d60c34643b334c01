// SPDX-License-Identifier: Apache-2.0
// Running what streams and graphs hold.
#include "simt/queues.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <utility>

#include "simt/machine.h"
#include "simt/race.h"

namespace hotloop::simt {
namespace {

// Of the list and of every queue: any thread may have to finish another's, for the stream without a name or
// an event, and a command that runs then may do so in its turn. The machine does one launch at a time anyway.
std::recursive_mutex guard;
std::vector<std::shared_ptr<Queue>> queues;

// Any order in which nothing comes before what it waits for.
std::vector<std::size_t> random_order(const Graph& graph) {
  const std::size_t n = graph.commands.size();
  std::vector<std::size_t> missing(n), ready, order;
  std::vector<std::vector<std::size_t>> followers(n);
  for (std::size_t i = 0; i < n; ++i) {
    missing[i] = graph.after[i].size();
    for (const std::size_t before : graph.after[i]) followers[before].push_back(i);
    if (missing[i] == 0) ready.push_back(i);
  }
  while (!ready.empty()) {
    std::swap(ready[next_random() % ready.size()], ready.back());
    order.push_back(ready.back());
    ready.pop_back();
    for (const std::size_t i : followers[order.back()])
      if (--missing[i] == 0) ready.push_back(i);
  }
  return order;
}

// For each command which others must be done before it.
std::vector<std::vector<bool>> predecessors(const Graph& graph) {
  const std::size_t n = graph.commands.size();
  std::vector<std::vector<bool>> come_before(n, std::vector<bool>(n));
  for (std::size_t i = 0; i < n; ++i)
    for (const std::size_t j : graph.after[i]) {
      come_before[i][j] = true;
      for (std::size_t k = 0; k < j; ++k)
        if (come_before[j][k]) come_before[i][k] = true;
    }
  return come_before;
}

}  // namespace

void replay(const Graph& graph) {
  const std::size_t n = graph.commands.size();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (current_mode().order == Order::kRandom) order = random_order(graph);
  if constexpr (!race::kWatched) {
    for (const std::size_t i : order) perform(graph.commands[i]);
    return;
  }
  const auto come_before = predecessors(graph);
  std::vector<BlockRange> ran(n);
  for (std::size_t at = 0; at < n; ++at) {
    const std::size_t i = order[at];
    std::vector<BlockRange> unordered;
    for (std::size_t k = 0; k < at; ++k)
      if (!come_before[i][order[k]]) unordered.push_back(ran[order[k]]);
    ran[i] = perform(graph.commands[i], std::move(unordered));
  }
}

void Queue::run_until(std::size_t count) {
  const std::lock_guard lock(guard);
  while (run < count && !pending.empty()) {
    const Command next = std::move(pending.front());
    pending.pop_front();
    ++run;
    perform(next);
  }
}

Queue* make_queue() {
  const std::lock_guard lock(guard);
  queues.push_back(std::make_shared<Queue>());
  return queues.back().get();
}

void drop_queue(Queue* queue) {
  if (!queue) return;
  const std::lock_guard lock(guard);
  queue->finish();
  std::erase_if(queues, [&](const auto& q) { return q.get() == queue; });
}

void finish_all() {
  const std::lock_guard lock(guard);
  const auto now = queues;
  for (const auto& q : now) q->finish();
}

void submit(Queue* queue, Command command) {
  const std::lock_guard lock(guard);
  if (!queue) {
    finish_all();  // the stream without a name waits for all others
    perform(command);
  } else if (queue->captures) {
    queue->graph.commands.push_back(std::move(command));
    queue->graph.after.push_back(std::exchange(queue->tail, {queue->graph.after.size()}));
  } else {
    queue->pending.push_back(std::move(command));
    ++queue->taken;
    if (!current_mode().deferred) queue->finish();
  }
}

void Event::record(Queue* in) {
  const std::lock_guard lock(guard);
  at = std::make_shared<Time>();
  submit(in, {{}, [when = at] { *when = std::chrono::steady_clock::now(); }});
  if (!in || in->captures) return;
  queue = in->weak_from_this();
  mark = in->taken;
}

bool Event::done() const {
  const std::lock_guard lock(guard);
  const auto q = queue.lock();
  return !q || q->run >= mark;
}

void Event::finish() const {
  if (const auto q = queue.lock()) q->run_until(mark);
}

}  // namespace hotloop::simt
