// The N-API surface of the socket pump: check, call, convert. No protocol, no policy.
#include <napi.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <uv.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "addon_data.h"
#include "addon_nbd.h"
#include "crc32c.h"
#include "notify.h"
#include "slab_table.h"
#include "socket_pump.h"

namespace iscsi_nbd {
namespace {

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
                        InstanceMethod<&NativeSocket::UseTable>("useTable"),
                        InstanceMethod<&NativeSocket::SetSendBuffer>("setSendBuffer"),
                        InstanceMethod<&NativeSocket::Error>("socketError"),
                        InstanceMethod<&NativeSocket::LocalAddress>("localAddress"),
                        InstanceMethod<&NativeSocket::RemoteAddress>("remoteAddress"),
                        InstanceMethod<&NativeSocket::ShutDown>("shutDown"),
                        InstanceMethod<&NativeSocket::EndReceiving>("endReceiving"),
                        InstanceMethod<&NativeSocket::Release>("release"),
                        InstanceMethod<&NativeSocket::CloseInOrder>("closeInOrder"),
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
    auto* data = DataOf(info.Env());
    data->loose.LetGo(fd);
    pump_ = std::make_unique<SocketPump>(loop, fd, info[1].ToBoolean(), &data->thread,
                                         window.Data(), this);
    const int failed = pump_->Start();
    if (failed != 0) {
      pump_->Close();
      throw Napi::Error::New(info.Env(), std::string("uv_poll_init: ") + uv_strerror(failed));
    }
    DefineSend(info);
    Ref();  // an open socket keeps its object
  }

  ~NativeSocket() override { self_->socket = nullptr; }

  // On the data path, so without the wrappers' allocations and lookups.
  void OnPumpEvent(PumpEvent event, int32_t value) override {
    const napi_env env = Env();
    const Napi::HandleScope scope(env);
    if (event == PumpEvent::kAccepted) DataOf(Env())->loose.Hold(value);
    napi_value callback = nullptr;
    napi_value arguments[2];
    napi_get_reference_value(env, callback_, &callback);
    napi_create_int32(env, static_cast<int32_t>(event), &arguments[0]);
    napi_create_int32(env, value, &arguments[1]);
    const napi_status status =
        napi_make_callback(env, context_, callback, callback, 2, arguments, nullptr);
    if (status == napi_pending_exception) {
      // A throw out of the data path is a bug of ours: it becomes Node's uncaughtException.
      napi_value error = nullptr;
      napi_get_and_clear_last_exception(env, &error);
      napi_fatal_exception(env, error);
    }
  }

 private:
  // What the function `send` knows of its socket. Found by `this`, it would be looked up by name.
  struct Self {
    NativeSocket* socket;
  };

  void DefineSend(const Napi::CallbackInfo& info) {
    const napi_env env = info.Env();
    napi_value send = nullptr;
    auto* held = new std::shared_ptr<Self>(self_);
    if (napi_create_function(env, "send", NAPI_AUTO_LENGTH, &NativeSocket::Send, self_.get(),
                             &send) != napi_ok ||
        napi_add_finalizer(
            env, send, held,
            [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<Self>*>(data); },
            nullptr, nullptr) != napi_ok) {
      delete held;
      throw Napi::Error::New(info.Env());
    }
    info.This().As<Napi::Object>().Set("send", send);
  }

  // (table Int32Array): the ring of slab, offset and length that `send` speaks of.
  void UseTable(const Napi::CallbackInfo& info) {
    if (info.Length() < 1 || !info[0].IsTypedArray() ||
        info[0].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
      throw Napi::TypeError::New(info.Env(), "useTable: Int32Array wanted");
    }
    auto table = info[0].As<Napi::Int32Array>();
    table_ = table.Data();
    capacity_ = static_cast<uint32_t>(table.ElementLength() / 3);
    table_kept_ = Napi::Persistent(table.As<Napi::TypedArray>());
  }

  // (firstEntry, entryCount) -> bytes taken, or -errno
  static napi_value Send(napi_env env, napi_callback_info info) {
    size_t count = 2;
    napi_value arguments[2];
    void* data = nullptr;
    napi_get_cb_info(env, info, &count, arguments, nullptr, &data);
    NativeSocket* socket = static_cast<Self*>(data)->socket;
    uint32_t first = 0;
    uint32_t entries = 0;
    if (napi_get_value_uint32(env, arguments[0], &first) != napi_ok ||
        napi_get_value_uint32(env, arguments[1], &entries) != napi_ok || socket == nullptr ||
        entries > socket->capacity_) {
      napi_throw_range_error(env, nullptr, "send: entries outside the table");
      return nullptr;
    }
    napi_value taken = nullptr;
    napi_create_int64(env, socket->pump_->Send(socket->table_, first, entries, socket->capacity_),
                      &taken);
    return taken;
  }

  void WatchReadable(const Napi::CallbackInfo& info) { pump_->WatchReadable(info[0].ToBoolean()); }
  void WatchWritable(const Napi::CallbackInfo& info) { pump_->WatchWritable(info[0].ToBoolean()); }

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

  // What the peer sends from now on fails there (a unix socket: EPIPE).
  void EndReceiving(const Napi::CallbackInfo&) {
    if (!pump_->IsClosed()) shutdown(pump_->fd(), SHUT_RD);
  }

  // What was sent still arrives.
  void CloseInOrder(const Napi::CallbackInfo& info) {
    if (!pump_->IsClosed()) KeepUnsentOnClose(pump_->fd());
    Close(info);
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
    return Napi::Number::New(info.Env(), DataOf(info.Env())->loose.Hold(fd));
  }

  // Nothing more is reported. The callback knows its owner, which knows this object: a reference
  // from here would keep all three, with the session behind them, for ever.
  void LetGo() {
    callback_.Reset();
    window_.Reset();
    table_kept_.Reset();
    capacity_ = 0;
    Unref();
  }

  Napi::AsyncContext context_;
  Napi::FunctionReference callback_;
  Napi::Reference<Napi::TypedArray> window_;
  Napi::Reference<Napi::TypedArray> table_kept_;
  const int32_t* table_ = nullptr;
  uint32_t capacity_ = 0;
  std::shared_ptr<Self> self_ = std::make_shared<Self>(Self{this});
  std::unique_ptr<SocketPump> pump_;
};

// (index, Uint8Array)
// Far more than the pool makes (src/lun/runtime.ts).
constexpr int32_t kSlabsMax = 1 << 16;

void SetSlab(const Napi::CallbackInfo& info) {
  auto* data = DataOf(info.Env());
  const int32_t number = Int(info, 0);
  if (number < 0 || number >= kSlabsMax) {
    throw Napi::RangeError::New(info.Env(), "the index of a slab is from 0 to 65535");
  }
  if (!info[1].IsTypedArray()) throw Napi::TypeError::New(info.Env(), "a slab is a Uint8Array");
  const auto index = static_cast<size_t>(number);
  auto bytes = info[1].As<Napi::Uint8Array>();
  data->thread.slabs.Set(index, Slab{bytes.Data(), bytes.ByteLength()});
  if (index >= data->kept.size()) data->kept.resize(index + 1);
  data->kept[index] = Napi::Persistent(bytes);
}

// (index)
void DropSlab(const Napi::CallbackInfo& info) {
  DataOf(info.Env())->thread.slabs.Drop(Int(info, 0));
}

// (slab, offset, length, seed) -> CRC32C as a signed number. On the data path, so without wrappers.
napi_value Crc32cOfSlab(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4];
  void* data = nullptr;
  int32_t slab = -1;
  int32_t offset = 0;
  int32_t length = 0;
  int32_t seed = 0;
  napi_get_cb_info(env, info, &count, arguments, nullptr, &data);
  napi_get_value_int32(env, arguments[0], &slab);
  napi_get_value_int32(env, arguments[1], &offset);
  napi_get_value_int32(env, arguments[2], &length);
  napi_get_value_int32(env, arguments[3], &seed);
  const uint8_t* memory = static_cast<AddonData*>(data)->thread.slabs.At(slab, offset, length);
  if (memory == nullptr) {
    napi_throw_range_error(env, nullptr, "crc32c: bytes outside a slab");
    return nullptr;
  }
  napi_value crc = nullptr;
  napi_create_int32(env,
                    static_cast<int32_t>(Crc32c(static_cast<uint32_t>(seed), memory,
                                                static_cast<size_t>(length))),
                    &crc);
  return crc;
}

// (way, Uint8Array, seed) -> CRC32C as a signed number
Napi::Value Crc32cByJs(const Napi::CallbackInfo& info) {
  auto bytes = info[1].As<Napi::Uint8Array>();
  const uint32_t crc =
      Crc32cBy(static_cast<Crc32cWay>(Int(info, 0)), static_cast<uint32_t>(Int(info, 2)),
               bytes.Data(), bytes.ByteLength());
  return Napi::Number::New(info.Env(), static_cast<int32_t>(crc));
}

// (address, port) -> fd or -errno
Napi::Value ConnectTcpJs(const Napi::CallbackInfo& info) {
  const int port = Int(info, 1);
  const int fd = ConnectTcp(Text(info, 0).c_str(), static_cast<uint16_t>(port));
  return Napi::Number::New(info.Env(), DataOf(info.Env())->loose.Hold(fd));
}

// (path, mode) -> fd or -errno
Napi::Value ListenUnixJs(const Napi::CallbackInfo& info) {
  const int mode = Int(info, 1);
  const int fd = ListenUnix(Text(info, 0).c_str(), static_cast<uint32_t>(mode));
  return Napi::Number::New(info.Env(), DataOf(info.Env())->loose.Hold(fd));
}

// (socket path, text) -> 0 or -errno
Napi::Value SendNotifyJs(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), SendNotify(Text(info, 0), Text(info, 1)));
}

// ()
void ForbidCoresJs(const Napi::CallbackInfo& info) {
  if (prctl(PR_SET_DUMPABLE, 0) != 0) throw Napi::Error::New(info.Env(), "PR_SET_DUMPABLE failed");
}

void DefineCrc32c(Napi::Env env, Napi::Object exports) {
  napi_value crc32c = nullptr;
  if (napi_create_function(env, "crc32c", NAPI_AUTO_LENGTH, Crc32cOfSlab,
                           env.GetInstanceData<AddonData>(), &crc32c) != napi_ok) {
    throw Napi::Error::New(env);
  }
  exports.Set("crc32c", crc32c);
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new AddonData(env));
  exports.Set("NativeSocket", NativeSocket::Define(env));
  exports.Set("setSlab", Napi::Function::New(env, SetSlab));
  exports.Set("dropSlab", Napi::Function::New(env, DropSlab));
  exports.Set("crc32cBy", Napi::Function::New(env, Crc32cByJs));
  DefineCrc32c(env, exports);
  exports.Set("connectTcp", Napi::Function::New(env, ConnectTcpJs));
  exports.Set("listenUnix", Napi::Function::New(env, ListenUnixJs));
  exports.Set("sendNotify", Napi::Function::New(env, SendNotifyJs));
  exports.Set("forbidCores", Napi::Function::New(env, ForbidCoresJs));
  InitWaiting(env, exports);
  InitNbd(env, exports);
  InitSharedMemory(env, exports);
  return exports;
}

}  // namespace
}  // namespace iscsi_nbd

static Napi::Object InitModule(Napi::Env env, Napi::Object exports) {
  return iscsi_nbd::Init(env, exports);
}

NODE_API_MODULE(iscsi_nbd, InitModule)
