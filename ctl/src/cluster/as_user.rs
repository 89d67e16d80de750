//! Touching files with another user's rights, for a moment.
//!
//! The kernel keeps a thread's identity towards file systems apart from the rest (credentials(7), setfsuid(2)): while
//! it is a user's, root's rights over files are gone too, and what is made belongs to them.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist, getgroups, setfsgid, setfsuid, setgroups};

use super::error::ClusterError;

/// As long as it lives, this thread touches files as that user. The process must be of one thread, or at least no other
/// may touch files meanwhile: the groups are the whole process's.
#[derive(Debug)]
pub(crate) struct AsUser {
    groups: Vec<Gid>,
}

impl AsUser {
    /// From root to that user.
    pub(crate) fn become_user(user: &User) -> Result<Self, ClusterError> {
        let failed = |err: nix::Error| ClusterError::io(format!("act as user {}", user.name), err);
        let name = CString::new(user.name.as_str()).map_err(|err| ClusterError::io("read a user's name", err))?;
        let theirs = getgrouplist(&name, user.gid).map_err(failed)?;
        let before = Self { groups: getgroups().map_err(failed)? };
        setgroups(&theirs).map_err(failed)?;
        setfsgid(user.gid);
        setfsuid(user.uid);
        // They tell no failure: asking for nobody tells what is so.
        let done = setfsgid(Gid::from_raw(u32::MAX)) == user.gid && setfsuid(Uid::from_raw(u32::MAX)) == user.uid;
        if done { Ok(before) } else { Err(failed(nix::Error::EPERM)) }
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        setfsuid(geteuid());
        setfsgid(getegid());
        // What root was given it may have again.
        let _ = setgroups(&self.groups);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    #[test]
    fn files_are_touched_with_the_users_rights_and_then_with_ones_own_again() {
        let Ok(Some(user)) = User::from_name("nobody") else { panic!("there is a user nobody") };
        if !geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let (secret, made) = (folder.path().join("secret"), folder.path().join("made"));
        std::fs::write(&secret, "root's").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        // On a thread of its own: other tests of this process go on as root.
        std::thread::scope(|scope| {
            let acted = scope.spawn(|| {
                let as_user = AsUser::become_user(&user).unwrap();
                let refused = std::fs::read(&secret).is_err() && std::fs::write(&secret, "mine").is_err();
                std::fs::write(&made, "theirs").unwrap();
                drop(as_user);
                refused && std::fs::read(&secret).is_ok()
            });
            assert!(acted.join().unwrap());
        });
        assert_eq!(std::fs::metadata(&made).unwrap().uid(), user.uid.as_raw());
    }
}
