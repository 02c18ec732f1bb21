// Check, call, convert: the waiting of a thread for its sockets, and what they have cost.
#include <cstdint>

#include "addon_data.h"
#include "addon_nbd.h"

namespace iscsi_nbd {
namespace {

// () -> {receives, sends, watches, waits, bytesReceived, bytesSent}
Napi::Value Counters(const Napi::CallbackInfo& info) {
  const PumpCounters& counters = DataOf(info.Env())->thread.counters;
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("receives", static_cast<double>(counters.receives));
  result.Set("sends", static_cast<double>(counters.sends));
  result.Set("watches", static_cast<double>(counters.watches));
  result.Set("waits", static_cast<double>(counters.waits));
  result.Set("bytesReceived", static_cast<double>(counters.bytes_received));
  result.Set("bytesSent", static_cast<double>(counters.bytes_sent));
  return result;
}

// (Float64Array(1)) -> the clock now, in milliseconds; the array has its value at the last receipt
// while that is dealt with, otherwise 0
Napi::Value UseReceiptClock(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsTypedArray() ||
      info[0].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    throw Napi::TypeError::New(info.Env(), "useReceiptClock: Float64Array wanted");
  }
  auto* data = DataOf(info.Env());
  auto array = info[0].As<Napi::Float64Array>();
  data->receipt_clock = Napi::Persistent(array.As<Napi::TypedArray>());
  data->thread.receipt_ms = array.Data();
  return Napi::Number::New(info.Env(), static_cast<double>(NowNs()) / 1e6);
}

// (microseconds)
void SetBusyPoll(const Napi::CallbackInfo& info) {
  auto* data = DataOf(info.Env());
  data->thread.busy_poll.SetLimit(int64_t{Int(info, 0)} * 1000);
}

// (bytes a millisecond with it, and without, milliseconds, milliseconds of it after which the
// thread loses its processor, 0: never) -> part of the last half with it; for tests of the choice,
// in which a turn takes 50 microseconds
Napi::Value SimulateTrial(const Napi::CallbackInfo& info) {
  constexpr int64_t kTurnNs = 50'000;
  const int64_t with = Int(info, 0);
  const int64_t without = Int(info, 1);
  const int64_t end_ns = int64_t{Int(info, 2)} * 1'000'000;
  const int64_t lost_after_ns = int64_t{Int(info, 3)} * 1'000'000;
  int64_t polled_ns = 0;
  Trial trial;
  bool doing = false;
  int64_t bytes = 0;
  int64_t done_ns = 0;
  for (int64_t now_ns = 0; now_ns < end_ns; now_ns += kTurnNs) {
    bytes += (doing ? with : without) * kTurnNs / 1'000'000;
    if (doing && now_ns >= end_ns / 2) done_ns += kTurnNs;
    if (doing) polled_ns += kTurnNs;
    if (lost_after_ns > 0 && polled_ns >= lost_after_ns) {
      trial.LoseProcessor(now_ns);
      polled_ns = 0;
    }
    doing = trial.Choose(now_ns, static_cast<uint64_t>(bytes));
  }
  const double half_ns = static_cast<double>(end_ns) / 2;
  return Napi::Number::New(info.Env(), static_cast<double>(done_ns) / half_ns);
}

}  // namespace

void InitWaiting(Napi::Env env, Napi::Object exports) {
  exports.Set("counters", Napi::Function::New(env, Counters));
  exports.Set("useReceiptClock", Napi::Function::New(env, UseReceiptClock));
  exports.Set("setBusyPoll", Napi::Function::New(env, SetBusyPoll));
  exports.Set("simulateTrial", Napi::Function::New(env, SimulateTrial));
}

}  // namespace iscsi_nbd
