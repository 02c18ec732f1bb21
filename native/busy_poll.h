// Busy-polls for a while before the event loop goes to sleep.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace iscsi_nbd {

class SocketPump;

// Whether something that may be done or left pays: now and then both are tried in short turns, and
// what moved more bytes in its time is kept until the next time. Nothing that could be reckoned
// with says the same, for it depends on other users of the processors.
class Trial {
 public:
  // Call it often; `bytes` is the count of all that have been moved. True: do it now.
  bool Choose(int64_t now_ns, uint64_t bytes);

 private:
  void Decide();

  struct Account {
    int64_t ns = 0;
    uint64_t bytes = 0;
    void Halve() {
      ns /= 2;
      bytes /= 2;
    }
  };
  Account with_;
  Account without_;
  bool doing_ = false;
  int slots_left_ = 0;
  int64_t slot_end_ns_ = 0;
  int64_t keep_ns_ = 0;
  int64_t last_ns_ = 0;
  uint64_t last_bytes_ = 0;
};

// The pumps of a thread that have just sent and not received since. A processor that goes to sleep
// takes longer to wake than most answers take to come, and so does the process that has to wake
// it. So after a wake the answers are tried for, for some microseconds, where that pays. It does
// not where the processor is needed by those who are to answer, or where more would have come at
// once later.
class BusyPoll {
 public:
  // Nanoseconds to try for at most; with 0 nothing is tried.
  void SetLimit(int64_t nanoseconds) { limit_ns_ = nanoseconds; }
  void Await(SocketPump* pump);
  void Forget(SocketPump* pump);
  // Receives arriving data; other handles of the loop get their turn after a bounded time.
  void Run(uint64_t bytes_moved);

 private:
  // True when something was received.
  bool ReceiveUntil(int64_t end_ns);
  void ForgetAll();

  std::vector<SocketPump*> awaited_;
  int64_t limit_ns_ = 0;
  Trial trial_;
  bool running_ = false;
};

}  // namespace iscsi_nbd
