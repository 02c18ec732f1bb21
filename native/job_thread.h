// Blocking calls as promises, each on a thread of its own.
//
// Not libuv's pool: it has four threads, and a netlink command or an fsync can be stuck in the
// kernel for as long as a link is down. Four such calls would stop all file access of the process.
#pragma once

#include <napi.h>

#include <functional>

namespace iscsi_nbd {

class SystemError;

// Runs on the event loop's thread and makes the value the promise resolves with.
using Answer = std::function<Napi::Value(Napi::Env)>;
// Runs on the job's thread; no N-API calls. A SystemError rejects the promise.
using Job = std::function<Answer()>;

Napi::Promise RunJob(Napi::Env env, Job job);

// An Error with `code` (errno name), `errno` (number) and `syscall`.
Napi::Error ToJsError(Napi::Env env, const SystemError& error);

}  // namespace iscsi_nbd
