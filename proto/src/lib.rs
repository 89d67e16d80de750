//! Protobuf contracts between Reeve's processes and machines.
