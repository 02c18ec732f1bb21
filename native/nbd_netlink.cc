#include "nbd_netlink.h"

#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <functional>

namespace iscsi_nbd {
namespace {

// A status reply carries 20 bytes for each device; the attribute that holds them ends at 64 KiB.
constexpr size_t kReplyBytesMax = 128 << 10;
// The kernel answers before its sendmsg returns: a reply that is not there by then never comes.
constexpr time_t kReplyTimeoutSeconds = 5;
constexpr uint32_t kSequence = 1;
constexpr size_t kHeaderBytes = NLMSG_HDRLEN + GENL_HDRLEN;

// Builds one generic netlink message.
class Message {
 public:
  Message(uint16_t type, uint8_t command, uint8_t version, uint16_t flags) : bytes_(kHeaderBytes) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    header.nlmsg_seq = kSequence;
    std::memcpy(bytes_.data(), &header, sizeof header);
    genlmsghdr generic{};
    generic.cmd = command;
    generic.version = version;
    std::memcpy(bytes_.data() + NLMSG_HDRLEN, &generic, sizeof generic);
  }

  void Put(uint16_t type, const void* value, size_t length) {
    const size_t start = Begin(type);
    const auto* from = static_cast<const uint8_t*>(value);
    bytes_.insert(bytes_.end(), from, from + length);
    End(start);
  }
  void PutU32(uint16_t type, uint32_t value) { Put(type, &value, sizeof value); }
  void PutU64(uint16_t type, uint64_t value) { Put(type, &value, sizeof value); }
  // With its terminating NUL.
  void PutText(uint16_t type, const std::string& text) { Put(type, text.c_str(), text.size() + 1); }

  size_t Begin(uint16_t type) {
    const size_t start = bytes_.size();
    nlattr attribute{};
    attribute.nla_type = type;
    bytes_.resize(start + NLA_HDRLEN);
    std::memcpy(bytes_.data() + start, &attribute, sizeof attribute);
    return start;
  }
  void End(size_t start) {
    const auto length = static_cast<uint16_t>(bytes_.size() - start);
    std::memcpy(bytes_.data() + start + offsetof(nlattr, nla_len), &length, sizeof length);
    bytes_.resize(NLA_ALIGN(bytes_.size()));
  }

  const std::vector<uint8_t>& Finish() {
    const auto length = static_cast<uint32_t>(bytes_.size());
    std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &length, sizeof length);
    return bytes_;
  }

 private:
  std::vector<uint8_t> bytes_;
};

// A piece of a received message; never longer than what was received.
struct View {
  const uint8_t* data = nullptr;
  size_t length = 0;
};

using OnAttribute = std::function<void(uint16_t type, View value)>;
using OnMessage = std::function<void(const nlmsghdr& header, View body)>;

void ForEachAttribute(View list, const OnAttribute& visit) {
  while (list.length >= NLA_HDRLEN) {
    nlattr attribute;
    std::memcpy(&attribute, list.data, sizeof attribute);
    if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > list.length) return;
    visit(attribute.nla_type & NLA_TYPE_MASK,
          View{list.data + NLA_HDRLEN, size_t{attribute.nla_len} - NLA_HDRLEN});
    const size_t step = NLA_ALIGN(attribute.nla_len);
    if (step >= list.length) return;
    list = View{list.data + step, list.length - step};
  }
}

void ForEachMessage(View received, const OnMessage& visit) {
  while (received.length >= NLMSG_HDRLEN) {
    nlmsghdr header;
    std::memcpy(&header, received.data, sizeof header);
    if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > received.length) return;
    visit(header, View{received.data + NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN});
    const size_t step = NLMSG_ALIGN(header.nlmsg_len);
    if (step >= received.length) return;
    received = View{received.data + step, received.length - step};
  }
}

template <typename T>
T Read(View value) {
  T result{};
  if (value.length >= sizeof(T)) std::memcpy(&result, value.data, sizeof(T));
  return result;
}

Fd OpenNetlink(int flags) {
  Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_GENERIC));
  if (fd.get() < 0) throw SystemError(errno, "socket(NETLINK_GENERIC)");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    throw SystemError(errno, "bind(NETLINK_GENERIC)");
  }
  return fd;
}

// One datagram from the kernel; others' are left out (length 0).
View Receive(int fd, std::vector<uint8_t>* buffer) {
  sockaddr_nl from{};
  iovec piece{buffer->data(), buffer->size()};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  ssize_t got;
  do {
    got = recvmsg(fd, &message, 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0) throw SystemError(errno, "recvmsg(NETLINK_GENERIC)");
  if (message.msg_flags & MSG_TRUNC) throw SystemError(EMSGSIZE, "recvmsg(NETLINK_GENERIC)");
  if (from.nl_pid != 0) return View{};
  return View{buffer->data(), static_cast<size_t>(got)};
}

void SendMessage(int fd, const std::vector<uint8_t>& bytes, const char* operation) {
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  ssize_t sent;
  do {
    sent = sendto(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&kernel),
                  sizeof kernel);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) throw SystemError(errno, operation);
}

// Sends a request and waits for its acknowledgement; `visit` sees the attributes of each reply.
void Transact(Message* request, const char* operation, const OnAttribute& visit) {
  Fd fd = OpenNetlink(0);
  const timeval timeout{kReplyTimeoutSeconds, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  SendMessage(fd.get(), request->Finish(), operation);
  std::vector<uint8_t> buffer(kReplyBytesMax);
  std::optional<int> result;
  while (!result) {
    View received;
    try {
      received = Receive(fd.get(), &buffer);
    } catch (const SystemError& error) {
      const bool late = error.error() == EAGAIN || error.error() == EWOULDBLOCK;
      throw SystemError(late ? ETIMEDOUT : error.error(), operation);
    }
    ForEachMessage(received, [&](const nlmsghdr& header, View body) {
      if (header.nlmsg_seq != kSequence) return;
      if (header.nlmsg_type == NLMSG_ERROR) {
        result = body.length < sizeof(int32_t) ? EBADMSG : -Read<int32_t>(body);
      } else if (body.length >= GENL_HDRLEN) {
        ForEachAttribute(View{body.data + GENL_HDRLEN, body.length - GENL_HDRLEN}, visit);
      }
    });
  }
  if (*result != 0) throw SystemError(*result, operation);
}

void IgnoreAttribute(uint16_t, View) {}

Message NbdMessage(uint8_t command) {
  return Message(NbdResolveFamily().id, command, NBD_GENL_VERSION, NLM_F_ACK);
}

void PutSocket(Message* message, int fd) {
  const size_t sockets = message->Begin(NLA_F_NESTED | NBD_ATTR_SOCKETS);
  const size_t item = message->Begin(NLA_F_NESTED | NBD_SOCK_ITEM);
  message->PutU32(NBD_SOCK_FD, static_cast<uint32_t>(fd));
  message->End(item);
  message->End(sockets);
}

}  // namespace

void Fd::Reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

SystemError::SystemError(int error, const std::string& operation)
    : std::runtime_error(operation + ": " + ErrnoName(error) + ", " + strerror(error)),
      error_(error),
      operation_(operation) {}

NbdFamily NbdResolveFamily() {
  Message request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, NLM_F_ACK);
  request.PutText(CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME);
  NbdFamily family;
  Transact(&request, "CTRL_CMD_GETFAMILY nbd", [&family](uint16_t type, View value) {
    if (type == CTRL_ATTR_FAMILY_ID) family.id = Read<uint16_t>(value);
  });
  if (family.id == 0) throw SystemError(EBADMSG, "CTRL_CMD_GETFAMILY nbd");
  return family;
}

uint32_t NbdConnect(const NbdConnectRequest& request) {
  Message message = NbdMessage(NBD_CMD_CONNECT);
  if (request.index) message.PutU32(NBD_ATTR_INDEX, *request.index);
  message.PutU64(NBD_ATTR_SIZE_BYTES, request.size_bytes);
  message.PutU64(NBD_ATTR_BLOCK_SIZE_BYTES, request.block_size_bytes);
  // 0: a reply may take any time. Anything else lets the kernel kill a socket that is only slow.
  message.PutU64(NBD_ATTR_TIMEOUT, 0);
  message.PutU64(NBD_ATTR_SERVER_FLAGS, request.server_flags);
  message.PutU64(NBD_ATTR_CLIENT_FLAGS, request.client_flags);
  message.PutU64(NBD_ATTR_DEAD_CONN_TIMEOUT, request.dead_conn_timeout_seconds);
  message.PutText(NBD_ATTR_BACKEND_IDENTIFIER, request.identifier);
  PutSocket(&message, request.socket_fd);
  std::optional<uint32_t> index;
  Transact(&message, "NBD_CMD_CONNECT", [&index](uint16_t type, View value) {
    if (type == NBD_ATTR_INDEX) index = Read<uint32_t>(value);
  });
  if (!index) index = request.index;
  if (!index) throw SystemError(EBADMSG, "NBD_CMD_CONNECT");
  return *index;
}

void NbdReconfigure(const NbdReconfigureRequest& request) {
  Message message = NbdMessage(NBD_CMD_RECONFIGURE);
  message.PutU32(NBD_ATTR_INDEX, request.index);
  message.PutText(NBD_ATTR_BACKEND_IDENTIFIER, request.identifier);
  if (request.size_bytes) message.PutU64(NBD_ATTR_SIZE_BYTES, *request.size_bytes);
  if (request.dead_conn_timeout_seconds) {
    message.PutU64(NBD_ATTR_DEAD_CONN_TIMEOUT, *request.dead_conn_timeout_seconds);
  }
  if (request.socket_fd) PutSocket(&message, *request.socket_fd);
  Transact(&message, "NBD_CMD_RECONFIGURE", IgnoreAttribute);
}

void NbdDisconnect(uint32_t index) {
  Message message = NbdMessage(NBD_CMD_DISCONNECT);
  message.PutU32(NBD_ATTR_INDEX, index);
  Transact(&message, "NBD_CMD_DISCONNECT", IgnoreAttribute);
}

std::vector<NbdStatus> NbdGetStatus(std::optional<uint32_t> index) {
  Message message = NbdMessage(NBD_CMD_STATUS);
  if (index) message.PutU32(NBD_ATTR_INDEX, *index);
  std::vector<NbdStatus> devices;
  Transact(&message, "NBD_CMD_STATUS", [&devices](uint16_t type, View list) {
    if (type != NBD_ATTR_DEVICE_LIST) return;
    ForEachAttribute(list, [&devices](uint16_t, View item) {
      NbdStatus device;
      ForEachAttribute(item, [&device](uint16_t part, View value) {
        if (part == NBD_DEVICE_INDEX) device.index = Read<uint32_t>(value);
        if (part == NBD_DEVICE_CONNECTED) device.connected = Read<uint8_t>(value) != 0;
      });
      devices.push_back(device);
    });
  });
  return devices;
}

}  // namespace iscsi_nbd
