#include "crc32c.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "crc32c_fold.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace iscsi_nbd {
namespace {

using Table = std::array<uint32_t, 256>;

// kTables[n][b]: what byte b does to the register when n more bytes follow it.
constexpr std::array<Table, 8> MakeTables() {
  std::array<Table, 8> tables{};
  for (uint32_t byte = 0; byte < 256; byte += 1) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit += 1) {
      crc = (crc & 1) != 0 ? (crc >> 1) ^ kCrc32cPolynomial : crc >> 1;
    }
    tables[0][byte] = crc;
  }
  for (size_t n = 1; n < 8; n += 1) {
    for (size_t byte = 0; byte < 256; byte += 1) {
      const uint32_t before = tables[n - 1][byte];
      tables[n][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr std::array<Table, 8> kTables = MakeTables();

uint32_t UpdateByTable(uint32_t crc, const uint8_t* data, size_t length) {
  for (; length >= 8; length -= 8, data += 8) {
    crc ^= uint32_t{data[0]} | uint32_t{data[1]} << 8 | uint32_t{data[2]} << 16 |
           uint32_t{data[3]} << 24;
    crc = kTables[7][crc & 0xff] ^ kTables[6][(crc >> 8) & 0xff] ^
          kTables[5][(crc >> 16) & 0xff] ^ kTables[4][crc >> 24] ^ kTables[3][data[4]] ^
          kTables[2][data[5]] ^ kTables[1][data[6]] ^ kTables[0][data[7]];
  }
  for (; length > 0; length -= 1, data += 1) crc = (crc >> 8) ^ kTables[0][(crc ^ *data) & 0xff];
  return crc;
}

#if defined(__x86_64__)

// The instruction takes three cycles but one can begin each cycle, so three stretches of equal
// length are done at once and joined. Three times 1360 bytes is a 4 KiB block but for 16 bytes.
constexpr size_t kStretchBytes = 1360;
constexpr size_t kShortStretchBytes = 168;

// What `count` zero bytes do to the register: linear, so a table for each of its four bytes.
std::array<Table, 4> MakeShift(size_t count) {
  const std::array<uint8_t, 64> zeros{};
  std::array<uint32_t, 32> of_bit{};
  for (uint32_t bit = 0; bit < 32; bit += 1) {
    uint32_t crc = uint32_t{1} << bit;
    for (size_t left = count; left > 0;) {
      const size_t part = left < zeros.size() ? left : zeros.size();
      crc = UpdateByTable(crc, zeros.data(), part);
      left -= part;
    }
    of_bit[bit] = crc;
  }
  std::array<Table, 4> shift{};
  for (uint32_t byte = 0; byte < 4; byte += 1) {
    for (uint32_t value = 0; value < 256; value += 1) {
      for (uint32_t bit = 0; bit < 8; bit += 1) {
        if ((value >> bit & 1) != 0) shift[byte][value] ^= of_bit[byte * 8 + bit];
      }
    }
  }
  return shift;
}

uint32_t Shifted(const std::array<Table, 4>& shift, uint32_t crc) {
  return shift[0][crc & 0xff] ^ shift[1][(crc >> 8) & 0xff] ^ shift[2][(crc >> 16) & 0xff] ^
         shift[3][crc >> 24];
}

uint64_t Word(const uint8_t* data) {
  uint64_t word;
  memcpy(&word, data, sizeof(word));
  return word;
}

template <size_t kStretch>
__attribute__((target("sse4.2"))) uint32_t UpdateTriple(const std::array<Table, 4>& shift,
                                                        uint32_t crc, const uint8_t* data) {
  uint64_t first = crc, second = 0, third = 0;
  for (size_t at = 0; at < kStretch; at += 8) {
    first = _mm_crc32_u64(first, Word(data + at));
    second = _mm_crc32_u64(second, Word(data + kStretch + at));
    third = _mm_crc32_u64(third, Word(data + 2 * kStretch + at));
  }
  const uint32_t joined = Shifted(shift, static_cast<uint32_t>(first)) ^
                          static_cast<uint32_t>(second);
  return Shifted(shift, joined) ^ static_cast<uint32_t>(third);
}

__attribute__((target("sse4.2"))) uint32_t UpdateByInstruction(uint32_t crc, const uint8_t* data,
                                                               size_t length) {
  static const std::array<Table, 4> shift = MakeShift(kStretchBytes);
  static const std::array<Table, 4> short_shift = MakeShift(kShortStretchBytes);
  for (; length >= 3 * kStretchBytes; length -= 3 * kStretchBytes, data += 3 * kStretchBytes) {
    crc = UpdateTriple<kStretchBytes>(shift, crc, data);
  }
  for (; length >= 3 * kShortStretchBytes;
       length -= 3 * kShortStretchBytes, data += 3 * kShortStretchBytes) {
    crc = UpdateTriple<kShortStretchBytes>(short_shift, crc, data);
  }
  for (; length >= 8; length -= 8, data += 8) {
    crc = static_cast<uint32_t>(_mm_crc32_u64(crc, Word(data)));
  }
  for (; length > 0; length -= 1, data += 1) crc = _mm_crc32_u8(crc, *data);
  return crc;
}

#endif

Crc32cWay BestWay() {
#if defined(__x86_64__)
  if (CanFoldWide()) return Crc32cWay::kWideFolding;
  if (CanFold()) return Crc32cWay::kFolding;
  if (__builtin_cpu_supports("sse4.2") != 0) return Crc32cWay::kInstruction;
#endif
  return Crc32cWay::kTable;
}

}  // namespace

uint32_t Crc32cBy(Crc32cWay wanted, uint32_t seed, const uint8_t* data, size_t length) {
  static const Crc32cWay best = BestWay();
  [[maybe_unused]] const Crc32cWay way = std::min(wanted, best);
  uint32_t crc = ~seed;
#if defined(__x86_64__)
  if (way >= Crc32cWay::kFolding && length >= kFoldBytesMin) {
    const bool is_wide = way == Crc32cWay::kWideFolding;
    const size_t folded = length - length % (is_wide ? kWideFoldBytes : kFoldBytes);
    crc = (is_wide ? UpdateByWideFolding : UpdateByFolding)(crc, data, folded);
    data += folded;
    length -= folded;
  }
  if (way != Crc32cWay::kTable) return ~UpdateByInstruction(crc, data, length);
#endif
  return ~UpdateByTable(crc, data, length);
}

uint32_t Crc32c(uint32_t seed, const uint8_t* data, size_t length) {
  return Crc32cBy(Crc32cWay::kWideFolding, seed, data, length);
}

}  // namespace iscsi_nbd
