// The torch that the core was compiled against. Python looks for the words before the version in the file, as loading a
// core beside another torch would crash.

#include <torch/headeronly/version.h>

#include <cstring>

static const char built[] = "mmiln core for torch " TORCH_VERSION;

extern "C" const char* mmiln_torch_version() { return built + std::strlen("mmiln core for torch "); }
