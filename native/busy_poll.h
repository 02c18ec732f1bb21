// Busy-polls for a while before the event loop goes to sleep, and sleeps in its place.
#pragma once

#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace iscsi_nbd {

class SocketPump;
struct PumpCounters;

// Whether something that may be done or left pays: now and then both are tried in short turns, and
// what moved more bytes in its time is kept until the next time. Nothing that could be reckoned
// with says the same, for it depends on other users of the processors.
class Trial {
 public:
  // Call it often; `bytes` is the count of all that have been moved. True: do it now.
  bool Choose(int64_t now_ns, uint64_t bytes);
  // The processor was taken from the thread while it did it: others want it, or a cgroup's quota is
  // used up, and then it costs what no measure in short turns sees. It is left for a time, which
  // doubles if that happens again before it has been kept to the end of its time.
  void LoseProcessor(int64_t now_ns);

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
  // Of the last loss; 0 if it has been kept to the end since.
  int64_t rest_ns_ = 0;
  int64_t last_ns_ = 0;
  uint64_t last_bytes_ = 0;
};

// The pumps of a thread that have just sent and not received since. A processor that goes to sleep
// takes longer to wake than most answers take to come, and so does the process that has to wake
// it. So after a wake the answers are tried for, for some microseconds, where that pays. It does
// not where the processor is needed by those who are to answer, or where more would have come at
// once later.
//
// What then remains is to sleep. A turn of the event loop takes two waits for that (Node measures
// its idle time) and the work around them, so the thread waits here, for what the loop waits for,
// and receives the data. Anything that is not data of a pump is left to the loop at once.
class BusyPoll {
 public:
  explicit BusyPoll(PumpCounters* counters) : counters_(counters) {}
  // Nanoseconds to try for at most; with 0 nothing is tried.
  void SetLimit(int64_t nanoseconds) { limit_ns_ = nanoseconds; }
  // A pump has begun to receive, or does not any more.
  void Join(SocketPump* pump);
  void Leave(SocketPump* pump);
  void Await(SocketPump* pump);
  void Forget(SocketPump* pump);
  // Something has been received; returns the clock, which is read at each receipt and not between.
  int64_t NoteReceipt();
  // After a receipt: receives arriving data; other handles of `loop` get their turn after a bounded
  // time.
  void Run(uv_loop_t* loop);

 private:
  // Each is true when something was received.
  bool ReceiveAwaited(bool waits, int64_t now_ns);
  bool ReceiveUntil(int64_t end_ns);
  bool ReceiveAsLoop(uv_loop_t* loop);
  void ForgetAll();

  PumpCounters* counters_;
  std::vector<SocketPump*> awaited_;
  // Pumps by descriptor.
  std::vector<SocketPump*> joined_;
  int64_t limit_ns_ = 0;
  Trial trial_;
  int64_t receipt_ns_ = 0;
  bool running_ = false;
};

// CLOCK_MONOTONIC
int64_t NowNs();

}  // namespace iscsi_nbd
