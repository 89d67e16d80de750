//! What a backup consists of. The file begins with the eight bytes of [`MAGIC`]; then come records, framed and
//! checksummed as everything in the store, numbered from 0: a [`BackupHead`], then [`BackupPart`]s, the last of which
//! has the end.

/// What a backup begins with.
pub const MAGIC: [u8; 8] = *b"REEVEBAK";

/// The version of all messages of this module. A reader refuses a head of a higher one.
pub const VERSION: u32 = 1;

/// What is in a backup.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BackupHead {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The cluster's name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// When it was made, in seconds since 1970.
    #[prost(int64, tag = "3")]
    pub created: i64,
    /// What made it.
    #[prost(string, tag = "4")]
    pub program: String,
    /// The revision whose state it holds.
    #[prost(uint64, tag = "5")]
    pub revision: u64,
    /// How many keys there are at that revision.
    #[prost(uint64, tag = "6")]
    pub keys: u64,
    /// Small files that a cluster has beside its store.
    #[prost(message, repeated, tag = "7")]
    pub files: Vec<BackupFile>,
}

/// A file beside the store: an authority's key, the cluster's lasting choices.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackupFile {
    /// Its path below the data folder.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What is in it.
    #[prost(bytes = "vec", tag = "2")]
    pub content: Vec<u8>,
}

/// A part of a backup: some keys, in order; the last part has the end or says why there is none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BackupPart {
    /// Keys.
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<BackupKey>,
    /// Only in the last part. A backup without it is not whole.
    #[prost(message, optional, tag = "2")]
    pub end: Option<BackupEnd>,
    /// Why whoever made it could not go on; empty everywhere else.
    #[prost(string, tag = "3")]
    pub failure: String,
    /// Leases, before any key.
    #[prost(message, repeated, tag = "4")]
    pub leases: Vec<BackupLease>,
}

/// A lease that keys hang on. Once restored it has its whole time again.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BackupLease {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Its time to live in seconds.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
}

/// The state of one key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackupKey {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: bytes::Bytes,
    /// Its value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: bytes::Bytes,
    /// The revision at which it was created.
    #[prost(uint64, tag = "3")]
    pub create_revision: u64,
    /// The revision of its last change.
    #[prost(uint64, tag = "4")]
    pub mod_revision: u64,
    /// Number of changes since it was created.
    #[prost(uint64, tag = "5")]
    pub version: u64,
    /// The lease that it hangs on; 0 for none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// The end of a backup that is whole.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackupEnd {
    /// How many keys all parts have together.
    #[prost(uint64, tag = "1")]
    pub keys: u64,
    /// SHA-256 of everything before the record of this part.
    #[prost(bytes = "vec", tag = "2")]
    pub sha256: Vec<u8>,
}
