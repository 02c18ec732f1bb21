// One non-blocking socket in the event loop: receives into a slab, sends a table of slab pieces.
// Syscalls only; the protocol is in TypeScript.
#pragma once

#include <uv.h>

#include <cstdint>
#include <string>

#include "busy_poll.h"
#include "slab_table.h"

namespace iscsi_nbd {

enum class PumpEvent : int32_t {
  kData = 1,      // value: bytes received at the receive window
  kEnd = 2,       // the peer has closed its direction; reported without a reader, too
  kError = 3,     // value: errno
  kWritable = 4,  // after a send that would have blocked, or a connect that is decided
  kAccepted = 5,  // value: descriptor of a new connection, owned by the receiver
};

// System calls of all pumps of a thread, and the bytes they moved.
struct PumpCounters {
  uint64_t receives = 0;
  uint64_t sends = 0;
  // Changes of what is polled for: each may cost the loop up to two calls.
  uint64_t watches = 0;
  // Waits for any of them that the event loop did not have to make.
  uint64_t waits = 0;
  uint64_t bytes_received = 0;
  uint64_t bytes_sent = 0;
};

// What the pumps of a thread share.
struct PumpThread {
  SlabTable slabs;
  PumpCounters counters;
  BusyPoll busy_poll{&counters};
  // Where JavaScript reads the clock of the receipt that is being dealt with; 0 without one.
  double* receipt_ms = nullptr;
};

class PumpListener {
 public:
  virtual ~PumpListener() = default;
  virtual void OnPumpEvent(PumpEvent event, int32_t value) = 0;
};

class SocketPump {
 public:
  // Owns `fd` from here on. `window` is three numbers the owner keeps current: slab, offset and
  // length of the memory the next receive may fill.
  SocketPump(uv_loop_t* loop, int fd, bool listening, PumpThread* thread, const int32_t* window,
             PumpListener* listener);
  ~SocketPump();
  SocketPump(const SocketPump&) = delete;
  SocketPump& operator=(const SocketPump&) = delete;

  // 0, or a negative uv error.
  int Start();
  void WatchReadable(bool on);
  void WatchWritable(bool on);
  // Sends `count` entries of the ring `table` (triples; `capacity` entries) from `first` on.
  // Returns the bytes the socket took (fewer than asked: it watches for room by itself), or -errno.
  int64_t Send(const int32_t* table, uint32_t first, uint32_t count, uint32_t capacity);
  // Receives once; false when there is nothing, or no reader wants it.
  bool TryReceive() { return IsWanted() && Receive(); }
  // The same if it is likely that there is something: the more tries were in vain, the rarer it is.
  bool TryLuck();
  bool IsWanted() const { return (wanted_ & UV_READABLE) != 0; }
  void Close();
  // As Close, but the descriptor stays open and is the caller's.
  int Release();
  bool IsClosed() const { return fd_ < 0; }
  int fd() const { return fd_; }

  // BusyPoll's: where it has this pump in its list, or -1.
  int32_t awaited_at = -1;

 private:
  struct Handle;
  static void OnPoll(uv_poll_t* poll, int status, int events);
  bool Receive();
  void AcceptAll();
  void Update();
  // Nothing more comes: told once.
  void End(PumpEvent event, int32_t value);

  uv_loop_t* loop_;
  int fd_;
  bool listening_;
  PumpThread* thread_;
  const int32_t* window_;
  PumpListener* listener_;
  Handle* handle_ = nullptr;
  int wanted_ = 0;
  int watched_ = 0;
  bool ended_ = false;
  // Tries to leave out after the next one in vain, and before the next one.
  uint8_t skips_ = 0;
  uint8_t skips_left_ = 0;
};

// Each returns a descriptor (close-on-exec, non-blocking) or -errno.
// A TCP connection is reset when its descriptor is closed, unless KeepUnsentOnClose was called.
int ConnectTcp(const char* address, uint16_t port);
int ListenUnix(const char* path, uint32_t mode);

// From now on a close ends a TCP connection in order: all that was sent still arrives.
void KeepUnsentOnClose(int fd);

// Bytes the kernel may hold of what is sent; beyond the system's maximum where we may.
void SetSendBufferBytes(int fd, int bytes);

// Pending error of a socket (SO_ERROR): 0 or an errno.
int SocketError(int fd);

enum class SocketEnd { kLocal, kRemote };

// One end of a TCP connection, as text and number; false for any other socket.
bool SocketAddress(int fd, SocketEnd end, std::string* address, uint16_t* port);

}  // namespace iscsi_nbd
