// Big-endian numbers in buffers, and CRC32C.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t get32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint64_t get64(const uint8_t *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }
static inline void put16(uint8_t *p, uint16_t v) {
  p[0] = v >> 8;
  p[1] = v & 0xff;
}
static inline void put32(uint8_t *p, uint32_t v) {
  put16(p, v >> 16);
  put16(p + 2, v & 0xffff);
}
static inline void put64(uint8_t *p, uint64_t v) {
  put32(p, v >> 32);
  put32(p + 4, v & 0xffffffff);
}

// CRC32C; crc32c.cc takes it from the addon's sources.
uint32_t crc32c(const uint8_t *bytes, size_t length);
