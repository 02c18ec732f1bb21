// Addresses of the slabs (src/base/slab.ts) by index, so that a table of numbers can be sent.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace iscsi_nbd {

struct Slab {
  uint8_t* data = nullptr;
  size_t length = 0;
};

class SlabTable {
 public:
  void Set(size_t index, Slab slab) {
    if (index >= slabs_.size()) slabs_.resize(index + 1);
    slabs_[index] = slab;
  }
  // Gives the pages that lie wholly inside a slab to the system; touched again, they are zeros.
  void Drop(int32_t index) const {
    if (index < 0 || static_cast<size_t>(index) >= slabs_.size()) return;
    const Slab& slab = slabs_[static_cast<size_t>(index)];
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto start = reinterpret_cast<uintptr_t>(slab.data);
    const uintptr_t first = (start + page - 1) / page * page;
    const uintptr_t end = (start + slab.length) / page * page;
    if (end > first) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
  }
  // Address of `length` bytes at `offset` of slab `index`; nullptr when that is not inside one.
  uint8_t* At(int32_t index, int32_t offset, int32_t length) const {
    if (index < 0 || offset < 0 || length < 0) return nullptr;
    const size_t slot = static_cast<size_t>(index);
    if (slot >= slabs_.size()) return nullptr;
    const Slab& slab = slabs_[slot];
    const size_t end = static_cast<size_t>(offset) + static_cast<size_t>(length);
    if (slab.data == nullptr || end > slab.length) return nullptr;
    return slab.data + offset;
  }

 private:
  std::vector<Slab> slabs_;
};

}  // namespace iscsi_nbd
