// What the addon has for each environment: the main thread, or a worker.
#pragma once

#include <napi.h>

#include <memory>
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

}  // namespace iscsi_nbd
