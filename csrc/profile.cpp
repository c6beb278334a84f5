// The kernels' entries in `torch.profiler`.

#include <ATen/record_function.h>

#include <string>

// Begins an entry, ended by `mmiln_record_end`; null, at no cost, where nobody profiles.
extern "C" at::RecordFunction* mmiln_record(const char* name, bool backward) {
  auto callbacks = at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION);
  if (!callbacks.has_value()) return nullptr;
  auto* record = new at::RecordFunction(std::move(*callbacks));
  record->before(std::string("mmiln::") + name + (backward ? " backward" : ""));
  return record;
}

extern "C" void mmiln_record_end(at::RecordFunction* record) { delete record; }
