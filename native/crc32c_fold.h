// CRC32C by carry-less multiplication, 32 bytes at once (AVX2, VPCLMULQDQ): data is reduced to 16
// bytes with the same remainder, which the CRC instruction then finishes. 32 and not 64, because
// that is as fast and leaves the wide registers alone, which each change of process has to save.
#pragma once

#include <cstddef>
#include <cstdint>

namespace iscsi_nbd {

// Bytes are taken by so many, and fewer than the second are not worth its beginning and end.
constexpr size_t kFoldBytes = 32;
constexpr size_t kFoldBytesMin = 512;

bool CanFold();

// What `data`, a multiple of kFoldBytes and at least kFoldBytesMin, does to the register. Only
// where CanFold.
uint32_t UpdateByFolding(uint32_t crc, const uint8_t* data, size_t length);

}  // namespace iscsi_nbd
