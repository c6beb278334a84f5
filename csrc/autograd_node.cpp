// An autograd node of libtorch whose backward is a Rust closure.
//
// Rust passes the differentiable inputs, the results and a closure that owns the data that backward needs.
// Nothing unwinds from one language into the other: Rust returns an error text, which C++ throws.

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <cstring>
#include <stdexcept>
#include <string>

using at::Tensor;
using torch::autograd::variable_list;

// `gradients`: one tensor for each result, null if undefined. `out`: one place for each input, at first null; the
// closure writes an owned tensor there. Returns null, or an error text to be freed by `free`.
struct Closure {
  void* data;
  char* (*backward)(void* data, const Tensor* const* gradients, size_t results, Tensor** out, size_t inputs);
  void (*drop)(void* data);
};

namespace {

struct RustNode : torch::autograd::Node {
  RustNode(const char* name, Closure closure, size_t inputs) : name_(name), closure_(closure), inputs_(inputs) {}

  ~RustNode() override { release_variables(); }

  std::string name() const override { return name_; }

  void release_variables() override {
    if (closure_.data != nullptr) closure_.drop(closure_.data);
    closure_.data = nullptr;
  }

  // Versions of the tensors that backward reads: a change in place after the forward pass is an error.
  void watch(const Tensor& tensor) {
    if (!tensor.is_inference()) watched_.emplace_back(tensor.detach(), tensor._version());
  }

  variable_list apply(variable_list&& gradients) override {
    TORCH_CHECK(closure_.data != nullptr,
                "Trying to backward through ", name_, " a second time, after what it had saved was freed: "
                "call the first backward with retain_graph=True");
    TORCH_CHECK(!at::GradMode::is_enabled(),
                name_, " is differentiable once: backward with create_graph=True is not supported");
    for (const auto& [tensor, version] : watched_)
      TORCH_CHECK(tensor._version() == version,
                  "a tensor that the gradient of ", name_, " needs was changed by an in-place operation");
    std::vector<const Tensor*> given;
    given.reserve(gradients.size());
    for (const auto& gradient : gradients) given.push_back(gradient.defined() ? &gradient : nullptr);
    std::vector<Tensor*> out(inputs_, nullptr);
    char* error = closure_.backward(closure_.data, given.data(), given.size(), out.data(), out.size());
    variable_list result;
    result.reserve(inputs_);
    for (auto* tensor : out) {
      result.push_back(tensor != nullptr ? *tensor : Tensor());
      delete tensor;
    }
    if (error != nullptr) {
      std::string text(error);
      std::free(error);
      throw std::runtime_error(text);
    }
    return result;
  }

 private:
  std::string name_;
  Closure closure_;
  size_t inputs_;
  std::vector<std::pair<Tensor, int64_t>> watched_;
};

}  // namespace

extern "C" void omp_set_num_threads(int);

// Sets how many threads libtorch uses for the calling thread's operations (`at::set_num_threads` changes the whole
// process); returns how many it used before.
extern "C" int mmiln_set_own_threads(int count) {
  const int before = at::get_num_threads();  // also initialises the thread, which must not happen later
  omp_set_num_threads(count);
  return before;
}

extern "C" bool mmiln_grad_enabled() { return at::GradMode::is_enabled(); }

// Makes `results` the outputs of a node named `name` over `inputs` (those that require no gradient get no
// edge). Takes the closure in any case. Returns null or an error text to be freed by `free`.
extern "C" char* mmiln_attach(const char* name, Closure closure, Tensor* const* inputs, size_t input_count,
                              Tensor* const* results, size_t result_count) {
  try {
#if MMILN_NODES_ARE_INTRUSIVE
    auto node = c10::make_intrusive<RustNode>(name, closure, input_count);
#else
    auto node = std::shared_ptr<RustNode>(new RustNode(name, closure, input_count), torch::autograd::deleteNode);
#endif
    torch::autograd::edge_list edges;
    for (size_t i = 0; i < input_count; ++i) {
      node->watch(*inputs[i]);
      edges.push_back(torch::autograd::impl::gradient_edge(*inputs[i]));
    }
    // An edge of a tensor that requires no gradient is empty; `gradient_edge` makes it so.
    node->set_next_edges(std::move(edges));
    for (size_t i = 0; i < result_count; ++i) {
      torch::autograd::set_history(*results[i], node);
      node->watch(*results[i]);
    }
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  }
}
