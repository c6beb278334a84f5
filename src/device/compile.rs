//! Compiles a source to machine code, by NVRTC of the CUDA that torch brings along.

use std::ffi::{CStr, CString, c_char};
use std::ptr::null_mut;

use cudarc::nvrtc::sys as nvrtc;
use tch::Kind;

use super::cache;
use super::kernel::{Cubin, Source};

/// Compiles a source for numbers of a kind and a compute capability such as 90, or reads the result from the cache
/// on disk.
///
/// # Errors
/// NVRTC's own messages, or that it was not found.
pub fn compile(source: Source, kind: Kind, capability: u32) -> Result<Cubin, String> {
    let name = format!("{}-sm_{capability}", source.name);
    let options = [real(kind), &OPTIONS.join(" "), &version()];
    let texts = [source.text].into_iter().chain(source.headers.iter().map(|&(_, text)| text)).chain(options);
    let file = cache::file(&name, &texts.collect::<Vec<_>>());
    if let Some(cubin) = file.as_ref().and_then(cache::read) {
        return Ok(cubin);
    }
    let cubin = compile_anew(source, kind, capability)?;
    if let Some(file) = &file {
        cache::write(file, &cubin);
    }
    Ok(cubin)
}

const OPTIONS: [&str; 2] = ["--std=c++17", "--ptxas-options=-v"];

fn real(kind: Kind) -> &'static str {
    if kind == Kind::Double { "double" } else { "float" }
}

/// The version of NVRTC; 0.0 if that was not found.
fn version() -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: opens the library, which has no side effects, and writes two numbers.
    unsafe {
        if nvrtc::is_culib_present() {
            let _ = nvrtc::nvrtcVersion(&raw mut major, &raw mut minor);
        }
    }
    format!("{major}.{minor}")
}

fn compile_anew(source: Source, kind: Kind, capability: u32) -> Result<Cubin, String> {
    // SAFETY: opens the library, which has no side effects; every call below is as documented for NVRTC.
    if !unsafe { nvrtc::is_culib_present() } {
        return Err(
            "CUDA's compiler (libnvrtc) was not found: install torch for CUDA, which brings it along".into(),
        );
    }
    let chosen = [format!("--gpu-architecture=sm_{capability}"), format!("-Dreal={}", real(kind))];
    let options: Vec<CString> = chosen.iter().map(String::as_str).chain(OPTIONS).map(c_string).collect();
    let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    let (text, name) = (c_string(source.text), c_string(&format!("{}.cu", source.name)));
    let headers: Vec<_> =
        source.headers.iter().map(|(name, text)| (c_string(name), c_string(text))).collect();
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
    let texts: Vec<_> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
    let mut program = null_mut();
    // SAFETY: all strings live until the program is destroyed.
    unsafe {
        check(nvrtc::nvrtcCreateProgram(
            &raw mut program,
            text.as_ptr(),
            name.as_ptr(),
            headers.len() as i32,
            texts.as_ptr(),
            names.as_ptr(),
        ))?;
        let outcome = check(nvrtc::nvrtcCompileProgram(program, options.len() as i32, options.as_ptr()));
        let log = log(program);
        let cubin = match outcome {
            Err(error) => {
                Err(format!("{} does not compile for sm_{capability} ({error}):\n{log}", source.name))
            }
            Ok(()) => code(program).map(|code| Cubin { code, log }),
        };
        let _ = nvrtc::nvrtcDestroyProgram(&raw mut program);
        cubin
    }
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("sources and options hold no NUL")
}

fn check(result: nvrtc::nvrtcResult) -> Result<(), String> {
    if result == nvrtc::nvrtcResult::NVRTC_SUCCESS { Ok(()) } else { Err(format!("{result:?}")) }
}

/// # Safety
/// A program that was compiled.
unsafe fn log(program: nvrtc::nvrtcProgram) -> String {
    let mut size = 0;
    // SAFETY: NVRTC writes `size` bytes, the last a NUL.
    unsafe {
        if check(nvrtc::nvrtcGetProgramLogSize(program, &raw mut size)).is_err() || size == 0 {
            return String::new();
        }
        let mut log = vec![0_u8; size];
        let written = check(nvrtc::nvrtcGetProgramLog(program, log.as_mut_ptr().cast()));
        let text = CStr::from_bytes_until_nul(&log).unwrap_or_default();
        if written.is_ok() { text.to_string_lossy().into_owned() } else { String::new() }
    }
}

/// # Safety
/// A program that was compiled for an architecture.
unsafe fn code(program: nvrtc::nvrtcProgram) -> Result<Vec<u8>, String> {
    let mut size = 0;
    // SAFETY: NVRTC writes `size` bytes.
    unsafe {
        check(nvrtc::nvrtcGetCUBINSize(program, &raw mut size))?;
        let mut code = vec![0_u8; size];
        check(nvrtc::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()))?;
        Ok(code)
    }
}
