//! Runs the kernels on the CPU, compiled from the same sources by a C++ compiler, so that tests need no card.
//! Tensors stay on the CPU; operations take the same path as on a card.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use libloading::Library;
use tch::Kind;

use super::kernel::Launch;

/// Runs a kernel: blocks along x, y and z, threads of a block, bytes of shared memory, the kernel's struct and
/// its size. Returns null or what went wrong, such as threads that wait for each other for ever.
type Run = unsafe extern "C" fn(u32, u32, u32, u32, u32, *const c_void, usize) -> *const std::ffi::c_char;

struct Shim {
    /// One for float, one for double.
    libraries: [Library; 2],
    /// Functions by name, and whether numbers are double.
    functions: HashMap<(&'static str, bool), Run>,
}

static LOADED: AtomicBool = AtomicBool::new(false);
static SHIM: Mutex<Option<Shim>> = Mutex::new(None);

/// Whether operations go to the shim.
pub fn is_loaded() -> bool {
    LOADED.load(Ordering::Relaxed)
}

/// Sends every operation from now on to the libraries `float.so` and `double.so` in a folder; `None` goes back
/// to the CPU's own kernels.
///
/// # Errors
/// The loader's message.
pub fn load(folder: Option<&Path>) -> Result<(), libloading::Error> {
    let mut shim = SHIM.lock().unwrap_or_else(PoisonError::into_inner);
    *shim = match folder {
        None => None,
        Some(folder) => {
            // SAFETY: libraries that the caller built from this crate's sources.
            let open = |name: &str| unsafe { Library::new(folder.join(name)) };
            Some(Shim { libraries: [open("float.so")?, open("double.so")?], functions: HashMap::new() })
        }
    };
    LOADED.store(shim.is_some(), Ordering::Relaxed);
    Ok(())
}

/// Runs a kernel to its end.
///
/// # Safety
/// `arguments` is the kernel's struct, of `size` bytes.
///
/// # Panics
/// Where the kernel is not there, or breaks a rule of CUDA.
pub unsafe fn launch(launch: &Launch, arguments: *const c_void, size: usize) {
    let mut shim = SHIM.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Shim { libraries, functions }) = &mut *shim else { panic!("no kernels for the CPU are loaded") };
    let double = launch.kind == Kind::Double;
    let name = launch.kernel.name;
    let run = *functions.entry((name, double)).or_insert_with(|| {
        let symbol = format!("shim_{name}");
        // SAFETY: the libraries' functions of that name have this type.
        let run = unsafe { libraries[usize::from(double)].get::<Run>(symbol.as_bytes()) };
        *run.unwrap_or_else(|error| panic!("{name} is not among the kernels for the CPU: {error}"))
    });
    let grid = launch.grid;
    // SAFETY: the struct has the size that the function checks.
    let error = unsafe {
        run(
            grid.x as u32,
            grid.y as u32,
            launch.z as u32,
            grid.threads as u32,
            launch.shared as u32,
            arguments,
            size,
        )
    };
    drop(shim);
    assert!(error.is_null(), "{name}: {}", {
        // SAFETY: a C string that lives as long as the library.
        unsafe { std::ffi::CStr::from_ptr(error) }.to_string_lossy()
    });
}
