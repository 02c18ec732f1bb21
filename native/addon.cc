// The N-API surface of the socket pump: check, call, convert. No protocol, no policy.
#include <napi.h>
#include <sys/socket.h>
#include <uv.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "addon_nbd.h"
#include "crc32c.h"
#include "notify.h"
#include "slab_table.h"
#include "socket_pump.h"

namespace iscsi_nbd {
namespace {

// Per environment (main thread or worker): the slabs its sockets may touch.
struct AddonData {
  SlabTable slabs;
  PumpCounters counters;
  std::vector<Napi::Reference<Napi::Uint8Array>> kept;
};

int32_t Int(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || !info[index].IsNumber()) {
    throw Napi::TypeError::New(info.Env(), "argument " + std::to_string(index) + ": number wanted");
  }
  return info[index].As<Napi::Number>().Int32Value();
}

std::string Text(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || !info[index].IsString()) {
    throw Napi::TypeError::New(info.Env(), "argument " + std::to_string(index) + ": string wanted");
  }
  return info[index].As<Napi::String>().Utf8Value();
}

class NativeSocket : public Napi::ObjectWrap<NativeSocket>, public PumpListener {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "NativeSocket",
                       {InstanceMethod<&NativeSocket::WatchReadable>("watchReadable"),
                        InstanceMethod<&NativeSocket::WatchWritable>("watchWritable"),
                        InstanceMethod<&NativeSocket::Send>("send"),
                        InstanceMethod<&NativeSocket::SetSendBuffer>("setSendBuffer"),
                        InstanceMethod<&NativeSocket::Error>("socketError"),
                        InstanceMethod<&NativeSocket::LocalAddress>("localAddress"),
                        InstanceMethod<&NativeSocket::RemoteAddress>("remoteAddress"),
                        InstanceMethod<&NativeSocket::ShutDown>("shutDown"),
                        InstanceMethod<&NativeSocket::Release>("release"),
                        InstanceMethod<&NativeSocket::Close>("close")});
  }

  // (fd, listening, window Int32Array(3), onEvent(kind, value))
  explicit NativeSocket(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<NativeSocket>(info), context_(info.Env(), "iscsi-nbd:socket") {
    const int fd = Int(info, 0);
    if (info.Length() < 4 || !info[2].IsTypedArray() || !info[3].IsFunction()) {
      throw Napi::TypeError::New(info.Env(), "NativeSocket(fd, listening, window, onEvent)");
    }
    auto window = info[2].As<Napi::Int32Array>();
    if (window.ElementLength() != 3) throw Napi::RangeError::New(info.Env(), "window: 3 numbers");
    uv_loop_t* loop = nullptr;
    napi_get_uv_event_loop(info.Env(), &loop);
    window_ = Napi::Persistent(window.As<Napi::TypedArray>());
    callback_ = Napi::Persistent(info[3].As<Napi::Function>());
    auto* data = info.Env().GetInstanceData<AddonData>();
    pump_ = std::make_unique<SocketPump>(loop, fd, info[1].ToBoolean(), &data->slabs,
                                         &data->counters, window.Data(), this);
    const int failed = pump_->Start();
    if (failed != 0) {
      pump_->Close();
      throw Napi::Error::New(info.Env(), std::string("uv_poll_init: ") + uv_strerror(failed));
    }
    Ref();  // an open socket keeps its object
  }

  void OnPumpEvent(PumpEvent event, int32_t value) override {
    Napi::Env env = Env();
    Napi::HandleScope scope(env);
    try {
      callback_.MakeCallback(
          Value(),
          {Napi::Number::New(env, static_cast<int32_t>(event)), Napi::Number::New(env, value)},
          context_);
    } catch (const Napi::Error& error) {
      // A throw out of the data path is a bug of ours: it becomes Node's uncaughtException.
      napi_fatal_exception(env, error.Value());
    }
  }

 private:
  void WatchReadable(const Napi::CallbackInfo& info) { pump_->WatchReadable(info[0].ToBoolean()); }
  void WatchWritable(const Napi::CallbackInfo& info) { pump_->WatchWritable(info[0].ToBoolean()); }

  // (table Int32Array, firstEntry, entryCount, capacity) -> bytes taken, or -errno
  Napi::Value Send(const Napi::CallbackInfo& info) {
    auto table = info[0].As<Napi::Int32Array>();
    const auto first = static_cast<uint32_t>(Int(info, 1));
    const auto count = static_cast<uint32_t>(Int(info, 2));
    const auto capacity = static_cast<uint32_t>(Int(info, 3));
    if (capacity == 0 || count > capacity || table.ElementLength() < size_t{capacity} * 3) {
      throw Napi::RangeError::New(info.Env(), "send: entries outside the table");
    }
    return Napi::Number::New(
        info.Env(), static_cast<double>(pump_->Send(table.Data(), first, count, capacity)));
  }

  // (bytes)
  void SetSendBuffer(const Napi::CallbackInfo& info) {
    const int bytes = Int(info, 0);
    if (!pump_->IsClosed()) SetSendBufferBytes(pump_->fd(), bytes);
  }

  Napi::Value Error(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), pump_->IsClosed() ? EBADF : SocketError(pump_->fd()));
  }

  // () -> {host, port} of one end of a TCP connection, or null
  Napi::Value LocalAddress(const Napi::CallbackInfo&) { return Address(SocketEnd::kLocal); }
  Napi::Value RemoteAddress(const Napi::CallbackInfo&) { return Address(SocketEnd::kRemote); }

  Napi::Value Address(SocketEnd end) {
    std::string address;
    uint16_t port = 0;
    if (pump_->IsClosed() || !SocketAddress(pump_->fd(), end, &address, &port)) return Env().Null();
    Napi::Object result = Napi::Object::New(Env());
    result.Set("host", address);
    result.Set("port", port);
    return result;
  }

  // Both directions end for the peer at once; the descriptor stays until `close`.
  void ShutDown(const Napi::CallbackInfo&) {
    if (!pump_->IsClosed()) shutdown(pump_->fd(), SHUT_RDWR);
  }

  void Close(const Napi::CallbackInfo&) {
    if (pump_->IsClosed()) return;
    pump_->Close();
    LetGo();
  }

  Napi::Value Release(const Napi::CallbackInfo& info) {
    const bool open = !pump_->IsClosed();
    const int fd = pump_->Release();
    if (open) LetGo();
    return Napi::Number::New(info.Env(), fd);
  }

  // Nothing more is told. The callback knows its owner, which knows this object: a reference from
  // here would keep all three, with the session behind them, for ever.
  void LetGo() {
    callback_.Reset();
    window_.Reset();
    Unref();
  }

  Napi::AsyncContext context_;
  Napi::FunctionReference callback_;
  Napi::Reference<Napi::TypedArray> window_;
  std::unique_ptr<SocketPump> pump_;
};

// (index, Uint8Array)
void SetSlab(const Napi::CallbackInfo& info) {
  auto* data = info.Env().GetInstanceData<AddonData>();
  const auto index = static_cast<size_t>(Int(info, 0));
  auto bytes = info[1].As<Napi::Uint8Array>();
  data->slabs.Set(index, Slab{bytes.Data(), bytes.ByteLength()});
  if (index >= data->kept.size()) data->kept.resize(index + 1);
  data->kept[index] = Napi::Persistent(bytes);
}

// (index)
void DropSlab(const Napi::CallbackInfo& info) {
  info.Env().GetInstanceData<AddonData>()->slabs.Drop(Int(info, 0));
}

// () -> {receives, sends, watches, bytesReceived, bytesSent}
Napi::Value Counters(const Napi::CallbackInfo& info) {
  const PumpCounters& counters = info.Env().GetInstanceData<AddonData>()->counters;
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("receives", static_cast<double>(counters.receives));
  result.Set("sends", static_cast<double>(counters.sends));
  result.Set("watches", static_cast<double>(counters.watches));
  result.Set("bytesReceived", static_cast<double>(counters.bytes_received));
  result.Set("bytesSent", static_cast<double>(counters.bytes_sent));
  return result;
}

uint32_t Unsigned(const Napi::CallbackInfo& info, size_t index) {
  return info[index].As<Napi::Number>().Uint32Value();
}

// (slab, offset, length, seed, byTable?) -> CRC32C
Napi::Value Crc32cJs(const Napi::CallbackInfo& info) {
  auto* data = info.Env().GetInstanceData<AddonData>();
  const int32_t length = Int(info, 2);
  const uint8_t* memory = data->slabs.At(Int(info, 0), Int(info, 1), length);
  if (memory == nullptr) throw Napi::RangeError::New(info.Env(), "crc32c: bytes outside a slab");
  const auto size = static_cast<size_t>(length);
  const uint32_t seed = Unsigned(info, 3);
  const bool by_table = info.Length() > 4 && info[4].ToBoolean();
  return Napi::Number::New(info.Env(), by_table ? Crc32cByTable(seed, memory, size)
                                                : Crc32c(seed, memory, size));
}

// (address, port) -> fd or -errno
Napi::Value ConnectTcpJs(const Napi::CallbackInfo& info) {
  const int port = Int(info, 1);
  return Napi::Number::New(info.Env(),
                           ConnectTcp(Text(info, 0).c_str(), static_cast<uint16_t>(port)));
}

// (path, mode) -> fd or -errno
Napi::Value ListenUnixJs(const Napi::CallbackInfo& info) {
  const int mode = Int(info, 1);
  return Napi::Number::New(info.Env(),
                           ListenUnix(Text(info, 0).c_str(), static_cast<uint32_t>(mode)));
}

// (socket path, text) -> 0 or -errno
Napi::Value SendNotifyJs(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), SendNotify(Text(info, 0), Text(info, 1)));
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new AddonData());
  exports.Set("NativeSocket", NativeSocket::Define(env));
  exports.Set("setSlab", Napi::Function::New(env, SetSlab));
  exports.Set("dropSlab", Napi::Function::New(env, DropSlab));
  exports.Set("counters", Napi::Function::New(env, Counters));
  exports.Set("crc32c", Napi::Function::New<Crc32cJs>(env));
  exports.Set("connectTcp", Napi::Function::New(env, ConnectTcpJs));
  exports.Set("listenUnix", Napi::Function::New(env, ListenUnixJs));
  exports.Set("sendNotify", Napi::Function::New(env, SendNotifyJs));
  InitNbd(env, exports);
  return exports;
}

}  // namespace
}  // namespace iscsi_nbd

static Napi::Object InitModule(Napi::Env env, Napi::Object exports) {
  return iscsi_nbd::Init(env, exports);
}

NODE_API_MODULE(iscsi_nbd, InitModule)
