//! Protobuf contracts between Reeve's processes and machines, and with its own past: what stands on disk.
//!
//! What stands on disk is written by hand; what is a service is a `.proto` file. Rules: a tag is never used twice, a
//! field never changes its meaning, and what a reader does not know it refuses by the `version` of the message.

pub mod backup;
pub mod member;
pub mod store;

/// What the members of one store say to each other; see `peer.proto`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod peer {
    tonic::include_proto!("reeve.peer.v1");
}

/// The container runtime interface; see `cri.proto`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// etcd's own protocol; see `etcd/rpc.proto`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod etcd {
    /// Keys, their states and changes.
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }

    /// Permissions.
    pub mod authpb {
        tonic::include_proto!("authpb");
    }

    /// The services.
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
}
