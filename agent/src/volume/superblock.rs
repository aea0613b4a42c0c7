//! Is a file system itself read-only, or only the mount through which we look at it?
//!
//! `statvfs` says read-only in both cases, and the agent's own mounts of volume roots are read-only on purpose. What the
//! kernel turned read-only after an error stands among the *super* options of `/proc/self/mountinfo` (proc(5)).

use nix::sys::stat::{major, minor};

/// Whether the file system of `device` is read-only by `mountinfo`; `None` where it is not listed there.
pub(crate) fn is_read_only(mountinfo: &str, device: u64) -> Option<bool> {
    let wanted = format!("{}:{}", major(device), minor(device));
    let line = mountinfo
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(&wanted))?;
    // After the optional fields and a dash: type, source, super options.
    let (_, after) = line.split_once(" - ")?;
    let options = after.split(' ').nth(2)?;
    Some(options.split(',').any(|option| option == "ro"))
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::makedev;
    use proptest::prelude::*;

    use super::*;

    const MOUNTINFO: &str = "\
36 35 98:0 /mnt1 /mnt2 ro,noatime master:1 - ext3 /dev/root rw,errors=continue
37 35 98:1 / /mnt3 rw,relatime shared:2 propagate_from:3 - ext4 /dev/vdb ro,errors=remount-ro
38 35 0:45 / /mnt4 ro - tmpfs rose rw,size=4k
";

    #[test]
    fn a_read_only_mount_of_a_writable_file_system_is_not_a_read_only_file_system() {
        assert_eq!(is_read_only(MOUNTINFO, makedev(98, 0)), Some(false));
        assert_eq!(is_read_only(MOUNTINFO, makedev(98, 1)), Some(true));
        assert_eq!(
            is_read_only(MOUNTINFO, makedev(0, 45)),
            Some(false),
            "`rose` is no option"
        );
        assert_eq!(is_read_only(MOUNTINFO, makedev(1, 1)), None);
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text in ".*", device in any::<u64>()) {
            let _ = is_read_only(&text, device);
        }
    }
}
