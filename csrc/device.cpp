// The CUDA device and stream that libtorch uses at the moment, by its interface for any kind of device: compiling this
// needs nothing of CUDA, and a torch without CUDA can load it.

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace {

c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA); }

}  // namespace

// Writes the current stream of a device, as CUDA's own handle, to `stream`; false where libtorch has no such device.
extern "C" bool mmiln_current_stream(int device, void** stream) {
  try {
    const auto current = cuda().getStream(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)));
    *stream = cuda().getStreamNativeHandle(current);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

// Makes a device the calling thread's current one; returns the one before, -1 where there is none.
extern "C" int mmiln_exchange_device(int device) {
  try {
    return cuda().exchangeDevice(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device))).index();
  } catch (const std::exception&) {
    return -1;
  }
}

// A copy in pinned memory, which a device can read by itself; null where that fails.
extern "C" at::Tensor* mmiln_pin(const at::Tensor* tensor) {
  try {
    return new at::Tensor(tensor->pin_memory());
  } catch (const std::exception&) {
    return nullptr;
  }
}
