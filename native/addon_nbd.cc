// Check, call, convert: what it does is in nbd_netlink.h.
#include "addon_nbd.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "addon_data.h"
#include "cpu_affinity.h"
#include "job_thread.h"
#include "nbd_netlink.h"

namespace iscsi_nbd {
namespace {

constexpr double kSafeIntegerMax = 9007199254740991.0;  // 2^53 - 1
constexpr size_t kIdentifierBytesMax = 255;

[[noreturn]] void Refuse(Napi::Env env, const std::string& name, const char* wanted) {
  throw Napi::TypeError::New(env, name + ": " + wanted + " wanted");
}

uint64_t ToUnsigned(Napi::Value value, const std::string& name, double max) {
  if (!value.IsNumber()) Refuse(value.Env(), name, "number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= 0 && number <= max) || std::floor(number) != number) {
    Refuse(value.Env(), name, "whole number in range");
  }
  return static_cast<uint64_t>(number);
}

uint32_t ToU32(Napi::Value value, const std::string& name) {
  return static_cast<uint32_t>(
      ToUnsigned(value, name, static_cast<double>(std::numeric_limits<uint32_t>::max())));
}

int ToInt(Napi::Value value, const std::string& name) {
  return static_cast<int>(
      ToUnsigned(value, name, static_cast<double>(std::numeric_limits<int>::max())));
}

std::string ToText(Napi::Value value, const std::string& name) {
  if (!value.IsString()) Refuse(value.Env(), name, "string");
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.find('\0') != std::string::npos) Refuse(value.Env(), name, "string without NUL");
  return text;
}

Napi::Object ToObject(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) Refuse(info.Env(), "request", "object");
  return info[0].As<Napi::Object>();
}

bool Has(Napi::Object object, const char* name) { return !object.Get(name).IsUndefined(); }

uint64_t Size(Napi::Object object, const char* name) {
  return ToUnsigned(object.Get(name), name, kSafeIntegerMax);
}

std::string Identifier(Napi::Object object) {
  std::string text = ToText(object.Get("identifier"), "identifier");
  if (text.empty() || text.size() > kIdentifierBytesMax) {
    Refuse(object.Env(), "identifier", "1 to 255 bytes");
  }
  return text;
}

// Of the job's own: the number may mean another one before the job is done.
std::shared_ptr<Fd> CopyOf(Napi::Env env, int fd) {
  Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (copy.get() < 0) throw ToJsError(env, SystemError(errno, "fcntl"));
  return std::make_shared<Fd>(std::move(copy));
}

// The environment closes what was neither taken nor closed there.
Answer DescriptorAnswer(Fd fd) {
  auto opened = std::make_shared<Fd>(std::move(fd));
  return [opened](Napi::Env env) {
    return Napi::Number::New(env, DataOf(env)->loose.Hold(opened->Release()));
  };
}

Answer Undefined() {
  return [](Napi::Env env) { return env.Undefined(); };
}

Answer NumberAnswer(double number) {
  return [number](Napi::Env env) { return Napi::Number::New(env, number); };
}

// () -> Promise<{id}>
Napi::Value ResolveFamily(const Napi::CallbackInfo& info) {
  return RunJob(info.Env(), [] {
    const NbdFamily family = NbdResolveFamily();
    return Answer([family](Napi::Env env) {
      Napi::Object result = Napi::Object::New(env);
      result.Set("id", Napi::Number::New(env, family.id));
      return result;
    });
  });
}

// (request) -> Promise<index>
Napi::Value Connect(const Napi::CallbackInfo& info) {
  Napi::Object from = ToObject(info);
  NbdConnectRequest request;
  if (Has(from, "index")) request.index = ToU32(from.Get("index"), "index");
  request.size_bytes = Size(from, "sizeBytes");
  request.block_size_bytes = Size(from, "blockSizeBytes");
  request.server_flags = Size(from, "serverFlags");
  request.client_flags = Size(from, "clientFlags");
  request.dead_conn_timeout_seconds = Size(from, "deadConnTimeoutSeconds");
  request.identifier = Identifier(from);
  const auto socket = CopyOf(info.Env(), ToInt(from.Get("socketFd"), "socketFd"));
  request.socket_fd = socket->get();
  return RunJob(info.Env(), [request, socket] {
    const uint32_t index = NbdConnect(request);
    // A copy that is open while the answer is on its way would hide our death from the kernel.
    socket->Reset();
    return NumberAnswer(index);
  });
}

// (request) -> Promise<void>
Napi::Value Reconfigure(const Napi::CallbackInfo& info) {
  Napi::Object from = ToObject(info);
  NbdReconfigureRequest request;
  request.index = ToU32(from.Get("index"), "index");
  request.identifier = Identifier(from);
  if (Has(from, "sizeBytes")) request.size_bytes = Size(from, "sizeBytes");
  if (Has(from, "deadConnTimeoutSeconds")) {
    request.dead_conn_timeout_seconds = Size(from, "deadConnTimeoutSeconds");
  }
  std::shared_ptr<Fd> socket;
  if (Has(from, "socketFd")) {
    socket = CopyOf(info.Env(), ToInt(from.Get("socketFd"), "socketFd"));
    request.socket_fd = socket->get();
  }
  return RunJob(info.Env(), [request, socket] {
    NbdReconfigure(request);
    if (socket != nullptr) socket->Reset();
    return Undefined();
  });
}

// (index) -> Promise<void>
Napi::Value Disconnect(const Napi::CallbackInfo& info) {
  const uint32_t index = ToU32(info[0], "index");
  return RunJob(info.Env(), [index] {
    NbdDisconnect(index);
    return Undefined();
  });
}

// (index?) -> Promise<{index, connected}[]>
Napi::Value Status(const Napi::CallbackInfo& info) {
  std::optional<uint32_t> index;
  if (!info[0].IsUndefined()) index = ToU32(info[0], "index");
  return RunJob(info.Env(), [index] {
    const std::vector<NbdStatus> devices = NbdGetStatus(index);
    return Answer([devices](Napi::Env env) {
      Napi::Array list = Napi::Array::New(env, devices.size());
      for (uint32_t at = 0; at < devices.size(); ++at) {
        Napi::Object item = Napi::Object::New(env);
        item.Set("index", Napi::Number::New(env, devices[at].index));
        item.Set("connected", Napi::Boolean::New(env, devices[at].connected));
        list.Set(at, item);
      }
      return list;
    });
  });
}

// (path) -> Promise<fd>
Napi::Value OpenExclusiveJs(const Napi::CallbackInfo& info) {
  const std::string path = ToText(info[0], "path");
  return RunJob(info.Env(), [path] { return DescriptorAnswer(OpenExclusive(path)); });
}

// (fd) -> Promise<void>
Napi::Value SyncDeviceJs(const Napi::CallbackInfo& info) {
  const auto device = CopyOf(info.Env(), ToInt(info[0], "fd"));
  return RunJob(info.Env(), [device] {
    SyncDevice(device->get());
    device->Reset();
    return Undefined();
  });
}

// (fd) -> Promise<void>; the last close of a block device may wait for its I/O
Napi::Value CloseDevice(const Napi::CallbackInfo& info) {
  const int fd = ToInt(info[0], "fd");
  DataOf(info.Env())->loose.LetGo(fd);
  const auto device = std::make_shared<Fd>(fd);
  return RunJob(info.Env(), [device] {
    device->Reset();
    return Undefined();
  });
}

// (path, readOnly) -> Promise<void>
Napi::Value SetReadOnlyJs(const Napi::CallbackInfo& info) {
  const std::string path = ToText(info[0], "path");
  const bool read_only = info[1].ToBoolean();
  return RunJob(info.Env(), [path, read_only] {
    SetReadOnly(path, read_only);
    return Undefined();
  });
}

// (path, text) -> Promise<void>
Napi::Value WriteAttributeJs(const Napi::CallbackInfo& info) {
  const std::string path = ToText(info[0], "path");
  const std::string text = ToText(info[1], "text");
  return RunJob(info.Env(), [path, text] {
    WriteAttribute(path, text);
    return Undefined();
  });
}

// (path, major, minor) -> Promise<void>
Napi::Value MakeBlockNodeJs(const Napi::CallbackInfo& info) {
  const std::string path = ToText(info[0], "path");
  const uint32_t major_number = ToU32(info[1], "major");
  const uint32_t minor_number = ToU32(info[2], "minor");
  return RunJob(info.Env(), [path, major_number, minor_number] {
    MakeBlockNode(path, major_number, minor_number);
    return Undefined();
  });
}

// Runs a call that does not block and turns its SystemError into an exception.
template <typename Call>
auto Guarded(Napi::Env env, Call call) {
  try {
    return call();
  } catch (const SystemError& error) {
    throw ToJsError(env, error);
  }
}

// () -> [ourFd, kernelFd]
Napi::Value SocketPairJs(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return Guarded(env, [env]() -> Napi::Value {
    auto [ours, kernels] = NbdSocketPair();
    Napi::Array result = Napi::Array::New(env, 2);
    LooseDescriptors& loose = DataOf(env)->loose;
    result.Set(0u, Napi::Number::New(env, loose.Hold(ours.Release())));
    result.Set(1u, Napi::Number::New(env, loose.Hold(kernels.Release())));
    return result;
  });
}

// (fd, bytes) -> send buffer in force
Napi::Value SetSocketBuffersJs(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const int fd = ToInt(info[0], "fd");
  const int bytes = ToInt(info[1], "bytes");
  return Guarded(env, [env, fd, bytes]() -> Napi::Value {
    return Napi::Number::New(env, SetSocketBuffers(fd, bytes));
  });
}

// (fd) -> boolean
Napi::Value IsAtEndJs(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), IsAtEnd(ToInt(info[0], "fd")));
}

// (fd); for descriptors without another owner
void CloseFd(const Napi::CallbackInfo& info) {
  const int fd = ToInt(info[0], "fd");
  DataOf(info.Env())->loose.LetGo(fd);
  Fd(fd).Reset();
}

void SetIoFlusherJs(const Napi::CallbackInfo& info) { Guarded(info.Env(), SetIoFlusher); }

std::vector<uint32_t> Processors(const Napi::CallbackInfo& info) {
  if (!info[0].IsArray()) Refuse(info.Env(), "processors", "array");
  const auto list = info[0].As<Napi::Array>();
  if (list.Length() > kProcessorsMax) Refuse(info.Env(), "processors", "shorter array");
  std::vector<uint32_t> processors;
  for (uint32_t at = 0; at < list.Length(); ++at) {
    const uint64_t number = ToUnsigned(list.Get(at), "processor", kProcessorsMax - 1);
    processors.push_back(static_cast<uint32_t>(number));
  }
  return processors;
}

// (processors)
void SetCpuAffinityJs(const Napi::CallbackInfo& info) {
  const std::vector<uint32_t> processors = Processors(info);
  Guarded(info.Env(), [&processors] { SetCpuAffinity(processors); });
}

// (processors)
void SetThreadAffinityJs(const Napi::CallbackInfo& info) {
  const std::vector<uint32_t> processors = Processors(info);
  Guarded(info.Env(), [&processors] { SetThreadAffinity(processors); });
}

// () -> number of the calling thread, as /proc/self/task has it
Napi::Value ThreadIdJs(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(syscall(SYS_gettid)));
}

}  // namespace

void InitNbd(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("nbdResolveFamily", ResolveFamily);
  add("nbdConnect", Connect);
  add("nbdReconfigure", Reconfigure);
  add("nbdDisconnect", Disconnect);
  add("nbdStatus", Status);
  add("openExclusive", OpenExclusiveJs);
  add("syncDevice", SyncDeviceJs);
  add("closeDevice", CloseDevice);
  add("setReadOnly", SetReadOnlyJs);
  add("writeAttribute", WriteAttributeJs);
  add("makeBlockNode", MakeBlockNodeJs);
  add("socketPair", SocketPairJs);
  add("setSocketBuffers", SetSocketBuffersJs);
  add("isAtEnd", IsAtEndJs);
  add("closeFd", CloseFd);
  add("setIoFlusher", SetIoFlusherJs);
  add("setCpuAffinity", SetCpuAffinityJs);
  add("setThreadAffinity", SetThreadAffinityJs);
  add("threadId", ThreadIdJs);
}

}  // namespace iscsi_nbd
