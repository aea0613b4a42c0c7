//! Identities, TLS and the reverse channel.
