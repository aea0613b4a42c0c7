//! Primitive types that both sides of the wire speak. No I/O, no clock.

mod instance;
mod lsn;
mod seqno;
mod state_uuid;
mod system_id;
mod time;
mod timeline;

pub use instance::{ClusterRef, Engine, InstanceName, InstanceRef, NameError, NodeName, PodUid};
pub use lsn::{Lsn, LsnError};
pub use seqno::{Seqno, SeqnoError};
pub use state_uuid::{GaleraUuidError, History, MemberUuid, StateUuid};
pub use system_id::{SystemId, SystemIdError};
pub use time::UnixMillis;
pub use timeline::{TimelineId, TimelineIdError};
