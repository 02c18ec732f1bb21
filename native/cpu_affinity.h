// Which processors this process may run on.
#pragma once

#include <cstdint>
#include <vector>

namespace iscsi_nbd {

// A set names fewer processors than this; Linux itself is built for at most 8192.
constexpr uint32_t kProcessorsMax = 8192;

// For every thread there is now; those to come inherit it from the one that starts them. Throws
// SystemError (EINVAL: none of them is there).
void SetCpuAffinity(const std::vector<uint32_t>& processors);

// The same for the calling thread, and those that it starts from now on.
void SetThreadAffinity(const std::vector<uint32_t>& processors);

}  // namespace iscsi_nbd
