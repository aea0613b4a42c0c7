//! [`ChannelSettings`]: time limits and bounds of a connection.

use std::time::Duration;

/// Time limits and bounds of a connection, the same on both ends.
#[derive(Debug, Clone)]
pub struct ChannelSettings {
    /// An HTTP/2 ping is sent when nothing was heard for this long.
    pub keep_alive_interval: Duration,
    /// The connection is dead when a ping is not answered within this time.
    pub keep_alive_timeout: Duration,
    /// For TLS and for the first HTTP/2 exchange, each.
    pub handshake_timeout: Duration,
    /// Bytes of one stream on the way. The default of 64 KiB gives about 1 MB/s at 64 ms round-trip time.
    pub stream_window: u32,
    /// Bytes of all streams of a connection on the way.
    pub connection_window: u32,
    /// Concurrent calls on one connection.
    pub max_streams: u32,
    /// Largest message that is accepted, bytes.
    pub max_message: usize,
    /// Largest header block that is accepted, bytes.
    pub max_headers: u32,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self {
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            stream_window: 2 << 20,
            connection_window: 8 << 20,
            max_streams: 256,
            max_message: 16 << 20,
            max_headers: 32 << 10,
        }
    }
}

impl ChannelSettings {
    /// The longest time for which a dead connection can go unnoticed.
    #[must_use]
    pub fn liveness_bound(&self) -> Duration {
        self.keep_alive_interval + self.keep_alive_timeout
    }
}
