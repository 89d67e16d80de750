//! Makes Rust of the gRPC contracts. Needs `protoc`, as the raft crate does.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure().bytes(".").compile_protos(&["src/peer.proto"], &["src"])
}
