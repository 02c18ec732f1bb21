// Looks for answers for a while before the event loop goes to sleep.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace iscsi_nbd {

class SocketPump;

// How often a guess has come true lately, as a moving average.
class HitRate {
 public:
  // False while it is not worth trying; rarely it is true all the same, to find out.
  bool IsWorthTrying();
  void Tried(bool hit);

 private:
  uint32_t rate_ = 0;
  uint32_t skipped_ = 0;
  uint32_t skips_ = 0;
};

// The pumps of a thread that have sent and not received since. A processor that goes to sleep
// takes longer to wake than most answers take to come, and so does whoever has to wake it; a peer
// that shares our processor runs within our send and has answered when the send returns. So after
// a wake the answers are tried for: once where that is enough, else for some microseconds. Either
// is done only while it succeeds, and the latter only while nobody else wants the processor.
class BusyPoll {
 public:
  // Nanoseconds to try for at most; with 0 nothing is tried.
  void SetLimit(int64_t nanoseconds) { limit_ns_ = nanoseconds; }
  void Await(SocketPump* pump);
  void Forget(SocketPump* pump);
  // Receives what comes; other handles of the loop get their turn after a bounded time.
  void Run();

 private:
  // Each is true when something was received.
  bool TryOnce();
  bool TryForLong();

  std::vector<SocketPump*> awaited_;
  int64_t limit_ns_ = 0;
  HitRate at_once_;
  HitRate in_time_;
  bool running_ = false;
};

}  // namespace iscsi_nbd
