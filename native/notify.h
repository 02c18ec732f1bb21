// Messages to the service manager, sd_notify(3): one datagram to the socket it named.
#pragma once

#include <string>

namespace iscsi_nbd {

// Sends `text` as one datagram to the unix socket `path`; a leading '@' stands for the abstract
// namespace. Never blocks. Returns 0 or -errno: -EAGAIN when the reader's queue is full, -EINVAL
// for what is no absolute path and no abstract name, or is too long for an address.
int SendNotify(const std::string& path, const std::string& text);

}  // namespace iscsi_nbd
