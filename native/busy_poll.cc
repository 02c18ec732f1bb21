#include "busy_poll.h"

#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <ctime>

#include "socket_pump.h"

namespace iscsi_nbd {

namespace {

// Receipts after which the event loop has its turn.
constexpr int kReceiptsMax = 16;
// With more sockets than that there is work enough, and each of them costs a system call.
constexpr size_t kPumpsMax = 4;

constexpr uint32_t kRateOne = 1 << 16;
constexpr uint32_t kWeight = 16;
// A sleep that is saved is worth some failures, but no more than that.
constexpr uint32_t kRateWorth = kRateOne / 4;
constexpr uint32_t kSkipsMin = 64;
constexpr uint32_t kSkipsMax = 4096;

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

// Times the thread had to leave its processor to another.
int64_t InvoluntarySwitches() {
  rusage usage;
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

bool HitRate::IsWorthTrying() {
  if (rate_ >= kRateWorth) return true;
  skipped_ += 1;
  if (skipped_ < skips_) return false;
  skipped_ = 0;
  return true;
}

void HitRate::Tried(bool hit) {
  rate_ = rate_ - rate_ / kWeight + (hit ? kRateOne / kWeight : 0);
  // Trials that fail are each followed by twice as many turns without one.
  skips_ = hit ? 0 : std::min(kSkipsMax, std::max(kSkipsMin, skips_ * 2));
}

void BusyPoll::Await(SocketPump* pump) {
  if (std::find(awaited_.begin(), awaited_.end(), pump) == awaited_.end()) {
    awaited_.push_back(pump);
  }
}

void BusyPoll::Forget(SocketPump* pump) {
  awaited_.erase(std::remove(awaited_.begin(), awaited_.end(), pump), awaited_.end());
}

void BusyPoll::Run() {
  if (running_ || limit_ns_ == 0) return;
  running_ = true;
  for (int receipts = 0; receipts < kReceiptsMax; receipts += 1) {
    if (awaited_.empty() || awaited_.size() > kPumpsMax) break;
    if (in_time_.IsWorthTrying()) {
      if (!TryForLong()) break;
    } else if (at_once_.IsWorthTrying()) {
      const bool hit = TryOnce();
      at_once_.Tried(hit);
      if (!hit) break;
    } else {
      break;
    }
  }
  running_ = false;
}

bool BusyPoll::TryOnce() {
  // What is received may send, close and so change the list: one receipt a look at it.
  for (SocketPump* pump : awaited_) {
    if (pump->TryReceive()) return true;
  }
  return false;
}

bool BusyPoll::TryForLong() {
  pollfd watched[kPumpsMax];
  nfds_t count = 0;
  for (SocketPump* pump : awaited_) {
    if (pump->IsWanted()) watched[count++] = pollfd{pump->fd(), POLLIN, 0};
  }
  if (count == 0) return false;
  if (poll(watched, count, 0) > 0) return TryOnce();
  const int64_t switches = InvoluntarySwitches();
  const int64_t end = NowNs() + limit_ns_;
  bool ready = false;
  do {
    Pause();
    ready = poll(watched, count, 0) > 0;
  } while (!ready && NowNs() < end);
  in_time_.Tried(ready && InvoluntarySwitches() == switches);
  return ready && TryOnce();
}

}  // namespace iscsi_nbd
