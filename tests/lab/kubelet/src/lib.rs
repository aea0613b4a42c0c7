//! The lab's kubelet: pods as namespaces, volumes laid out as kubelet does.

pub mod cluster;
pub mod fault;
pub mod hosts;
pub mod image;
pub mod kubelet;
pub mod logs;
pub mod node;
pub mod options;
pub mod pod;
pub mod runtime;
pub mod server;
pub mod volume;

use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

/// Runs as one of the kubelet's own single-threaded helper processes, when `verb` names one. Gives its exit code.
///
/// # Errors
/// What a helper cannot report through its socket.
pub fn run_helper(verb: &str) -> Option<anyhow::Result<i32>> {
    let socket =
        || -> anyhow::Result<UnixStream> { Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into()) };
    Some(match verb {
        "container-init" => socket()
            .and_then(|socket| runtime::monitor::run(&socket))
            .map(|()| 0),
        "pause" => socket()
            .and_then(|socket| runtime::pause::run(&socket))
            .map(|()| 0),
        "exec" => socket().and_then(|socket| Ok(runtime::enter::run(socket)?)),
        _ => return None,
    })
}

/// Two lower-case digits a byte.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
