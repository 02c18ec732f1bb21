// CRC32C by carry-less multiplication (VPCLMULQDQ), 32 bytes at once with AVX2 or 64 with AVX-512:
// data is reduced to so few bytes with the same remainder that the CRC instruction can finish them.
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

// The same by 64 bytes, where CanFoldWide; `length` is a multiple of kWideFoldBytes and not 0.
constexpr size_t kWideFoldBytes = 256;

bool CanFoldWide();
uint32_t UpdateByWideFolding(uint32_t crc, const uint8_t* data, size_t length);

}  // namespace iscsi_nbd
