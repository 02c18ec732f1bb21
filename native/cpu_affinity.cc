#include "cpu_affinity.h"

#include <dirent.h>
#include <sched.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "nbd_netlink.h"

namespace iscsi_nbd {

namespace {

constexpr size_t kBytes = CPU_ALLOC_SIZE(kProcessorsMax);

std::vector<uint8_t> SetOf(const std::vector<uint32_t>& processors) {
  std::vector<uint8_t> memory(kBytes, 0);
  auto* set = reinterpret_cast<cpu_set_t*>(memory.data());
  for (const uint32_t processor : processors) CPU_SET_S(processor, kBytes, set);
  return memory;
}

int Pin(int task, const std::vector<uint8_t>& set) {
  return sched_setaffinity(task, kBytes, reinterpret_cast<const cpu_set_t*>(set.data()));
}

}  // namespace

void SetThreadAffinity(const std::vector<uint32_t>& processors) {
  if (Pin(0, SetOf(processors)) != 0) throw SystemError(errno, "sched_setaffinity");
}

void SetCpuAffinity(const std::vector<uint32_t>& processors) {
  const std::vector<uint8_t> set = SetOf(processors);
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(opendir("/proc/self/task"), closedir);
  if (tasks == nullptr) throw SystemError(errno, "opendir /proc/self/task");
  // The calling thread first, so that what it starts meanwhile is right already.
  if (Pin(0, set) != 0) throw SystemError(errno, "sched_setaffinity");
  while (const dirent* entry = readdir(tasks.get())) {
    const int task = std::atoi(entry->d_name);
    if (task <= 0) continue;
    // A thread may have ended since it was listed.
    if (Pin(task, set) != 0 && errno != ESRCH) {
      throw SystemError(errno, "sched_setaffinity");
    }
  }
}

}  // namespace iscsi_nbd
