// SPDX-License-Identifier: Apache-2.0
// 128 bits that tell data sets apart, at the speed of memory: fit takes them of everything it trains on.
// Not cryptographic: it tells whether data is what it was, and does not hold against somebody who forges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace hotloop {

struct Fingerprint {
  std::uint64_t hi, lo;
};

// Eight lanes take every eighth word, so that many multiplications are under way at once, each as in xxHash64
// (Collet):
//   lane = rotl(lane + word * kWord, 31) * kLane
// is one-to-one in the word and in the lane, so that a single changed word always changes its lane to the
// end; and both factors are there because with one, a flipped sign would undo that of a later word. The last
// block is filled up with zeros, and the length is part of the result.
class Fingerprinter {
 public:
  static constexpr std::size_t kLanes = 8, kBlock = kLanes * sizeof(std::uint64_t);

  static Fingerprint of(const std::byte* data, std::size_t bytes) {
    Fingerprinter state;
    state.add(data, bytes);
    return state.finish();
  }

  Fingerprinter() {
    for (std::size_t i = 0; i < kLanes; ++i) lanes_[i] = mix(kLane * (i + 1));
  }

  // Whether more may be added: all pieces but the last are whole blocks.
  bool whole() const { return bytes_ % kBlock == 0; }

  void add(const std::byte* data, std::size_t bytes) {
    bytes_ += bytes;
    std::size_t at = 0;
    for (; at + kBlock <= bytes; at += kBlock) take(data + at);
    if (at < bytes) {
      std::byte last[kBlock] = {};
      std::memcpy(last, data + at, bytes - at);
      take(last);
    }
  }

  Fingerprint finish() const {
    std::uint64_t hi = mix(bytes_), lo = mix(~std::uint64_t{bytes_});
    for (const std::uint64_t lane : lanes_) {
      hi = mix(hi ^ lane);
      lo = mix(lo + rotl(lane, 32));
    }
    return {hi, lo};
  }

 private:
  // Odd; the fractions of the golden ratio's inverse and of pi's.
  static constexpr std::uint64_t kLane = 0x9E3779B97F4A7C15u, kWord = 0x243F6A8885A308D3u;

  static std::uint64_t rotl(std::uint64_t x, int bits) { return (x << bits) | (x >> (64 - bits)); }

  // MurmurHash3's finaliser (Appleby): every bit of the input reaches every bit of the output.
  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCDu;
    x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53u;
    return x ^ (x >> 33);
  }

  void take(const std::byte* block) {
    std::uint64_t words[kLanes];
    std::memcpy(words, block, kBlock);
    for (std::size_t i = 0; i < kLanes; ++i) lanes_[i] = rotl(lanes_[i] + words[i] * kWord, 31) * kLane;
  }

  std::uint64_t lanes_[kLanes];
  std::size_t bytes_ = 0;
};

}  // namespace hotloop
