// Blocking calls as promises, each on a thread of its own.
//
// Not libuv's pool: it has four threads, and a netlink command or an fsync can be stuck in the
// kernel for as long as a link is down. Four such calls would stop all file access of the process.
#pragma once

#include <napi.h>
#include <uv.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>

namespace iscsi_nbd {

class SystemError;

// Runs on the event loop's thread and makes the value the promise resolves with.
using Answer = std::function<Napi::Value(Napi::Env)>;
// Runs on the job's thread; no N-API calls. A SystemError rejects the promise. Its descriptors are
// its own: the environment may be gone, and their numbers given anew, before it is done.
using Job = std::function<Answer()>;

struct RunningJob;

// Where the jobs of an environment come back to. A job may outlive it; then its result is dropped.
class JobHome : public std::enable_shared_from_this<JobHome> {
 public:
  static std::shared_ptr<JobHome> Open(Napi::Env env);
  ~JobHome();
  // On the event loop's thread.
  void Started();
  void Close();
  // On the job's thread.
  void Done(std::unique_ptr<RunningJob> job);

 private:
  struct Wake;
  explicit JobHome(Napi::Env env);
  void Settle();

  Napi::Env env_;
  // Null once the environment closes; the last job may be the one that frees this.
  std::unique_ptr<Napi::AsyncContext> context_;
  std::mutex mutex_;
  std::deque<std::unique_ptr<RunningJob>> done_;
  Wake* wake_ = nullptr;
  int away_ = 0;
};

Napi::Promise RunJob(Napi::Env env, Job job);

// An Error with `code` (errno name), `errno` (number) and `syscall`.
Napi::Error ToJsError(Napi::Env env, const SystemError& error);

}  // namespace iscsi_nbd
