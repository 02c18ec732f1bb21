// CRC32C (Castagnoli), the digest of RFC 7143 §13.1 (HeaderDigest and DataDigest).
#pragma once

#include <cstddef>
#include <cstdint>

namespace iscsi_nbd {

// 0x1edc6f41 with its bits reversed: the least significant bit is the highest power of x.
constexpr uint32_t kCrc32cPolynomial = 0x82f63b78;

// Eight bytes a step by table; the processor's CRC instruction; that after a carry-less
// multiplication of 32 or of 64 bytes at once. Each is at least as fast as the one before it.
enum class Crc32cWay : int { kTable, kInstruction, kFolding, kWideFolding };

// Continues `seed`, which is 0 to begin and the result of the bytes before otherwise.
uint32_t Crc32c(uint32_t seed, const uint8_t* data, size_t length);

// The same in that way, or the best that this processor has; for tests.
uint32_t Crc32cBy(Crc32cWay wanted, uint32_t seed, const uint8_t* data, size_t length);

}  // namespace iscsi_nbd
