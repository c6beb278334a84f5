//! Compiled kernels on disk, so that the next process need not compile them again.
//!
//! A file's name has the source, the architecture and a hash of everything compiled; its head is a hash of the
//! rest. A file that is damaged, or a folder that can't be written, costs another compilation and nothing
//! else.

use std::path::PathBuf;
use std::{env, fs, process};

use super::kernel::Cubin;

/// The folder: `MMILN_CACHE`, where that is set and not empty; else `mmiln` in the user's folder for caches.
/// `MMILN_CACHE=` (empty) keeps nothing.
fn folder() -> Option<PathBuf> {
    let given = |name| env::var_os(name).map(PathBuf::from);
    match given("MMILN_CACHE") {
        Some(folder) if folder.as_os_str().is_empty() => None,
        Some(folder) => Some(folder),
        None => given("XDG_CACHE_HOME")
            .filter(|folder| folder.is_absolute())
            .or_else(|| given("HOME").map(|home| home.join(".cache")))
            .map(|cache| cache.join("mmiln")),
    }
}

/// The file for the machine code that some texts compile to, under a name.
pub fn file(name: &str, texts: &[&str]) -> Option<PathBuf> {
    let mut all = Vec::new();
    for text in texts {
        all.extend((text.len() as u64).to_le_bytes());
        all.extend(text.as_bytes());
    }
    Some(folder()?.join(format!("{name}-{:032x}.cubin", hash(&all))))
}

/// The content of a file, if that is whole.
pub fn read(file: &PathBuf) -> Option<Cubin> {
    let bytes = fs::read(file).ok()?;
    let (head, rest) = bytes.split_first_chunk::<16>()?;
    if u128::from_le_bytes(*head) != hash(rest) {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (log, code) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some(Cubin { code: code.to_vec(), log: String::from_utf8(log.to_vec()).ok()? })
}

/// Writes a file whole, or not at all.
pub fn write(file: &PathBuf, cubin: &Cubin) {
    let mut rest = (cubin.log.len() as u64).to_le_bytes().to_vec();
    rest.extend(cubin.log.as_bytes());
    rest.extend(&cubin.code);
    let bytes = [&hash(&rest).to_le_bytes()[..], &rest].concat();
    let Some(folder) = file.parent() else { return };
    let staged = file.with_extension(process::id().to_string());
    // Errors are ignored: without a cache everything works, but is compiled again.
    let _ = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&staged, bytes))
        .and_then(|()| fs::rename(&staged, file))
        .inspect_err(|_| drop(fs::remove_file(&staged)));
}

/// FNV-1a with 128 bits: detects accidents, not malice.
fn hash(bytes: &[u8]) -> u128 {
    const START: u128 = 0x6C62_272E_07BB_0142_62B8_2175_6295_C58D;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    bytes.iter().fold(START, |h, b| (h ^ u128::from(*b)).wrapping_mul(PRIME))
}
