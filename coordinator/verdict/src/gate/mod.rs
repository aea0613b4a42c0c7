//! The safety gate: an independent check of every plan against the evidence it was made from.
//!
//! It does not ask how a plan came about. It reads the evidence again and refuses whatever the gate table forbids. Only here
//! can a [`Cleared`] come into being, and only with one may a plan be carried out.

mod cnpg;

use serde::{Deserialize, Serialize};

pub use cnpg::clear;

use crate::cnpg::{Plan, Step};

/// A plan that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleared {
    plan: Plan,
    overridden: Vec<Refusal>,
}

impl Cleared {
    /// The steps that may be carried out.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.plan.steps
    }

    /// What would have stopped it without `--force`; belongs in the journal.
    #[must_use]
    pub fn overridden(&self) -> &[Refusal] {
        &self.overridden
    }
}

/// Why a plan may not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Stable, for programs.
    pub code: Code,
    /// One line for people.
    pub reason: String,
    /// `--force` on this one target would pass.
    pub overridable: bool,
}

/// Kinds of refusal: the rows of the gate table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Histories parted and both sides may hold commits.
    SplitBrain,
    /// The data that counts is not on the primary.
    AuthorityNotPrimary,
    /// The target is the current primary, or about to be.
    TargetIsPrimary,
    /// The target holds the data that counts.
    TargetIsAuthority,
    /// There is no such instance.
    TargetUnknown,
    /// The target works. Nothing to do rather than something forbidden.
    TargetHealthy,
    /// Nobody works from whom to clone.
    NoHealthyDonor,
    /// Something unread may hold the data that counts.
    Undeterminable,
    /// A failover waits, or roles are moving.
    RoleMoving,
    /// The cluster hibernates.
    Hibernation,
    /// A switch between primary and replica cluster is in progress.
    ReplicaSwitch,
    /// PostgreSQL is being upgraded to another major version.
    MajorUpgrade,
    /// Somebody fenced the target, or everything.
    Fenced,
    /// Somebody paused the operator.
    Paused,
    /// `--force` without a target.
    ForceNeedsTarget,
    /// The plan asks for something that the evidence does not bear out.
    NotProven,
}
