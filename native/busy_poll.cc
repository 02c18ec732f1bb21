#include "busy_poll.h"

#include <poll.h>

#include <algorithm>
#include <ctime>

#include "socket_pump.h"

namespace iscsi_nbd {

namespace {

// Receipts after which the event loop has its turn.
constexpr int kReceiptsMax = 16;
// With more sockets than that there is work enough.
constexpr size_t kPumpsMax = 4;

// Both ways are tried in turns of 2 ms, eight each, once a second. A longer silence is nobody's.
constexpr int64_t kSlotNs = 2'000'000;
constexpr int kSlots = 16;
constexpr int64_t kKeepNs = 1'000'000'000;
constexpr int64_t kSilenceNs = 10'000'000;
// It costs time that others may want, so it has to bring something.
constexpr double kWorth = 1.05;

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

bool Trial::Choose(int64_t now_ns, uint64_t bytes) {
  const int64_t elapsed_ns = now_ns - last_ns_;
  const bool was_silent = elapsed_ns > kSilenceNs;
  if (slots_left_ > 0 && !was_silent) {
    Account& account = doing_ ? with_ : without_;
    account.ns += elapsed_ns;
    account.bytes += bytes - last_bytes_;
  }
  last_ns_ = now_ns;
  last_bytes_ = bytes;
  if (was_silent && slots_left_ > 0) return doing_;
  if (now_ns < slot_end_ns_) return doing_;
  if (slots_left_ == 1) {
    Decide();
    slot_end_ns_ = now_ns + kKeepNs;
  } else {
    if (slots_left_ == 0) slots_left_ = kSlots + 1;
    doing_ = !doing_;
    slot_end_ns_ = now_ns + kSlotNs;
  }
  slots_left_ -= 1;
  return doing_;
}

void Trial::Decide() {
  const double with = static_cast<double>(with_.bytes) * static_cast<double>(without_.ns);
  const double without = static_cast<double>(without_.bytes) * static_cast<double>(with_.ns);
  doing_ = with > without * kWorth;
  // Half as much is remembered of each time before: a single one is often chance.
  with_.Halve();
  without_.Halve();
}

void BusyPoll::Await(SocketPump* pump) {
  if (std::find(awaited_.begin(), awaited_.end(), pump) == awaited_.end()) {
    awaited_.push_back(pump);
  }
}

void BusyPoll::Forget(SocketPump* pump) {
  awaited_.erase(std::remove(awaited_.begin(), awaited_.end(), pump), awaited_.end());
}

void BusyPoll::Run(uint64_t bytes_moved) {
  if (running_ || limit_ns_ == 0) return;
  const int64_t now_ns = NowNs();
  if (!trial_.Choose(now_ns, bytes_moved)) return;
  running_ = true;
  for (int receipts = 0; receipts < kReceiptsMax; receipts += 1) {
    if (awaited_.empty() || awaited_.size() > kPumpsMax) break;
    if (!Poll(receipts == 0 ? now_ns : NowNs())) break;
  }
  running_ = false;
}

bool BusyPoll::Poll(int64_t now_ns) {
  pollfd watched[kPumpsMax];
  nfds_t count = 0;
  for (SocketPump* pump : awaited_) {
    if (pump->IsWanted()) watched[count++] = pollfd{pump->fd(), POLLIN, 0};
  }
  if (count == 0) return false;
  while (poll(watched, count, 0) <= 0) {
    if (NowNs() >= now_ns + limit_ns_) return false;
    Pause();
  }
  return ReceiveOne();
}

bool BusyPoll::ReceiveOne() {
  // What is received may send, close and so change the list: one receipt a look at it.
  for (SocketPump* pump : awaited_) {
    if (pump->TryReceive()) return true;
  }
  return false;
}

}  // namespace iscsi_nbd
