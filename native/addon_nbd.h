// The N-API surface of the kernel's NBD devices.
#pragma once

#include <napi.h>

namespace iscsi_nbd {

void InitNbd(Napi::Env env, Napi::Object exports);

}  // namespace iscsi_nbd
