// The N-API surface beside that of the sockets: their waiting, the kernel's NBD devices, and shared
// memory.
#pragma once

#include <napi.h>

namespace iscsi_nbd {

void InitNbd(Napi::Env env, Napi::Object exports);
void InitWaiting(Napi::Env env, Napi::Object exports);
void InitSharedMemory(Napi::Env env, Napi::Object exports);

}  // namespace iscsi_nbd
