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

#include "nbd_netlink.h"

namespace iscsi_nbd {
namespace {

// A device has a handful of blocking calls at once at most, and hosts have dozens of devices.
constexpr int kJobsMax = 512;
std::atomic<int> jobs_running{0};

struct Running {
  Running(Napi::Env env, Job work)
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
    Napi::HandleScope scope(env);
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

void RunAndReport(std::unique_ptr<Running> running, Napi::ThreadSafeFunction home) {
  running->Run();
  jobs_running.fetch_sub(1);
  Running* handed = running.release();
  const napi_status status =
      home.BlockingCall(handed, [](Napi::Env env, Napi::Function, Running* settled) {
        std::unique_ptr<Running> owned(settled);
        if (static_cast<napi_env>(env) != nullptr) owned->Settle(env);
      });
  // While the environment closes, the call is refused, and the handle is no longer ours.
  if (status == napi_ok) {
    home.Release();
  } else {
    delete handed;
  }
}

}  // namespace

Napi::Promise RunJob(Napi::Env env, Job job) {
  auto running = std::make_unique<Running>(env, std::move(job));
  Napi::Promise promise = running->deferred.Promise();
  if (jobs_running.fetch_add(1) >= kJobsMax) {
    jobs_running.fetch_sub(1);
    running->failure = SystemError(EAGAIN, "job thread");
    running->Settle(env);
    return promise;
  }
  auto nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  auto home = Napi::ThreadSafeFunction::New(env, nothing, "iscsi-nbd:job", 0, 1);
  try {
    const SignalsBlocked blocked;
    std::thread(RunAndReport, std::move(running), home).detach();
  } catch (const std::system_error&) {
    jobs_running.fetch_sub(1);
    home.Release();
    throw ToJsError(env, SystemError(EAGAIN, "job thread"));
  }
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
