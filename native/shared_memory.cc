#include "shared_memory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>

#include <cerrno>

#include "nbd_netlink.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace iscsi_nbd {
namespace {

void Allocate(int fd, int mode, uint64_t offset, uint64_t length, const char* name) {
  while (fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
    // A signal undoes what was done so far.
    if (errno != EINTR) throw SystemError(errno, name);
  }
}

}  // namespace

void ReserveRange(int fd, uint64_t offset, uint64_t length) {
  Allocate(fd, FALLOC_FL_KEEP_SIZE, offset, length, "fallocate");
}

void PunchRange(int fd, uint64_t offset, uint64_t length) {
  Allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length,
           "fallocate(FALLOC_FL_PUNCH_HOLE)");
}

bool TryLock(int fd, bool is_exclusive) {
  while (flock(fd, (is_exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return false;
    if (errno != EINTR) throw SystemError(errno, "flock");
  }
  return true;
}

void* MapRange(int fd, uint64_t offset, size_t length, bool writable) {
  const int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* memory = mmap(nullptr, length, access, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (memory == MAP_FAILED) throw SystemError(errno, "mmap");
  if (madvise(memory, length, MADV_DONTDUMP) != 0) {
    const int error = errno;
    UnmapRange(memory, length);
    throw SystemError(error, "madvise(MADV_DONTDUMP)");
  }
  return memory;
}

void UnmapRange(void* memory, size_t length) { munmap(memory, length); }

void TouchRange(void* memory, size_t length) { madvise(memory, length, MADV_POPULATE_WRITE); }

}  // namespace iscsi_nbd
