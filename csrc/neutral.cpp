// The state of torch in which the core computes, whatever the state of the caller's thread.

#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

namespace {

// Under a caller's inference mode weights could not be trained, under autocast numbers would change.
struct Neutral {
  c10::InferenceMode inference{false};
  c10::AutoGradMode gradients{true};
  const bool cpu = off(at::kCPU), cuda = off(at::kCUDA);

  ~Neutral() {
    at::autocast::set_autocast_enabled(at::kCPU, cpu);
    at::autocast::set_autocast_enabled(at::kCUDA, cuda);
  }

  static bool off(at::DeviceType device) {
    const bool before = at::autocast::is_autocast_enabled(device);
    at::autocast::set_autocast_enabled(device, false);
    return before;
  }
};

}  // namespace

// Enters the state on this thread, where it must be left, too, in reverse order.
extern "C" Neutral* mmiln_neutral_enter() { return new Neutral; }

extern "C" void mmiln_neutral_leave(Neutral* neutral) { delete neutral; }
