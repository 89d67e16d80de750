//! The guestbook example.
fn main() {}
