// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 against the known answers its authors publish with Random123, and the separation of streams.
#include "core/philox.h"

#include "check.h"

namespace {

struct KnownAnswer {
  hotloop::PhiloxBlock counter;
  hotloop::PhiloxKey key;
  hotloop::PhiloxBlock result;
};

// Zeros, ones, and the digits of pi.
constexpr KnownAnswer kAnswers[] = {
    {{{0u, 0u, 0u, 0u}}, {0u, 0u}, {{0x6627E8D5u, 0xE169C58Du, 0xBC57AC4Cu, 0x9B00DBD8u}}},
    {{{0xFFFFFFFFu, 0xFFFFFFFFu, 0xFFFFFFFFu, 0xFFFFFFFFu}},
     {0xFFFFFFFFu, 0xFFFFFFFFu},
     {{0x408F276Du, 0x41C83B0Eu, 0xA20BC7C6u, 0x6D5451FDu}}},
    {{{0x243F6A88u, 0x85A308D3u, 0x13198A2Eu, 0x03707344u}},
     {0xA4093822u, 0x299F31D0u},
     {{0xD16CFE09u, 0x94FDCCEBu, 0x5001E420u, 0x24126EA1u}}},
};

bool same(const hotloop::PhiloxBlock& a, const hotloop::PhiloxBlock& b) {
  for (int i = 0; i < 4; ++i)
    if (a.word[i] != b.word[i]) return false;
  return true;
}

bool same(hotloop::PhiloxKey a, hotloop::PhiloxKey b) { return a.lo == b.lo && a.hi == b.hi; }

}  // namespace

int main() {
  for (const KnownAnswer& answer : kAnswers)
    CHECK(same(hotloop::philox(answer.counter, answer.key), answer.result));

  // A key differs as soon as seed (either half), run, index or purpose differs.
  using hotloop::Stream;
  const hotloop::PhiloxKey base = hotloop::stream_key(7, 1, 2, Stream::kDropout);
  CHECK(same(base, hotloop::stream_key(7, 1, 2, Stream::kDropout)));
  CHECK(!same(base, hotloop::stream_key(8, 1, 2, Stream::kDropout)));
  CHECK(!same(base, hotloop::stream_key(7 + (1ull << 32), 1, 2, Stream::kDropout)));
  CHECK(!same(base, hotloop::stream_key(7, 2, 1, Stream::kDropout)));
  CHECK(!same(base, hotloop::stream_key(7, 1, 3, Stream::kDropout)));
  CHECK(!same(base, hotloop::stream_key(7, 1, 2, Stream::kShuffle)));
  return test::report("philox");
}
