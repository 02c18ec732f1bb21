// The kernel's NBD control interface over generic netlink, and the descriptors a device needs.
// Plain C++: every call may block in the kernel, so none belongs on the event loop's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace iscsi_nbd {

// Owns one descriptor.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() { Reset(); }
  Fd(Fd&& other) noexcept : fd_(other.Release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = other.Release();
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;

  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset();

 private:
  int fd_;
};

// A failed system call or netlink command: its errno and what was asked.
class SystemError : public std::runtime_error {
 public:
  SystemError(int error, const std::string& operation);
  int error() const { return error_; }
  const std::string& operation() const { return operation_; }

 private:
  int error_;
  std::string operation_;
};

// Symbolic name of an errno, e.g. "EBUSY".
std::string ErrnoName(int error);

struct NbdConnectRequest {
  std::optional<uint32_t> index;  // the kernel chooses one when absent
  uint64_t size_bytes = 0;
  uint64_t block_size_bytes = 0;
  uint64_t server_flags = 0;
  uint64_t client_flags = 0;
  uint64_t dead_conn_timeout_seconds = 0;
  std::string identifier;
  int socket_fd = -1;
};

struct NbdReconfigureRequest {
  uint32_t index = 0;
  std::string identifier;
  std::optional<uint64_t> size_bytes;
  std::optional<uint64_t> dead_conn_timeout_seconds;
  std::optional<int> socket_fd;
};

struct NbdStatus {
  uint32_t index = 0;
  bool connected = false;
};

struct NbdFamily {
  uint16_t id = 0;
};

// All throw SystemError.
NbdFamily NbdResolveFamily();
uint32_t NbdConnect(const NbdConnectRequest& request);
void NbdReconfigure(const NbdReconfigureRequest& request);
void NbdDisconnect(uint32_t index);
std::vector<NbdStatus> NbdGetStatus(std::optional<uint32_t> index);

// A stream pair for one device: ours (non-blocking) and the kernel's, both close-on-exec.
std::pair<Fd, Fd> NbdSocketPair();
// Asks for `bytes` of send and receive buffer; returns the send buffer in force.
int SetSocketBuffers(int fd, int bytes);
// Whether the other end is gone and nothing is left to read; consumes nothing.
bool IsAtEnd(int fd);

// Opens a block device for itself alone; EBUSY while it is mounted or held.
Fd OpenExclusive(const std::string& path);
// Writes all cached data of an open block device, and its write cache.
void SyncDevice(int fd);
// Lets the kernel refuse writes, or allow them again. Opens the device.
void SetReadOnly(const std::string& path, bool read_only);
// One write(2) of the whole text, as sysfs attributes want it.
void WriteAttribute(const std::string& path, const std::string& text);
// A block device node, mode 0660; nothing happens when the path exists.
void MakeBlockNode(const std::string& path, uint32_t major_number, uint32_t minor_number);

// For the calling thread and those it starts: memory reclaim never waits for its own block I/O.
void SetIoFlusher();

}  // namespace iscsi_nbd
