// SPDX-License-Identifier: Apache-2.0
// Streams, events and graphs of the emulated device. In prompt mode a command runs when it is given; in
// deferred mode it waits until somebody has to know that it is done, as it may on a device, so that memory
// which the host reuses too early, or reads too early, shows.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "simt/emulator.h"

namespace hotloop::simt {

// Commands in the order of their launch, and for each the earlier ones that it waits for.
struct Graph {
  std::vector<Command> commands;
  std::vector<std::vector<std::size_t>> after;
};
// In the order of launch, or a random one that respects what waits for what, by the mode.
void replay(const Graph& graph);

// A stream. While it captures, commands go to the graph and nothing runs.
struct Queue : std::enable_shared_from_this<Queue> {
  bool captures = false;
  Graph graph;
  std::vector<std::size_t> tail;   // what the next captured command waits for
  std::deque<Command> pending;     // in deferred mode
  std::size_t taken = 0, run = 0;  // commands ever taken in, and run, outside captures

  // Runs what is pending until `count` commands have run since the stream was made.
  void run_until(std::size_t count);
  void finish() { run_until(taken); }
};
Queue* make_queue();
// Finishes it first.
void drop_queue(Queue* queue);
// All of all streams: what the device does before it gives memory back.
void finish_all();

// A mark in a stream.
struct Event {
  using Time = std::chrono::steady_clock::time_point;
  std::weak_ptr<Queue> queue;  // of the last record
  std::size_t mark = 0;        // commands of it that come before
  std::shared_ptr<Time> at = std::make_shared<Time>();

  void record(Queue* in);
  bool done() const;
  void finish() const;
};

}  // namespace hotloop::simt
