//! Is a file system itself read-only, or only the mount through which we look at it?
//!
//! `statvfs` says read-only in both cases, and the agent's own mounts of volume roots are read-only on purpose. What the
//! kernel turned read-only after an error stands among the *super* options of `/proc/self/mountinfo` (proc(5)).

/// Whether the file system is read-only of the mount that `fdinfo` names (`/proc/self/fdinfo/<fd>`), by `mountinfo`; `None`
/// where it is not listed there. By the mount's id, as a device may have several and btrfs has others in `stat`.
pub(crate) fn is_read_only(fdinfo: &str, mountinfo: &str) -> Option<bool> {
    let wanted = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?
        .trim();
    let line = mountinfo
        .lines()
        .find(|line| line.split(' ').next() == Some(wanted))?;
    // After the optional fields and a dash: type, source, super options.
    let (_, after) = line.split_once(" - ")?;
    let options = after.split(' ').nth(2)?;
    Some(options.split(',').any(|option| option == "ro"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOUNTINFO: &str = "\
36 35 98:0 /mnt1 /mnt2 ro,noatime master:1 - ext3 /dev/root rw,errors=continue
37 35 98:1 / /mnt3 rw,relatime shared:2 propagate_from:3 - ext4 /dev/vdb ro,errors=remount-ro
38 35 0:45 / /mnt4 ro - tmpfs rose rw,size=4k
39 35 0:99 / /mnt5 ro - btrfs /dev/vdc ro,subvol=/
";

    fn of(mount: &str) -> Option<bool> {
        let fdinfo = format!("pos:\t0\nflags:\t012100000\nmnt_id:\t{mount}\nino:\t2\n");
        is_read_only(&fdinfo, MOUNTINFO)
    }

    #[test]
    fn a_read_only_mount_of_a_writable_file_system_is_not_a_read_only_file_system() {
        assert_eq!(of("36"), Some(false));
        assert_eq!(of("37"), Some(true));
        assert_eq!(of("38"), Some(false), "`rose` is no option");
        assert_eq!(of("39"), Some(true), "whatever device `stat` tells of");
        for unknown in ["35", "3", ""] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
        assert_eq!(is_read_only("pos:\t0\n", MOUNTINFO), None);
    }

    #[test]
    fn a_descriptor_of_this_process_is_listed() {
        use std::os::fd::AsRawFd;
        let directory = std::fs::File::open("/proc").unwrap();
        let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", directory.as_raw_fd())).unwrap();
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(is_read_only(&fdinfo, &mountinfo).is_some(), "{fdinfo}");
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(fdinfo in ".*", text in ".*") {
            let _ = is_read_only(&fdinfo, &text);
            let _ = is_read_only("mnt_id: 1", &format!("1 {text}"));
        }
    }
}
