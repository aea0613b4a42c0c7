//! How much memory this process holds.

/// Resident memory of this process, bytes (`/proc/self/statm`, second field); 0 where it cannot be read.
#[must_use]
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten();
    pages
        .unwrap_or(0)
        .saturating_mul(size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096))
}
