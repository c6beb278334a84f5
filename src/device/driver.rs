//! Launches on a card, through the CUDA driver.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::driver::sys as cuda;
use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use super::compile;
use super::kernel::{Launch, limits};
use crate::error::Fault;

/// A function in a device's memory.
#[derive(Clone, Copy)]
struct Function(cuda::CUfunction);

/// A loaded source.
#[derive(Clone, Copy)]
struct Module(cuda::CUmodule);

// SAFETY: handles of the driver, which any thread may use.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Send for Module {}

/// The loaded modules and functions, by device, name of the source or kernel, and whether numbers are double.
#[derive(Default)]
struct Loaded {
    modules: HashMap<(usize, &'static str, bool), Module>,
    functions: HashMap<(usize, &'static str, bool), Function>,
}

fn loaded() -> &'static Mutex<Loaded> {
    static LOADED: OnceLock<Mutex<Loaded>> = OnceLock::new();
    LOADED.get_or_init(Mutex::default)
}

/// Launches on the device's current stream, asynchronously.
///
/// # Safety
/// `arguments` is the kernel's struct, of `size` bytes.
///
/// # Panics
/// [`Fault`] where CUDA refuses.
pub unsafe fn launch(launch: &Launch, device: usize, arguments: *const c_void, size: usize) {
    let function = function(launch, device);
    let mut size = size;
    // The parameters as one buffer: pairs of a tag and an address, then NULL.
    let mut extra = [
        std::ptr::without_provenance_mut(cuda::CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT as usize),
        arguments.cast_mut(),
        std::ptr::without_provenance_mut(cuda::CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT as usize),
        (&raw mut size).cast(),
        null_mut(),
    ];
    let grid = launch.grid;
    // SAFETY: the kernel takes one struct of this size, which the driver copies before it returns.
    let result = unsafe {
        cuda::cuLaunchKernel(
            function.0,
            grid.x as u32,
            grid.y as u32,
            launch.z as u32,
            grid.threads as u32,
            1,
            1,
            launch.shared as u32,
            stream(device),
            null_mut(),
            extra.as_mut_ptr(),
        )
    };
    check(result, || format!("launching {}", launch.kernel.name));
}

fn stream(device: usize) -> cuda::CUstream {
    let mut stream = null_mut();
    // SAFETY: writes one pointer.
    let found = unsafe { mmiln_current_stream(device as i32, &raw mut stream) };
    assert!(found, "libtorch has no CUDA device {device}");
    stream.cast()
}

/// The function of a launch on a device; the first launch compiles and loads it.
fn function(launch: &Launch, device: usize) -> Function {
    let double = launch.kind == Kind::Double;
    let mut loaded = loaded().lock().unwrap_or_else(PoisonError::into_inner);
    let key = (device, launch.kernel.name, double);
    if let Some(function) = loaded.functions.get(&key) {
        return *function;
    }
    let source = launch.kernel.source;
    let module = *loaded.modules.entry((device, source.name, double)).or_insert_with(|| {
        let cubin = compile::compile(source, launch.kind, capability(device))
            .unwrap_or_else(|error| Fault::Device(error).raise());
        let mut module = null_mut();
        // SAFETY: the code is a cubin for this card; the context is current.
        let result = unsafe {
            enter_context(device);
            cuda::cuModuleLoadData(&raw mut module, cubin.code.as_ptr().cast())
        };
        check(result, || format!("loading {}", source.name));
        Module(module)
    });
    let name = CString::new(launch.kernel.name).expect("a name");
    let mut function = null_mut();
    // SAFETY: a loaded module; the attribute is within what every card can do.
    unsafe {
        let result = cuda::cuModuleGetFunction(&raw mut function, module.0, name.as_ptr());
        check(result, || format!("finding {}", launch.kernel.name));
        let most = cuda::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let room = limits::SHARED - limits::SHARED_STATIC;
        check(cuda::cuFuncSetAttribute(function, most, room as i32), || "asking for shared memory".into());
    }
    loaded.functions.insert(key, Function(function));
    Function(function)
}

/// The compute capability of a device, such as 90.
fn capability(device: usize) -> u32 {
    use cuda::CUdevice_attribute as Attribute;
    let [major, minor] = [
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    ]
    .map(|attribute| {
        let (mut handle, mut value) = (0, 0);
        // SAFETY: writes one number each.
        unsafe {
            check(cuda::cuDeviceGet(&raw mut handle, device as i32), || format!("finding device {device}"));
            check(cuda::cuDeviceGetAttribute(&raw mut value, attribute, handle), || "asking a device".into());
        }
        value as u32
    });
    major * 10 + minor
}

/// Makes the device's context, the one that libtorch uses, current in a thread that has none.
///
/// # Safety
/// The driver is there.
unsafe fn enter_context(device: usize) {
    // SAFETY: as documented for the driver.
    unsafe {
        let mut context = null_mut();
        check(cuda::cuCtxGetCurrent(&raw mut context), || "asking for the context".into());
        if context.is_null() {
            let mut handle = 0;
            check(cuda::cuDeviceGet(&raw mut handle, device as i32), || format!("finding device {device}"));
            check(cuda::cuDevicePrimaryCtxRetain(&raw mut context, handle), || "taking the context".into());
            check(cuda::cuCtxSetCurrent(context), || "entering the context".into());
        }
    }
}

fn check(result: cuda::CUresult, doing: impl Fn() -> String) {
    if result == cuda::CUresult::CUDA_SUCCESS {
        return;
    }
    let mut text = null();
    // SAFETY: leaves a C string of the driver's own.
    let text = unsafe {
        let _ = cuda::cuGetErrorString(result, &raw mut text);
        if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy() }
    };
    let message = format!("CUDA: {} failed: {text} ({result:?})", doing());
    if result == cuda::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        Fault::Memory(message).raise();
    }
    Fault::Device(message).raise();
}

/// The calling thread's current device, as long as this lives.
pub struct Current(Option<i32>);

impl Current {
    /// Nothing for tensors that are not on a CUDA device.
    pub fn of(device: tch::Device) -> Self {
        let tch::Device::Cuda(index) = device else { return Self(None) };
        // SAFETY: plain values.
        let before = unsafe { mmiln_exchange_device(index as i32) };
        assert!(before >= 0, "libtorch has no CUDA device {index}");
        thread_local!(static ENTERED: Cell<bool> = const { Cell::new(false) });
        if !ENTERED.replace(true) {
            // SAFETY: a CUDA device is there, so its driver is.
            unsafe { enter_context(index) };
        }
        Self(Some(before))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // SAFETY: plain values.
            unsafe { mmiln_exchange_device(before) };
        }
    }
}

/// A copy in pinned memory, which a device can read by itself.
pub fn pinned(tensor: &Tensor) -> Tensor {
    // SAFETY: a tensor that comes back is ours.
    unsafe {
        let pinned = mmiln_pin(tensor.as_ptr());
        if pinned.is_null() {
            Fault::Memory(format!("CUDA out of memory: no pinned memory for {} elements", tensor.numel()))
                .raise();
        }
        Tensor::from_ptr(pinned)
    }
}

// csrc/device.cpp
unsafe extern "C" {
    fn mmiln_pin(tensor: *const C_tensor) -> *mut C_tensor;
    fn mmiln_current_stream(device: i32, stream: *mut *mut c_void) -> bool;
    fn mmiln_exchange_device(device: i32) -> i32;
}
