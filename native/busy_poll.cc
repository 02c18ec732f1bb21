#include "busy_poll.h"

#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <ctime>

#include "socket_pump.h"

namespace iscsi_nbd {

namespace {

// Receipts after which the event loop has its turn, unless the thread has waited in between.
constexpr int kReceiptsMax = 16;
// And time after which it has.
constexpr int64_t kRunNs = 2'000'000;
// Sockets that one wait reports at most.
constexpr int kEventsMax = 16;
// With more sockets than that there is work enough.
constexpr size_t kPumpsMax = 4;

// Both ways are tried in turns of 2 ms, eight each, once a second; more often in the beginning,
// when everything is only about to reach its speed. A longer silence does not count.
constexpr int64_t kSlotNs = 2'000'000;
constexpr int kSlots = 16;
constexpr int64_t kKeepMinNs = 64'000'000;
constexpr int64_t kKeepMaxNs = 1'024'000'000;
constexpr int64_t kSilenceNs = 10'000'000;
// It costs time that others may want, so it has to bring something.
constexpr double kWorth = 1.05;
// A poll that is held up for so long has lost its processor.
constexpr int64_t kLostNs = 10'000'000;
constexpr int64_t kRestMinNs = 1'024'000'000;
constexpr int64_t kRestMaxNs = 16'384'000'000;

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

bool Trial::Choose(int64_t now_ns, uint64_t bytes) {
  const int64_t elapsed_ns = now_ns - last_ns_;
  const bool was_silent = elapsed_ns > kSilenceNs;
  if (slots_left_ > 0 && !was_silent) {
    Account& account = doing_ ? with_ : without_;
    account.ns += elapsed_ns;
    account.bytes += bytes - last_bytes_;
  }
  if (elapsed_ns > kKeepMaxNs || keep_ns_ == 0) keep_ns_ = kKeepMinNs;
  last_ns_ = now_ns;
  last_bytes_ = bytes;
  if (was_silent && slots_left_ > 0) return doing_;
  if (now_ns < slot_end_ns_) return doing_;
  if (slots_left_ == 0 && doing_) rest_ns_ = 0;
  if (slots_left_ == 1) {
    Decide();
    slot_end_ns_ = now_ns + keep_ns_;
    keep_ns_ = std::min(keep_ns_ * 2, kKeepMaxNs);
  } else {
    if (slots_left_ == 0) slots_left_ = kSlots + 1;
    doing_ = !doing_;
    slot_end_ns_ = now_ns + kSlotNs;
  }
  slots_left_ -= 1;
  return doing_;
}

void Trial::LoseProcessor(int64_t now_ns) {
  doing_ = false;
  slots_left_ = 0;
  rest_ns_ = std::clamp(rest_ns_ * 2, kRestMinNs, kRestMaxNs);
  slot_end_ns_ = now_ns + rest_ns_;
  last_ns_ = now_ns;
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
  if (pump->awaited_at >= 0) return;
  pump->awaited_at = static_cast<int32_t>(awaited_.size());
  awaited_.push_back(pump);
}

void BusyPoll::Forget(SocketPump* pump) {
  if (pump->awaited_at < 0) return;
  const auto at = static_cast<size_t>(pump->awaited_at);
  pump->awaited_at = -1;
  SocketPump* last = awaited_.back();
  awaited_.pop_back();
  if (last == pump) return;
  awaited_[at] = last;
  last->awaited_at = static_cast<int32_t>(at);
}

void BusyPoll::Join(SocketPump* pump) {
  const auto at = static_cast<size_t>(pump->fd());
  if (at >= joined_.size()) joined_.resize(at + 1);
  joined_[at] = pump;
}

void BusyPoll::Leave(SocketPump* pump) {
  const auto at = static_cast<size_t>(pump->fd());
  if (at < joined_.size() && joined_[at] == pump) joined_[at] = nullptr;
}

int64_t BusyPoll::NoteReceipt() {
  receipt_ns_ = NowNs();
  return receipt_ns_;
}

void BusyPoll::Run(uv_loop_t* loop) {
  if (running_) return;
  running_ = true;
  const int64_t end_ns = receipt_ns_ + kRunNs;
  for (int receipts = 0; receipts < kReceiptsMax && receipt_ns_ < end_ns; receipts += 1) {
    const int64_t now_ns = receipt_ns_;
    const uint64_t moved = counters_->bytes_received + counters_->bytes_sent;
    const bool waits = limit_ns_ > 0 && trial_.Choose(now_ns, moved);
    if (!ReceiveAwaited(waits, now_ns)) {
      // They are in no hurry, if they are to answer at all: a client may rest.
      ForgetAll();
      if (!ReceiveAsLoop(loop)) break;
      receipts = 0;
    }
  }
  running_ = false;
}

bool BusyPoll::ReceiveAwaited(bool waits, int64_t now_ns) {
  if (limit_ns_ == 0 || awaited_.empty()) return false;
  if (waits) return awaited_.size() <= kPumpsMax && ReceiveUntil(now_ns + limit_ns_);
  // A lone answer may be there already: a peer on our processor runs within our send.
  return awaited_.size() == 1 && awaited_.front()->TryLuck();
}

// Its descriptors are level-triggered: what is not received here is found by the loop, too.
bool BusyPoll::ReceiveAsLoop(uv_loop_t* loop) {
  // 0 if the loop has something to do before it may wait. A timer is late by the length of a run at
  // most: the loop read its clock before this one.
  const int timeout_ms = uv_backend_timeout(loop);
  if (timeout_ms == 0) return false;
  epoll_event events[kEventsMax];
  counters_->waits += 1;
  const int count = epoll_wait(uv_backend_fd(loop), events, kEventsMax, timeout_ms);
  bool is_received = false;
  bool is_all = count > 0;
  for (int index = 0; index < count; index += 1) {
    // libuv's events carry the descriptor. One that does not would at worst be tried in vain.
    const auto fd = static_cast<size_t>(events[index].data.fd);
    SocketPump* pump = fd < joined_.size() ? joined_[fd] : nullptr;
    if (events[index].events == EPOLLIN && pump != nullptr && pump->TryReceive()) {
      is_received = true;
    } else {
      is_all = false;
    }
  }
  return is_received && is_all;
}

bool BusyPoll::ReceiveUntil(int64_t end_ns) {
  // What is received may send, close and so change the list: one receipt a look at it.
  SocketPump* pumps[kPumpsMax];
  pollfd watched[kPumpsMax];
  nfds_t count = 0;
  for (SocketPump* pump : awaited_) {
    if (!pump->IsWanted()) continue;
    pumps[count] = pump;
    watched[count++] = pollfd{pump->fd(), POLLIN, 0};
  }
  if (count == 0) return false;
  int64_t last_ns = INT64_MAX;
  while (poll(watched, count, 0) <= 0) {
    const int64_t now_ns = NowNs();
    if (now_ns - last_ns >= kLostNs) trial_.LoseProcessor(now_ns);
    if (now_ns >= end_ns) return false;
    last_ns = now_ns;
    Pause();
  }
  for (nfds_t index = 0; index < count; index += 1) {
    if (watched[index].revents == 0 || !pumps[index]->TryReceive()) continue;
    // The data may have come while another had the processor.
    if (receipt_ns_ - last_ns >= kLostNs) trial_.LoseProcessor(receipt_ns_);
    return true;
  }
  return false;
}

void BusyPoll::ForgetAll() {
  for (SocketPump* pump : awaited_) pump->awaited_at = -1;
  awaited_.clear();
}

}  // namespace iscsi_nbd
