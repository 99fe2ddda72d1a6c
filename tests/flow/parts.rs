//! What the fake machine is made of: its disk, its GRUB's images, its processor.

use std::fs;
use std::path::Path;

/// How a program goes wrong; what is no program only fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It does nothing and says so.
    #[default]
    Fails,
    /// It does its work and then fails, as one that hangs at its end is killed.
    FailsAfterItsWork,
    /// It does nothing and says that all is well.
    Lies,
}

impl Fault {
    pub const ALL: [Fault; 3] = [Fault::Fails, Fault::FailsAfterItsWork, Fault::Lies];
}

/// A directory in memory where there is such a place: the flows sync a lot.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A disk with a bios_grub partition of 1 MiB at sector 2048.
pub fn make_disk(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = fs::File::create(path).unwrap();
    file.set_len(8 << 20).unwrap();
    gpt::mbr::ProtectiveMBR::with_lb_size((8 << 20) / 512 - 1)
        .overwrite_lba0(
            &mut fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .unwrap(),
        )
        .unwrap();
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(gpt::disk::LogicalBlockSize::Lb512)
        .create(path)
        .unwrap();
    table
        .add_partition("grub", 1 << 20, gpt::partition_types::BIOS, 0, Some(2048))
        .unwrap();
    table.write().unwrap();
}

/// Bytes shaped like a core image of 40 sectors, which reads its modules in `dir`.
pub fn core_img(dir: &str) -> Vec<u8> {
    let mut bytes = vec![7; 40 * 512];
    bytes[1024..][..dir.len()].copy_from_slice(dir.as_bytes());
    bytes[400..512].fill(0);
    bytes[510..512].copy_from_slice(&0x820_u16.to_le_bytes());
    bytes
}

/// Bytes shaped like GRUB's boot.img.
pub fn boot_img() -> Vec<u8> {
    let mut bytes = vec![0xcc; 512];
    bytes[0x180..0x185].copy_from_slice(b"GRUB ");
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

pub const CPUINFO: &str = "processor\t: 0\nflags\t\t: fpu cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2 cx8 cmov mmx fxsr sse sse2 syscall\n";
