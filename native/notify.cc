#include "notify.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>

#include "nbd_netlink.h"

namespace iscsi_nbd {

int SendNotify(const std::string& path, const std::string& text) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const bool is_abstract = !path.empty() && path[0] == '@';
  // A path ends with a zero byte; an abstract name is as long as the address says.
  const size_t end = is_abstract ? 0 : 1;
  if (path.size() < 2 || path.size() + end > sizeof(address.sun_path)) return -EINVAL;
  if (!is_abstract && path[0] != '/') return -EINVAL;
  if (path.find('\0') != std::string::npos) return -EINVAL;
  memcpy(address.sun_path, path.data(), path.size());
  if (is_abstract) address.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + end);

  const Fd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return -errno;
  const ssize_t sent = sendto(fd.get(), text.data(), text.size(), MSG_NOSIGNAL,
                              reinterpret_cast<const sockaddr*>(&address), length);
  return sent < 0 ? -errno : 0;
}

}  // namespace iscsi_nbd
