// Check, call, convert: what it does is in shared_memory.h.
#include <cmath>
#include <string>

#include "addon_nbd.h"
#include "job_thread.h"
#include "nbd_netlink.h"
#include "shared_memory.h"

namespace iscsi_nbd {
namespace {

constexpr double kFileBytesMax = 9007199254740991.0;  // 2^53 - 1
constexpr double kMappedBytesMax = 1 << 30;
constexpr double kPageBytes = 4096;

uint64_t Number(const Napi::CallbackInfo& info, size_t index, double max, double multiple = 1) {
  const double number = info[index].IsNumber() ? info[index].As<Napi::Number>().DoubleValue() : -1;
  if (!(number >= 0 && number <= max) || std::fmod(number, multiple) != 0) {
    throw Napi::RangeError::New(
        info.Env(), "argument " + std::to_string(index) + ": whole number in range wanted");
  }
  return static_cast<uint64_t>(number);
}

int Descriptor(const Napi::CallbackInfo& info) {
  return static_cast<int>(Number(info, 0, 2147483647));
}

template <typename Call>
auto Guarded(Napi::Env env, Call call) {
  try {
    return call();
  } catch (const SystemError& error) {
    throw ToJsError(env, error);
  }
}

// (fd, offset, length)
void Reserve(const Napi::CallbackInfo& info) {
  const int fd = Descriptor(info);
  const uint64_t offset = Number(info, 1, kFileBytesMax);
  const uint64_t length = Number(info, 2, kFileBytesMax);
  Guarded(info.Env(), [=] { ReserveRange(fd, offset, length); });
}

// (fd, offset, length)
void Punch(const Napi::CallbackInfo& info) {
  const int fd = Descriptor(info);
  const uint64_t offset = Number(info, 1, kFileBytesMax);
  const uint64_t length = Number(info, 2, kFileBytesMax);
  Guarded(info.Env(), [=] { PunchRange(fd, offset, length); });
}

// (fd, exclusive) -> boolean
Napi::Value Lock(const Napi::CallbackInfo& info) {
  const int fd = Descriptor(info);
  const bool exclusive = info[1].ToBoolean();
  const bool locked = Guarded(info.Env(), [=] { return TryLock(fd, exclusive); });
  return Napi::Boolean::New(info.Env(), locked);
}

// (fd, offset, length, writable) -> ArrayBuffer, unmapped when it is detached or collected
Napi::Value Map(const Napi::CallbackInfo& info) {
  const int fd = Descriptor(info);
  const uint64_t offset = Number(info, 1, kFileBytesMax, kPageBytes);
  const size_t length = Number(info, 2, kMappedBytesMax, kPageBytes);
  const bool writable = info[3].ToBoolean();
  void* memory = Guarded(info.Env(), [=] { return MapRange(fd, offset, length, writable); });
  const auto unmap = [length](Napi::Env, void* data) { UnmapRange(data, length); };
  return Napi::ArrayBuffer::New(info.Env(), memory, length, unmap);
}

// (ArrayBuffer)
void Touch(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) throw Napi::TypeError::New(info.Env(), "ArrayBuffer wanted");
  auto memory = info[0].As<Napi::ArrayBuffer>();
  if (memory.ByteLength() > 0) TouchRange(memory.Data(), memory.ByteLength());
}

// (ArrayBuffer); it has no bytes from then on
void Unmap(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) throw Napi::TypeError::New(info.Env(), "ArrayBuffer wanted");
  auto memory = info[0].As<Napi::ArrayBuffer>();
  if (!memory.IsDetached()) memory.Detach();
}

}  // namespace

void InitSharedMemory(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("reserveRange", Reserve);
  add("punchRange", Punch);
  add("tryLock", Lock);
  add("mapRange", Map);
  add("touchRange", Touch);
  add("unmapRange", Unmap);
}

}  // namespace iscsi_nbd
