//! A disk that keeps nothing but what was synced.
//!
//! A process that is killed leaves all that it has written to the kernel, synced or not. So a kill alone doesn't show
//! whether what was acknowledged had been synced. Here a small library (`preload/syncs.c`), loaded into the process,
//! writes down what it syncs, and after the kill the folder is made anew as it would be after a loss of power, at the
//! worst: of each file what it held at its last sync, in each folder the names it had at its own last sync. A file
//! whose name was never synced is gone; one that was deleted or replaced, and the folder not synced since, is back.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const SOURCE: &str = include_str!("../preload/syncs.c");

/// A folder on such a disk.
pub struct Disk {
    place: TempDir,
    generation: u32,
    /// What is on the disk for certain.
    durable: Durable,
}

#[derive(Default)]
struct Durable {
    /// By inode: the bytes of a file.
    files: HashMap<u64, u64>,
    /// By inode: the names in a folder.
    folders: HashMap<u64, Vec<(String, u64)>>,
}

/// What a loss of power has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes cut from files that are still there.
    pub bytes: u64,
    /// Files that are gone.
    pub gone: u64,
    /// Files that are back.
    pub back: u64,
}

impl Disk {
    /// An empty folder on such a disk.
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let disk = Self { place, generation: 0, durable: Durable::default() };
        fs::write(disk.path("syncs.c"), SOURCE).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-w", "-o"])
            .arg(disk.path("syncs.so"))
            .arg(disk.path("syncs.c"))
            .arg("-ldl");
        assert!(cc.status().expect("cc is there: RocksDB needs it, too").success());
        fs::create_dir(disk.folder()).unwrap();
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The folder, for the process that is to lose power and for whoever looks what is left.
    pub fn folder(&self) -> PathBuf {
        self.path(&format!("folder-{}", self.generation))
    }

    /// What is in the folder now counts as synced; `command`, when it is started, is watched. Syncs of files that
    /// end in `lost` are swallowed: to show that this is noticed.
    pub fn watch(&mut self, command: &mut Command, lost: Option<&str>) {
        let keep = self.path("keep");
        let _ = fs::remove_dir_all(&keep);
        fs::create_dir(&keep).unwrap();
        fs::write(self.path("syncs"), "").unwrap();
        self.durable = Durable::default();
        self.durable.note(&self.folder());
        command
            .env("LD_PRELOAD", self.path("syncs.so"))
            .env("UNDERPASS_SYNCS", self.path("syncs"))
            .env("UNDERPASS_KEEP", keep);
        if let Some(ending) = lost {
            command.env("UNDERPASS_SYNCS_LOST", ending);
        }
    }

    /// The power is gone; the watched process is, too. [`folder`](Self::folder) is what is left.
    pub fn lose_power(&mut self) -> Taken {
        for line in fs::read_to_string(self.path("syncs")).unwrap().split_inclusive('\n') {
            self.durable.replay(line);
        }
        let before = self.folder();
        let mut there = HashMap::new();
        list(&before, &mut there);
        let names = there.len() as u64;
        list(&self.path("keep"), &mut there);
        self.generation += 1;
        let mut taken = Taken::default();
        let files =
            self.durable.write(fs::metadata(&before).unwrap().ino(), &self.folder(), &there, &mut taken);
        taken.gone = (names + taken.back).saturating_sub(files);
        fs::remove_dir_all(before).unwrap();
        taken
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

/// The files of a folder and the folders in it, by inode.
fn list(folder: &Path, files: &mut HashMap<u64, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), files);
        } else {
            files.entry(entry.ino()).or_insert_with(|| entry.path());
        }
    }
}

impl Durable {
    /// All of a folder as it is.
    fn note(&mut self, folder: &Path) {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            names.push((entry.file_name().into_string().unwrap(), entry.ino()));
            if entry.file_type().unwrap().is_dir() {
                self.note(&entry.path());
            } else {
                self.files.insert(entry.ino(), entry.metadata().unwrap().len());
            }
        }
        self.folders.insert(fs::metadata(folder).unwrap().ino(), names);
    }

    /// One line of the library.
    fn replay(&mut self, line: &str) {
        // The kill may have cut off the last one: then its sync had not returned.
        let Some(line) = line.strip_suffix('\n') else { return };
        let (kind, rest) = line.split_once(' ').unwrap();
        let (inode, rest) = rest.split_once(' ').unwrap();
        let inode = inode.parse().unwrap();
        if kind == "F" {
            self.files.insert(inode, rest.parse().unwrap());
            return;
        }
        let names = rest.split_terminator('/').map(|entry| {
            let (inode, name) = entry.split_once(':').unwrap();
            (name.to_owned(), inode.parse().unwrap())
        });
        self.folders.insert(inode, names.collect());
    }

    /// Makes a folder as it is for certain. Gives how many files are in it.
    fn write(&self, inode: u64, to: &Path, there: &HashMap<u64, PathBuf>, taken: &mut Taken) -> u64 {
        fs::create_dir(to).unwrap();
        let mut files = 0;
        for (name, inode) in self.folders.get(&inode).into_iter().flatten() {
            let to = to.join(name);
            let Some(from) = there.get(inode) else {
                files += self.write(*inode, &to, there, taken);
                continue;
            };
            let mut bytes = fs::read(from).unwrap();
            let synced = usize::try_from(self.files.get(inode).copied().unwrap_or(0)).unwrap();
            taken.bytes += bytes.len().saturating_sub(synced) as u64;
            taken.back += u64::from(from.parent().unwrap().ends_with("keep"));
            // Longer before: it was cut off since, and that may not have been synced.
            bytes.resize(synced.min(bytes.len()), 0);
            fs::write(to, bytes).unwrap();
            files += 1;
        }
        files
    }
}
