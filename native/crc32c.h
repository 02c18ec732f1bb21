// CRC32C (Castagnoli), the digest of RFC 7143 §13.1 (HeaderDigest and DataDigest).
#pragma once

#include <cstddef>
#include <cstdint>

namespace iscsi_nbd {

// Continues `seed`, which is 0 to begin and the result of the bytes before otherwise.
uint32_t Crc32c(uint32_t seed, const uint8_t* data, size_t length);

// The same without the processor's instruction; for machines without it, and tests.
uint32_t Crc32cByTable(uint32_t seed, const uint8_t* data, size_t length);

}  // namespace iscsi_nbd
