// Memory in a file that other processes map too, and that outlives this one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace iscsi_nbd {

// Each throws SystemError. The caller keeps owning `fd`.

// Has the file system keep room for `length` bytes from `offset` on: bytes of a mapping without
// room are a SIGBUS if they are touched.
void ReserveRange(int fd, uint64_t offset, uint64_t length);

// Gives the room of the range back; its bytes read as zeros then. The file keeps its length.
void PunchRange(int fd, uint64_t offset, uint64_t length);

// False if another process holds the lock of the file; a shared lock excludes exclusive ones only.
// It is held until `fd` is closed, at the latest by the end of the process.
bool TryLock(int fd, bool is_exclusive);

// The bytes of the file, none of which is in a core file. They stay mapped when `fd` is closed.
void* MapRange(int fd, uint64_t offset, size_t length, bool writable);
void UnmapRange(void* memory, size_t length);

// Touches every page of a mapping that can be written, so that later writes do not fault. A system
// that cannot do that leaves it to the writes.
void TouchRange(void* memory, size_t length);

}  // namespace iscsi_nbd
