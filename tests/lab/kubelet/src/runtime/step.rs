//! Errors of helper processes: a step and its cause, as text that crosses a pipe.

use std::fmt::Display;

/// A failed step of a helper process.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct StepError {
    step: String,
    cause: String,
}

impl StepError {
    /// A failed `step`.
    pub fn new(step: &str, cause: impl Display) -> Self {
        Self {
            step: step.to_owned(),
            cause: cause.to_string(),
        }
    }
}

/// Names the step of a result.
pub trait At<T> {
    /// Turns the error into a [`StepError`] of `step`.
    ///
    /// # Errors
    /// The error of `self`, named.
    fn at(self, step: &str) -> Result<T, StepError>;
}

impl<T, E: Display> At<T> for Result<T, E> {
    fn at(self, step: &str) -> Result<T, StepError> {
        self.map_err(|cause| StepError::new(step, cause))
    }
}
