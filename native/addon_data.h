// What the addon has for each environment: the main thread, or a worker.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "job_thread.h"
#include "loose_descriptors.h"
#include "socket_pump.h"

namespace iscsi_nbd {

// The environment finalizes it after the sockets, which were made later and use it.
struct AddonData {
  explicit AddonData(Napi::Env env) : jobs(JobHome::Open(env)) {}
  ~AddonData() { jobs->Close(); }

  LooseDescriptors loose;
  PumpThread thread;
  std::vector<Napi::Reference<Napi::Uint8Array>> kept;
  Napi::Reference<Napi::TypedArray> receipt_clock;
  std::shared_ptr<JobHome> jobs;
};

inline AddonData* DataOf(Napi::Env env) { return env.GetInstanceData<AddonData>(); }

// A numeric argument of a function of the addon; throws TypeError otherwise.
inline int32_t Int(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || !info[index].IsNumber()) {
    throw Napi::TypeError::New(info.Env(), "argument " + std::to_string(index) + ": number wanted");
  }
  return info[index].As<Napi::Number>().Int32Value();
}

}  // namespace iscsi_nbd
