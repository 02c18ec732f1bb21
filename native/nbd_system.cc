// The system calls around a device that are not netlink; declared in nbd_netlink.h.
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

#include "nbd_netlink.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace iscsi_nbd {
namespace {

// The forced option is root's and goes beyond net.core.*mem_max; the other is cut to it.
void SetBuffer(int fd, int forced, int plain, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) == 0) return;
  if (setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes) == 0) return;
  throw SystemError(errno, "setsockopt(SO_SNDBUF, SO_RCVBUF)");
}

}  // namespace

std::string ErrnoName(int error) {
#ifdef __GLIBC__
  const char* name = strerrorname_np(error);
  if (name != nullptr) return name;
#endif
  return "E" + std::to_string(error);
}

std::pair<Fd, Fd> NbdSocketPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw SystemError(errno, "socketpair");
  }
  std::pair<Fd, Fd> pair{Fd(ends[0]), Fd(ends[1])};
  if (fcntl(ends[0], F_SETFL, fcntl(ends[0], F_GETFL) | O_NONBLOCK) != 0) {
    throw SystemError(errno, "fcntl(O_NONBLOCK)");
  }
  return pair;
}

int SetSocketBuffers(int fd, int bytes) {
  SetBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, bytes);
  SetBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, bytes);
  int in_force = 0;
  socklen_t length = sizeof in_force;
  if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &in_force, &length) != 0) {
    throw SystemError(errno, "getsockopt(SO_SNDBUF)");
  }
  return in_force;
}

bool IsAtEnd(int fd) {
  char byte;
  const ssize_t got = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got == 0) return true;
  return got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
}

Fd OpenExclusive(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  if (fd.get() < 0) throw SystemError(errno, "open(O_EXCL) " + path);
  struct stat facts {};
  if (fstat(fd.get(), &facts) != 0) throw SystemError(errno, "fstat " + path);
  if (!S_ISBLK(facts.st_mode)) throw SystemError(ENOTBLK, "open(O_EXCL) " + path);
  return fd;
}

void SyncDevice(int fd) {
  if (fsync(fd) != 0) throw SystemError(errno, "fsync");
}

void SetReadOnly(const std::string& path, bool read_only) {
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) throw SystemError(errno, "open " + path);
  const int value = read_only ? 1 : 0;
  if (ioctl(fd.get(), BLKROSET, &value) != 0) throw SystemError(errno, "BLKROSET " + path);
}

void WriteAttribute(const std::string& path, const std::string& text) {
  Fd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd.get() < 0) throw SystemError(errno, "open " + path);
  if (write(fd.get(), text.data(), text.size()) < 0) throw SystemError(errno, "write " + path);
}

void MakeBlockNode(const std::string& path, uint32_t major_number, uint32_t minor_number) {
  if (mknod(path.c_str(), S_IFBLK | 0660, makedev(major_number, minor_number)) != 0 &&
      errno != EEXIST) {
    throw SystemError(errno, "mknod " + path);
  }
}

void SetIoFlusher() {
  if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0) throw SystemError(errno, "PR_SET_IO_FLUSHER");
}

}  // namespace iscsi_nbd
