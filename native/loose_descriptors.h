// Descriptors that JavaScript holds as numbers, so that none outlives its environment.
#pragma once

#include <unistd.h>

#include <unordered_set>

namespace iscsi_nbd {

// A worker that dies runs nothing of its own any more. What it held as a number is closed with it,
// as the end of a process would: an end of a device's link that stayed open would hide from the
// kernel that the device is not served.
class LooseDescriptors {
 public:
  LooseDescriptors() = default;
  ~LooseDescriptors() {
    for (const int fd : held_) close(fd);
  }
  LooseDescriptors(const LooseDescriptors&) = delete;
  LooseDescriptors& operator=(const LooseDescriptors&) = delete;

  // Returns `fd`; an error number is passed on.
  int Hold(int fd) {
    if (fd >= 0) held_.insert(fd);
    return fd;
  }
  // It has another owner from now on.
  void LetGo(int fd) { held_.erase(fd); }

 private:
  std::unordered_set<int> held_;
};

}  // namespace iscsi_nbd
