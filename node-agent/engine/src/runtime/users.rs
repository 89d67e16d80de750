//! Who `USER` is: names looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! Source of the rules: Dockerfile reference, `USER`; passwd(5), group(5). Reading is done by the caller, inside
//! the container's root; lines that are not of the format are passed over, as the C library does.

use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::snapshot::root::open_regular;

/// Most bytes read of either file: an image decides their size.
const FILE_LEN_MAX: u64 = 4 << 20;

/// A user as the container's first process will be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home folder, `/` when unknown.
    pub home: String,
}

/// What is asked for: the image's `USER`, overridden by numbers.
#[derive(Debug, Clone, Default)]
pub struct UserRequest<'a> {
    /// `USER` of the image: `user`, `uid`, `user:group`, `uid:gid`, or empty.
    pub image_user: &'a str,
    /// Instead of the image's.
    pub uid: Option<u32>,
    /// Instead of the image's or the user's.
    pub gid: Option<u32>,
    /// Besides those of `/etc/group`.
    pub supplemental: &'a [u32],
    /// Whether those of `/etc/group` do not count.
    pub strict: bool,
}

/// A name that the image does not know. The container's fault, in containerd's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Finds the user that a container runs as.
///
/// # Errors
/// For a name that the files do not hold; numbers need no entry.
pub fn resolve(request: &UserRequest<'_>, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user_part, group_part) = request.image_user.split_once(':').unwrap_or((request.image_user, ""));
    let by_uid = |uid| passwd_entries(passwd).find(|entry| entry.uid == uid);
    let (uid, entry) = match request.uid {
        Some(uid) => (uid, by_uid(uid)),
        None if user_part.is_empty() => (0, by_uid(0)),
        None => find_user(user_part, passwd)?,
    };
    let gid = match request.gid {
        Some(gid) => gid,
        None if request.uid.is_none() && !group_part.is_empty() => find_group(group_part, group)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let member = entry.as_ref().filter(|_| !request.strict);
    let mut groups: Vec<u32> = member.map_or_else(Vec::new, |entry| memberships(entry.name, group));
    groups.push(gid);
    groups.extend_from_slice(request.supplemental);
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(User { uid, gid, groups, home: home.to_owned() })
}

/// Reads one of the two files inside a root, whatever links the image holds. Missing means empty.
#[must_use]
pub fn read_in_root(root: BorrowedFd<'_>, path: &str) -> String {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = openat2(root.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    let Ok(file) = place.and_then(|place| open_regular(&place)) else { return String::new() };
    let mut bytes = Vec::new();
    let _ = file.take(FILE_LEN_MAX).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn find_user<'a>(text: &str, passwd: &'a str) -> Result<(u32, Option<PasswdEntry<'a>>), UserError> {
    if let Some(entry) = passwd_entries(passwd).find(|entry| entry.name == text) {
        return Ok((entry.uid, Some(entry)));
    }
    let uid: u32 = text.parse().map_err(|_| UserError::User(text.to_owned()))?;
    Ok((uid, passwd_entries(passwd).find(|entry| entry.uid == uid)))
}

fn find_group(text: &str, group: &str) -> Result<u32, UserError> {
    if let Some(entry) = group_entries(group).find(|entry| entry.name == text) {
        return Ok(entry.gid);
    }
    text.parse().map_err(|_| UserError::Group(text.to_owned()))
}

fn memberships(name: &str, group: &str) -> Vec<u32> {
    group_entries(group).filter(|entry| entry.members.split(',').any(|member| member == name)).map(|e| e.gid).collect()
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\nweb:x:33:44::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:44:\ncdrom:x:24:web,other\nstaff:x:50:other\n";

    fn user(image_user: &str, uid: Option<u32>, gid: Option<u32>, supplemental: &[u32]) -> Result<User, UserError> {
        resolve(&UserRequest { image_user, uid, gid, supplemental, strict: false }, PASSWD, GROUP)
    }

    #[test]
    fn names_and_numbers_are_resolved_as_docker_does() {
        let ids = |image_user| user(image_user, None, None, &[]).map(|u| (u.uid, u.gid, u.groups, u.home));
        assert_eq!(ids(""), Ok((0, 0, vec![0], "/root".to_owned())));
        assert_eq!(ids("web"), Ok((33, 44, vec![24, 44], "/var/www".to_owned())));
        assert_eq!(ids("33"), Ok((33, 44, vec![24, 44], "/var/www".to_owned())));
        assert_eq!(ids("web:staff"), Ok((33, 50, vec![24, 50], "/var/www".to_owned())));
        assert_eq!(ids("1000"), Ok((1000, 0, vec![0], "/".to_owned())));
        assert_eq!(ids("1000:1001"), Ok((1000, 1001, vec![1001], "/".to_owned())));
        assert_eq!(ids("nobody"), Err(UserError::User("nobody".to_owned())));
        assert_eq!(ids("web:nogroup"), Err(UserError::Group("nogroup".to_owned())));
    }

    #[test]
    fn a_strict_pod_has_no_groups_of_the_image() {
        let request = UserRequest { image_user: "web", supplemental: &[9], strict: true, ..UserRequest::default() };
        assert_eq!(resolve(&request, PASSWD, GROUP).unwrap().groups, [9, 44]);
    }

    #[test]
    fn the_pods_numbers_override_the_image() {
        let u = user("web:staff", Some(7), None, &[9]).unwrap();
        assert_eq!((u.uid, u.gid, u.groups), (7, 0, vec![0, 9]));
        let u = user("web", Some(33), Some(5), &[]).unwrap();
        assert_eq!((u.uid, u.gid, u.groups), (33, 5, vec![5, 24]));
    }
}
