#include "crc32c_fold.h"

#include "crc32c.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace iscsi_nbd {

#if defined(__x86_64__)

namespace {

#define FOLDING __attribute__((target("avx2,vpclmulqdq,pclmul,sse4.2")))

// x to the power of `exponent`, modulo the polynomial. A product of two reversed numbers comes out
// one bit too low, which the shift makes up for.
constexpr uint64_t PowerOfX(uint32_t exponent) {
  uint32_t power = 0x80000000;
  for (uint32_t at = 0; at < exponent; at += 1) {
    power = (power & 1) != 0 ? (power >> 1) ^ kCrc32cPolynomial : power >> 1;
  }
  return uint64_t{power} << 1;
}

// What moves 16 bytes over `bytes` of zeros: a factor for the first eight, which stand 64 bits
// higher, and one for the others. A factor lies in the lower half of 64 bits, where, reversed, it
// is x^32 times itself; so both exponents are less by that.
struct Factors {
  uint64_t first, second;
};

constexpr Factors Moving(uint32_t bytes) {
  return {PowerOfX(bytes * 8 + 32), PowerOfX(bytes * 8 - 32)};
}

// So many sums at once, because a multiplication takes several cycles and one can begin each.
constexpr size_t kAbreast = 8;

constexpr Factors kByAll = Moving(kAbreast * kFoldBytes);
constexpr Factors kByOne = Moving(kFoldBytes);
constexpr Factors kBy16 = Moving(16);

FOLDING inline __m256i Pair(Factors low, Factors high) {
  return _mm256_set_epi64x(static_cast<int64_t>(high.second), static_cast<int64_t>(high.first),
                           static_cast<int64_t>(low.second), static_cast<int64_t>(low.first));
}

FOLDING inline __m256i Load(const uint8_t* data) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
}

// `sum`, moved by what the factors say, and `next` with it.
FOLDING inline __m256i Fold(__m256i sum, __m256i factors, __m256i next) {
  const __m256i first = _mm256_clmulepi64_epi128(sum, factors, 0x00);
  const __m256i second = _mm256_clmulepi64_epi128(sum, factors, 0x11);
  return _mm256_xor_si256(_mm256_xor_si256(first, second), next);
}

// The first 16 bytes moved to the others, then all through the register.
FOLDING inline uint32_t Finish(__m256i sum) {
  const __m256i moved = Fold(sum, Pair(kBy16, Factors{0, 0}), _mm256_setzero_si256());
  const __m128i last =
      _mm_xor_si128(_mm256_castsi256_si128(moved), _mm256_extracti128_si256(sum, 1));
  const auto first = static_cast<uint64_t>(_mm_extract_epi64(last, 0));
  const auto second = static_cast<uint64_t>(_mm_extract_epi64(last, 1));
  return static_cast<uint32_t>(_mm_crc32_u64(_mm_crc32_u64(0, first), second));
}

}  // namespace

bool CanFold() {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("vpclmulqdq") != 0 &&
         __builtin_cpu_supports("sse4.2") != 0;
}

FOLDING uint32_t UpdateByFolding(uint32_t crc, const uint8_t* data, size_t length) {
  __m256i sums[kAbreast];
#pragma GCC unroll 8
  for (size_t at = 0; at < kAbreast; at += 1) sums[at] = Load(data + at * kFoldBytes);
  const __m128i before = _mm_cvtsi32_si128(static_cast<int>(crc));
  sums[0] = _mm256_xor_si256(sums[0], _mm256_inserti128_si256(_mm256_setzero_si256(), before, 0));
  size_t done = kAbreast * kFoldBytes;

  const __m256i by_all = Pair(kByAll, kByAll);
  for (; done + kAbreast * kFoldBytes <= length; done += kAbreast * kFoldBytes) {
#pragma GCC unroll 8
    for (size_t at = 0; at < kAbreast; at += 1) {
      sums[at] = Fold(sums[at], by_all, Load(data + done + at * kFoldBytes));
    }
  }
  const __m256i by_step = Pair(kByOne, kByOne);
  __m256i sum = sums[0];
#pragma GCC unroll 8
  for (size_t at = 1; at < kAbreast; at += 1) sum = Fold(sum, by_step, sums[at]);
  for (; done + kFoldBytes <= length; done += kFoldBytes) {
    sum = Fold(sum, by_step, Load(data + done));
  }
  return Finish(sum);
}

namespace {

#define WIDE_FOLDING __attribute__((target("avx512f,vpclmulqdq,sse4.2")))

constexpr size_t kWideBytes = sizeof(__m512i);
// No more registers than narrower code has: using those above is what changes of process pay for.
constexpr size_t kWideAbreast = kWideFoldBytes / kWideBytes;

constexpr Factors kByWideAll = Moving(kWideFoldBytes);
constexpr Factors kByWideOne = Moving(kWideBytes);

WIDE_FOLDING inline __m512i FourOf(Factors factors) {
  const auto first = static_cast<int64_t>(factors.first);
  const auto second = static_cast<int64_t>(factors.second);
  return _mm512_set4_epi64(second, first, second, first);
}

WIDE_FOLDING inline __m512i LoadWide(const uint8_t* data) { return _mm512_loadu_si512(data); }

WIDE_FOLDING inline __m512i FoldWide(__m512i sum, __m512i factors, __m512i next) {
  const __m512i first = _mm512_clmulepi64_epi128(sum, factors, 0x00);
  const __m512i second = _mm512_clmulepi64_epi128(sum, factors, 0x11);
  return _mm512_xor_si512(_mm512_xor_si512(first, second), next);
}

}  // namespace

bool CanFoldWide() { return CanFold() && __builtin_cpu_supports("avx512f") != 0; }

WIDE_FOLDING uint32_t UpdateByWideFolding(uint32_t crc, const uint8_t* data, size_t length) {
  __m512i sums[kWideAbreast];
#pragma GCC unroll 4
  for (size_t at = 0; at < kWideAbreast; at += 1) sums[at] = LoadWide(data + at * kWideBytes);
  const __m128i before = _mm_cvtsi32_si128(static_cast<int>(crc));
  sums[0] = _mm512_xor_si512(sums[0], _mm512_zextsi128_si512(before));

  const __m512i by_all = FourOf(kByWideAll);
  for (size_t done = kWideFoldBytes; done < length; done += kWideFoldBytes) {
#pragma GCC unroll 4
    for (size_t at = 0; at < kWideAbreast; at += 1) {
      sums[at] = FoldWide(sums[at], by_all, LoadWide(data + done + at * kWideBytes));
    }
  }
  const __m512i by_one = FourOf(kByWideOne);
  __m512i sum = sums[0];
#pragma GCC unroll 4
  for (size_t at = 1; at < kWideAbreast; at += 1) sum = FoldWide(sum, by_one, sums[at]);
  uint64_t words[kWideBytes / sizeof(uint64_t)];
  _mm512_storeu_si512(words, sum);
  uint64_t rest = 0;
  for (const uint64_t word : words) rest = _mm_crc32_u64(rest, word);
  return static_cast<uint32_t>(rest);
}

#else

bool CanFold() { return false; }
uint32_t UpdateByFolding(uint32_t crc, const uint8_t*, size_t) { return crc; }
bool CanFoldWide() { return false; }
uint32_t UpdateByWideFolding(uint32_t crc, const uint8_t*, size_t) { return crc; }

#endif

}  // namespace iscsi_nbd
