//! What the helpers know of libtorch.

pub enum Kind {
    Float,
    Double,
}

pub fn get_num_threads() -> i32 {
    3
}
