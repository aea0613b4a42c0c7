//! `hasteward schema`

use crate::output::{Data, EnvelopeDocument, Outcome};

/// The JSON Schema of the envelope with every kind of `data`.
pub(crate) fn print() -> Outcome {
    Outcome::done(Data::Schema(schemars::schema_for!(EnvelopeDocument).to_value()))
}
