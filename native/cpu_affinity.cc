#include "cpu_affinity.h"

#include <dirent.h>
#include <sched.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "nbd_netlink.h"

namespace iscsi_nbd {

void SetCpuAffinity(const std::vector<uint32_t>& processors) {
  const size_t bytes = CPU_ALLOC_SIZE(kProcessorsMax);
  std::vector<uint8_t> memory(bytes, 0);
  auto* set = reinterpret_cast<cpu_set_t*>(memory.data());
  for (const uint32_t processor : processors) CPU_SET_S(processor, bytes, set);
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(opendir("/proc/self/task"), closedir);
  if (tasks == nullptr) throw SystemError(errno, "opendir /proc/self/task");
  // The calling thread first, so that what it starts meanwhile is right already.
  if (sched_setaffinity(0, bytes, set) != 0) throw SystemError(errno, "sched_setaffinity");
  while (const dirent* entry = readdir(tasks.get())) {
    const int task = std::atoi(entry->d_name);
    if (task <= 0) continue;
    // A thread may have ended since it was listed.
    if (sched_setaffinity(task, bytes, set) != 0 && errno != ESRCH) {
      throw SystemError(errno, "sched_setaffinity");
    }
  }
}

}  // namespace iscsi_nbd
