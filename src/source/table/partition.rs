//! A partition, whichever table it stands in.

/// Tables of DOS count in these.
pub const SECTOR: u64 = 512;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As in `/dev/sda2`.
    pub number: u32,
    /// Where it starts.
    pub offset: u64,
    /// How long it is.
    pub size_bytes: u64,
    /// As fstab writes it after `PARTUUID=`.
    pub uuid: String,
    /// As fstab writes it after `PARTLABEL=`; empty without one.
    pub label: String,
    /// The GUID of its type; empty in a table that has no such types.
    pub kind: String,
}
