//! Makes Rust of the gRPC contracts. Needs `protoc`, as the raft crate does.

fn main() -> std::io::Result<()> {
    let contracts = ["src/peer.proto", "src/etcd/rpc.proto", "src/cri.proto"];
    tonic_prost_build::configure().bytes(".").compile_protos(&contracts, &["src"])
}
