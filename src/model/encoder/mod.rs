//! Encoders: from a modality's packed input to X_m^0, `(sum T, d)`.

pub mod audio_vision;
pub mod bert;
pub mod text;
