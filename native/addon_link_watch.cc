// NbdLinkWatch: the kernel's LINK_DEAD messages as callbacks on the event loop's thread.
#include <napi.h>
#include <uv.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "addon_data.h"
#include "job_thread.h"
#include "nbd_netlink.h"

namespace iscsi_nbd {
namespace {

class NbdLinkWatch : public Napi::ObjectWrap<NbdLinkWatch> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "NbdLinkWatch", {InstanceMethod<&NbdLinkWatch::Close>("close")});
  }

  // (fd of nbdOpenLinkDeadSocket, onLinkDead(indexes: number[]))
  explicit NbdLinkWatch(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<NbdLinkWatch>(info), context_(info.Env(), "iscsi-nbd:link-watch") {
    Napi::Env env = info.Env();
    if (!info[0].IsNumber() || !info[1].IsFunction()) {
      throw Napi::TypeError::New(env, "NbdLinkWatch(fd, onLinkDead)");
    }
    Fd fd(info[0].As<Napi::Number>().Int32Value());
    DataOf(env)->loose.LetGo(fd.get());
    uv_loop_t* loop = nullptr;
    napi_get_uv_event_loop(env, &loop);
    poll_ = new Poll;
    const int failed = uv_poll_init(loop, &poll_->handle, fd.get());
    if (failed != 0) {
      delete std::exchange(poll_, nullptr);
      throw Napi::Error::New(env, std::string("uv_poll_init: ") + uv_strerror(failed));
    }
    poll_->fd = std::move(fd);
    poll_->handle.data = this;
    callback_ = Napi::Persistent(info[1].As<Napi::Function>());
    uv_poll_start(&poll_->handle, UV_READABLE, OnReadable);
    uv_unref(reinterpret_cast<uv_handle_t*>(&poll_->handle));  // a watch keeps no process alive
    Ref();
  }

  ~NbdLinkWatch() override { Stop(); }

 private:
  struct Poll {
    uv_poll_t handle{};
    Fd fd;
  };

  static void OnReadable(uv_poll_t* handle, int, int) {
    auto* watch = static_cast<NbdLinkWatch*>(handle->data);
    if (watch != nullptr) watch->Deliver();
  }

  void Deliver() {
    Napi::Env env = Env();
    Napi::HandleScope scope(env);
    std::vector<uint32_t> indexes;
    try {
      indexes = NbdReadLinkDead(poll_->fd.get());
    } catch (const SystemError& error) {
      // Lost messages are news without an index: the receiver looks at all its devices.
      if (error.error() != ENOBUFS) return End();
    }
    Napi::Array list = Napi::Array::New(env, indexes.size());
    for (uint32_t at = 0; at < indexes.size(); ++at) {
      list.Set(at, Napi::Number::New(env, indexes[at]));
    }
    try {
      callback_.MakeCallback(Value(), {list}, context_);
    } catch (const Napi::Error& error) {
      napi_fatal_exception(env, error.Value());
    }
  }

  void Stop() {
    if (poll_ == nullptr) return;
    uv_poll_stop(&poll_->handle);
    Poll* closing = std::exchange(poll_, nullptr);
    closing->handle.data = nullptr;
    uv_close(reinterpret_cast<uv_handle_t*>(&closing->handle), [](uv_handle_t* handle) {
      delete reinterpret_cast<Poll*>(handle);  // `handle` is the first member
    });
  }

  void End() {
    if (poll_ == nullptr) return;
    Stop();
    Unref();
  }

  void Close(const Napi::CallbackInfo&) { End(); }

  Napi::AsyncContext context_;
  Napi::FunctionReference callback_;
  Poll* poll_ = nullptr;
};

// () -> Promise<fd>
Napi::Value OpenLinkDeadSocketJs(const Napi::CallbackInfo& info) {
  return RunJob(info.Env(), [] {
    auto opened = std::make_shared<Fd>(NbdOpenLinkDeadSocket());
    return Answer([opened](Napi::Env env) {
      return Napi::Number::New(env, DataOf(env)->loose.Hold(opened->Release()));
    });
  });
}

}  // namespace

void InitLinkWatch(Napi::Env env, Napi::Object exports) {
  exports.Set("nbdOpenLinkDeadSocket",
              Napi::Function::New(env, OpenLinkDeadSocketJs, "nbdOpenLinkDeadSocket"));
  exports.Set("NbdLinkWatch", NbdLinkWatch::Define(env));
}

}  // namespace iscsi_nbd
