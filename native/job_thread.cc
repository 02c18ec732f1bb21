#include "job_thread.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "addon_data.h"
#include "nbd_netlink.h"

namespace iscsi_nbd {
namespace {

// A device has a handful of blocking calls at once at most, and hosts have dozens of devices.
constexpr int kJobsMax = 512;
std::atomic<int> jobs_running{0};

// Signals are for the threads Node knows: none interrupts a blocking call here.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

struct RunningJob {
  RunningJob(Napi::Env env, Job work)
      : deferred(Napi::Promise::Deferred::New(env)), job(std::move(work)) {}

  void Run() {
    try {
      answer = job();
    } catch (const SystemError& error) {
      failure = error;
    } catch (const std::bad_alloc&) {
      failure = SystemError(ENOMEM, "job");
    }
  }

  void Settle(Napi::Env env) {
    if (failure) {
      deferred.Reject(ToJsError(env, *failure).Value());
    } else {
      deferred.Resolve(answer ? answer(env) : env.Undefined());
    }
  }

  Napi::Promise::Deferred deferred;
  Job job;
  Answer answer;
  std::optional<SystemError> failure;
};

// libuv frees a closed handle one loop turn later, so it lives apart.
struct JobHome::Wake {
  uv_async_t async;
  JobHome* home;
};

JobHome::JobHome(Napi::Env env)
    : env_(env), context_(std::make_unique<Napi::AsyncContext>(env, "iscsi-nbd:job")) {}

JobHome::~JobHome() = default;

std::shared_ptr<JobHome> JobHome::Open(Napi::Env env) {
  std::shared_ptr<JobHome> home(new JobHome(env));
  uv_loop_t* loop = nullptr;
  napi_get_uv_event_loop(env, &loop);
  home->wake_ = new Wake{};
  home->wake_->home = home.get();
  home->wake_->async.data = home->wake_;
  uv_async_init(loop, &home->wake_->async, [](uv_async_t* async) {
    auto* wake = static_cast<Wake*>(async->data);
    if (wake->home != nullptr) wake->home->Settle();
  });
  uv_unref(reinterpret_cast<uv_handle_t*>(&home->wake_->async));
  return home;
}

void JobHome::Started() {
  away_ += 1;
  uv_ref(reinterpret_cast<uv_handle_t*>(&wake_->async));
}

void JobHome::Close() {
  std::deque<std::unique_ptr<RunningJob>> dropped;
  context_.reset();
  const std::lock_guard<std::mutex> lock(mutex_);
  dropped.swap(done_);
  Wake* closing = std::exchange(wake_, nullptr);
  if (closing == nullptr) return;
  closing->home = nullptr;
  uv_close(reinterpret_cast<uv_handle_t*>(&closing->async),
           [](uv_handle_t* handle) { delete static_cast<Wake*>(handle->data); });
}

void JobHome::Done(std::unique_ptr<RunningJob> job) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (wake_ == nullptr) return;  // what it has opened is closed with it
  done_.push_back(std::move(job));
  uv_async_send(&wake_->async);
}

void JobHome::Settle() {
  std::deque<std::unique_ptr<RunningJob>> settled;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    settled.swap(done_);
  }
  away_ -= static_cast<int>(settled.size());
  if (away_ == 0) uv_unref(reinterpret_cast<uv_handle_t*>(&wake_->async));
  for (const auto& job : settled) {
    const Napi::HandleScope handles(env_);
    // Code that waits for the promise runs when it ends.
    const Napi::CallbackScope callback(env_, *context_);
    job->Settle(env_);
  }
}

Napi::Promise RunJob(Napi::Env env, Job job) {
  auto running = std::make_unique<RunningJob>(env, std::move(job));
  Napi::Promise promise = running->deferred.Promise();
  if (jobs_running.fetch_add(1) >= kJobsMax) {
    jobs_running.fetch_sub(1);
    running->failure = SystemError(EAGAIN, "job thread");
    running->Settle(env);
    return promise;
  }
  std::shared_ptr<JobHome> home = DataOf(env)->jobs;
  try {
    const SignalsBlocked blocked;
    std::thread([home, job = std::move(running)]() mutable {
      job->Run();
      jobs_running.fetch_sub(1);
      home->Done(std::move(job));
    }).detach();
  } catch (const std::system_error&) {
    jobs_running.fetch_sub(1);
    throw ToJsError(env, SystemError(EAGAIN, "job thread"));
  }
  home->Started();
  return promise;
}

Napi::Error ToJsError(Napi::Env env, const SystemError& error) {
  Napi::Error result = Napi::Error::New(env, error.what());
  result.Set("code", Napi::String::New(env, ErrnoName(error.error())));
  result.Set("errno", Napi::Number::New(env, error.error()));
  result.Set("syscall", Napi::String::New(env, error.operation()));
  return result;
}

}  // namespace iscsi_nbd
