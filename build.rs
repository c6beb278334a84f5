//! Compiles the C++ files, against the torch that torch-sys found.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH_BYPASS_VERSION_CHECK"); // holds torch's version
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch is");
    let include = Path::new(&lib).with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .warnings(false) // of torch's headers
        .files([
            "csrc/autograd_node.cpp",
            "csrc/device.cpp",
            "csrc/neutral.cpp",
            "csrc/pool.cpp",
            "csrc/profile.cpp",
            "csrc/version.cpp",
        ])
        .compile("mmiln_torch");
}
