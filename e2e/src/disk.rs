//! A small disk of its own for a test: a tmpfs that can be filled and emptied. Mounting needs root;
//! where it is not permitted the test fails and says so. It is gone when this is dropped.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binary::run;

/// Bytes that are written at once while a disk is filled.
static PIECE: [u8; 64 << 10] = [0; 64 << 10];

/// A mounted disk.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// A disk of so many bytes at `path`, which is made when it is not there.
    pub fn mount(path: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(path).expect("the place of the disk can be made");
        let size = format!("size={bytes}");
        let mounted =
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "cloudai-e2e"]).arg(path));
        assert_eq!(
            mounted.code,
            0,
            "this test fills a disk of its own and has to mount it: run it as root. mount said: {}",
            mounted.err()
        );
        Self { path: path.to_owned() }
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("an empty file can be made");
        for length in [PIECE.len(), 1] {
            while file.write_all(&PIECE[..length]).is_ok() {}
        }
    }

    /// Gives the room back that `fill` took.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the disk was filled");
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What still uses it is killed by the test; the mount goes with the last of them.
        drop(run(Command::new("umount").arg("--lazy").arg(&self.path)));
    }
}
