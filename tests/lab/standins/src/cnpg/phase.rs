//! The phases of a Cluster, with CloudNativePG's exact texts.

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All is well.
    Healthy,
    /// The first instance is being made.
    SettingUpPrimary,
    /// A further instance is being made.
    CreatingReplica,
    /// Pods exist, not all report.
    WaitingForInstances,
    /// `targetPrimary` was changed.
    Switchover,
    /// The primary was lost.
    FailingOver,
    /// Nobody can be elected.
    Unrecoverable,
    /// A manager left with code 4.
    NotEnoughDiskSpace,
    /// No Ready pod answers.
    CommunicationIssue,
}

impl Phase {
    /// The text in `status.phase`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Healthy => "Cluster in healthy state",
            Self::SettingUpPrimary => "Setting up primary",
            Self::CreatingReplica => "Creating a new replica",
            Self::WaitingForInstances => "Waiting for the instances to become active",
            Self::Switchover => "Switchover in progress",
            Self::FailingOver => "Failing over",
            Self::Unrecoverable => "Cluster is unrecoverable and needs manual intervention",
            Self::NotEnoughDiskSpace => "Not enough disk space",
            Self::CommunicationIssue => "Instance Status Extraction Error: HTTP communication issue",
        }
    }
}
