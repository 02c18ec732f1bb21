#include "socket_pump.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <string>

namespace iscsi_nbd {

namespace {

constexpr int kAcceptsPerWakeMax = 16;
constexpr uint32_t kIovecsMax = IOV_MAX;
constexpr uint8_t kSkipsMax = 63;

class UniqueFd {
 public:
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() {
    if (fd_ >= 0) close(fd_);
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  int get() const { return fd_; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  int fd_;
};

}  // namespace

// libuv frees a closed handle one loop turn later, so it lives apart from the pump.
struct SocketPump::Handle {
  uv_poll_t poll;
  SocketPump* pump;
};

SocketPump::SocketPump(uv_loop_t* loop, int fd, bool listening, PumpThread* thread,
                       const int32_t* window, PumpListener* listener)
    : loop_(loop),
      fd_(fd),
      listening_(listening),
      thread_(thread),
      window_(window),
      listener_(listener) {}

SocketPump::~SocketPump() { Close(); }

int SocketPump::Start() {
  auto* handle = new Handle{};
  handle->pump = this;
  handle->poll.data = handle;
  const int failed = uv_poll_init(loop_, &handle->poll, fd_);
  if (failed != 0) {
    delete handle;
    return failed;
  }
  handle_ = handle;
  if (!listening_) thread_->busy_poll.Join(this);
  return 0;
}

void SocketPump::WatchReadable(bool on) {
  wanted_ = on ? (wanted_ | UV_READABLE) : (wanted_ & ~UV_READABLE);
  Update();
}

void SocketPump::WatchWritable(bool on) {
  wanted_ = on ? (wanted_ | UV_WRITABLE) : (wanted_ & ~UV_WRITABLE);
  Update();
}

// A peer that is gone is noticed without a reader, too: what it has sent and is not read yet must
// not be taken for requests of a living one later.
void SocketPump::Update() {
  const bool is_read = (wanted_ & UV_READABLE) != 0;
  const int events = listening_ || ended_ || is_read ? wanted_ : (wanted_ | UV_DISCONNECT);
  if (handle_ == nullptr || events == watched_) return;
  watched_ = events;
  thread_->counters.watches += 1;
  if (events == 0) {
    uv_poll_stop(&handle_->poll);
  } else {
    uv_poll_start(&handle_->poll, events, &SocketPump::OnPoll);
  }
}

void SocketPump::End(PumpEvent event, int32_t value) {
  ended_ = true;
  WatchReadable(false);
  listener_->OnPumpEvent(event, value);
}

void SocketPump::OnPoll(uv_poll_t* poll, int status, int events) {
  auto* handle = static_cast<Handle*>(poll->data);
  if (handle->pump == nullptr) return;
  if (status < 0) {
    // libuv has stopped watching and says EBADF whatever happened: the socket knows better.
    SocketPump* pump = handle->pump;
    pump->watched_ = pump->wanted_ = 0;
    pump->ended_ = true;
    const int error = SocketError(pump->fd_);
    pump->listener_->OnPumpEvent(PumpEvent::kError, error != 0 ? error : ECONNRESET);
    return;
  }
  if ((events & UV_WRITABLE) != 0) {
    handle->pump->WatchWritable(false);
    handle->pump->listener_->OnPumpEvent(PumpEvent::kWritable, 0);
    if (handle->pump == nullptr) return;  // closed by the listener
  }
  if ((events & UV_READABLE) != 0 && (handle->pump->wanted_ & UV_READABLE) != 0) {
    PumpThread* thread = handle->pump->thread_;
    uv_loop_t* loop = handle->pump->loop_;
    if (handle->pump->listening_) {
      handle->pump->AcceptAll();
    } else if (handle->pump->Receive()) {
      thread->busy_poll.Run(loop);
    }
    return;
  }
  if ((events & UV_DISCONNECT) != 0) handle->pump->End(PumpEvent::kEnd, 0);
}

bool SocketPump::TryLuck() {
  if (skips_left_ > 0) {
    skips_left_ -= 1;
    return false;
  }
  const uint8_t before = skips_;
  // First: what is received may end this pump.
  skips_ = 0;
  if (TryReceive()) return true;
  skips_ = static_cast<uint8_t>(before < kSkipsMax ? before * 2 + 1 : kSkipsMax);
  skips_left_ = skips_;
  return false;
}

bool SocketPump::Receive() {
  uint8_t* memory = thread_->slabs.At(window_[0], window_[1], window_[2]);
  if (memory == nullptr || window_[2] == 0) {
    WatchReadable(false);
    return false;
  }
  ssize_t received;
  do {
    thread_->counters.receives += 1;
    received = recv(fd_, memory, static_cast<size_t>(window_[2]), MSG_DONTWAIT);
  } while (received < 0 && errno == EINTR);
  if (received >= 0) thread_->busy_poll.Forget(this);
  if (received > 0) {
    thread_->counters.bytes_received += static_cast<uint64_t>(received);
    const int64_t now_ns = thread_->busy_poll.NoteReceipt();
    // The listener may close this pump.
    double* receipt_ms = thread_->receipt_ms;
    if (receipt_ms != nullptr) *receipt_ms = static_cast<double>(now_ns) / 1e6;
    listener_->OnPumpEvent(PumpEvent::kData, static_cast<int32_t>(received));
    if (receipt_ms != nullptr) *receipt_ms = 0;
  } else if (received == 0) {
    End(PumpEvent::kEnd, 0);
  } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
    End(PumpEvent::kError, errno);
  } else {
    return false;
  }
  return true;
}

void SocketPump::AcceptAll() {
  Handle* handle = handle_;
  for (int accepted = 0; accepted < kAcceptsPerWakeMax; accepted += 1) {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      // Out of descriptors: the listener decides; anything else passes by itself.
      if (errno == EMFILE || errno == ENFILE) listener_->OnPumpEvent(PumpEvent::kError, errno);
      return;
    }
    listener_->OnPumpEvent(PumpEvent::kAccepted, fd);
    if (handle->pump == nullptr) return;
  }
}

int64_t SocketPump::Send(const int32_t* table, uint32_t first, uint32_t count,
                         uint32_t capacity) {
  if (fd_ < 0) return -EBADF;
  int64_t total = 0;
  uint32_t done = 0;
  iovec vectors[kIovecsMax];
  while (done < count) {
    uint32_t used = 0;
    size_t wanted = 0;
    while (used < kIovecsMax && done + used < count) {
      const int32_t* entry = table + static_cast<size_t>((first + done + used) % capacity) * 3;
      uint8_t* memory = thread_->slabs.At(entry[0], entry[1], entry[2]);
      if (memory == nullptr) return -EFAULT;
      vectors[used].iov_base = memory;
      vectors[used].iov_len = static_cast<size_t>(entry[2]);
      wanted += vectors[used].iov_len;
      used += 1;
    }
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = used;
    thread_->counters.sends += 1;
    const ssize_t sent = sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
        WatchWritable(true);
        return total;
      }
      return -errno;
    }
    thread_->busy_poll.Await(this);
    total += sent;
    thread_->counters.bytes_sent += static_cast<uint64_t>(sent);
    if (static_cast<size_t>(sent) < wanted) {
      WatchWritable(true);
      return total;
    }
    done += used;
  }
  return total;
}

void SocketPump::Close() {
  const int fd = Release();
  if (fd >= 0) close(fd);
}

int SocketPump::Release() {
  thread_->busy_poll.Forget(this);
  if (handle_ != nullptr) {
    thread_->busy_poll.Leave(this);
    Handle* handle = handle_;
    handle_ = nullptr;
    handle->pump = nullptr;
    uv_poll_stop(&handle->poll);
    uv_close(reinterpret_cast<uv_handle_t*>(&handle->poll), [](uv_handle_t* closed) {
      delete static_cast<Handle*>(closed->data);
    });
  }
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

namespace {

bool IsLoopback(const sockaddr_storage& storage) {
  if (storage.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == IN_LOOPBACKNET;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

// Within one host nothing is congested. A control that paces what is sent, as BBR does, only costs
// timers there: half as much again for a write of 256 KiB. Best effort: Reno is always there.
void LeaveUnpaced(int fd) {
  static constexpr char kReno[] = "reno";
  setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kReno, sizeof(kReno) - 1);
}

// With it a close, and the end of the process however it comes, resets the connection and drops
// what the kernel still has to send. Without, a write of a connection that was given up would be
// sent again and again until the path is back, and done after what newer connections have written.
void DropUnsentOnClose(int fd, bool on) {
  const linger now{on ? 1 : 0, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

}  // namespace

void KeepUnsentOnClose(int fd) { DropUnsentOnClose(fd, false); }

int ConnectTcp(const char* address, uint16_t port) {
  // Only a number: getaddrinfo reads the zone of a link-local address as well (fe80::1%eth0).
  addrinfo wanted{};
  wanted.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(address, std::to_string(port).c_str(), &wanted, &found) != 0) return -EINVAL;
  sockaddr_storage storage{};
  const socklen_t length = found->ai_addrlen;
  memcpy(&storage, found->ai_addr, length);
  freeaddrinfo(found);
  UniqueFd fd(socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return -errno;
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  DropUnsentOnClose(fd.get(), true);
  if (IsLoopback(storage)) LeaveUnpaced(fd.get());
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0 &&
      errno != EINPROGRESS) {
    return -errno;
  }
  return fd.release();
}

int ListenUnix(const char* path, uint32_t mode) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof(address.sun_path)) return -ENAMETOOLONG;
  strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return -errno;
  // Before bind, which gives it to the file: by its path the mode might be another file's.
  if (fchmod(fd.get(), mode) != 0) return -errno;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return -errno;
  if (listen(fd.get(), 64) != 0) {
    const int error = errno;
    unlink(path);
    return -error;
  }
  return fd.release();
}

void SetSendBufferBytes(int fd, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) == 0) return;
  // Without CAP_NET_ADMIN the system's maximum holds; it cuts the number by itself.
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

int SocketError(int fd) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

bool SocketAddress(int fd, SocketEnd end, std::string* address, uint16_t* port) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  auto* generic = reinterpret_cast<sockaddr*>(&storage);
  const int failed = end == SocketEnd::kLocal ? getsockname(fd, generic, &length)
                                              : getpeername(fd, generic, &length);
  if (failed != 0) return false;
  char text[INET6_ADDRSTRLEN];
  const void* bytes = nullptr;
  if (storage.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
    bytes = &v4->sin_addr;
    *port = ntohs(v4->sin_port);
  } else if (storage.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    bytes = &v6->sin6_addr;
    *port = ntohs(v6->sin6_port);
  } else {
    return false;
  }
  if (inet_ntop(storage.ss_family, bytes, text, sizeof(text)) == nullptr) return false;
  *address = text;
  return true;
}

}  // namespace iscsi_nbd
