//! What is cut off, put aside in files.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::json;
use underpass_store::Entry;

use super::{RepairError, RepairPlan};
use crate::keys;

/// What the first line of a manifest says.
const KEPT_FORMAT: &str = "underpass repair, format 1";
/// The file that lists all others.
const MANIFEST: &str = "manifest.json";

/// A folder that is being filled. All calls block.
#[derive(Debug)]
pub(super) struct Keep {
    folder: PathBuf,
    manifest: BufWriter<File>,
    entries: u64,
}

impl Keep {
    /// Makes the folder, which must not be there: nothing that was put aside before is written over.
    pub(super) fn begin(folder: &Path, plan: &RepairPlan) -> Result<Self, RepairError> {
        let failed = |source| RepairError::Keep { path: folder.to_owned(), source };
        if let Some(parent) = folder.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        }
        DirBuilder::new().mode(0o700).create(folder).map_err(failed)?;
        let path = folder.join(MANIFEST);
        let failed = |source| RepairError::Keep { path: path.clone(), source };
        let mut manifest = BufWriter::new(create(&path).map_err(failed)?);
        let head = json!({
            "format": KEPT_FORMAT,
            "log": plan.log,
            "log_id": plan.log_id.to_string(),
            "stays": plan.stays.0,
            "hash": plan.hash.to_string(),
            "epoch": plan.epoch,
            "lost": plan.lost,
            "reason": plan.reason,
        });
        let head = head.to_string();
        let open = head.strip_suffix('}').unwrap_or(&head);
        write!(manifest, "{open},\"entries\":[").map_err(failed)?;
        Ok(Self { folder: folder.to_owned(), manifest, entries: 0 })
    }

    pub(super) fn take(&mut self, plan: &RepairPlan, entry: &Entry) -> Result<(), RepairError> {
        let position = keys::frame_position(plan.log, entry.key.as_ref());
        let number = self.entries + 1;
        let name = match position {
            Some(position) => format!("{number:08}-frame-{position}.bin"),
            None => format!("{number:08}-entry.bin"),
        };
        let path = self.folder.join(&name);
        let written = create(&path).and_then(|mut file| {
            file.write_all(&entry.value)?;
            file.sync_all()
        });
        written.map_err(|source| RepairError::Keep { path: path.clone(), source })?;
        let line = json!({
            "file": name,
            "key": HEXLOWER.encode(entry.key.as_ref()),
            "position": position.map(|position| position.0),
            "length": entry.value.len(),
            "blake3": blake3::hash(&entry.value).to_hex().as_str(),
        });
        let comma = if self.entries == 0 { "" } else { "," };
        write!(self.manifest, "{comma}\n{line}")
            .map_err(|source| RepairError::Keep { path: self.folder.join(MANIFEST), source })?;
        self.entries = number;
        Ok(())
    }

    /// Syncs all, down to the name of the folder. Gives how many entries there are.
    pub(super) fn end(mut self) -> Result<u64, RepairError> {
        self.sync().map_err(|source| RepairError::Keep { path: self.folder.clone(), source })?;
        Ok(self.entries)
    }

    fn sync(&mut self) -> io::Result<()> {
        write!(self.manifest, "\n]}}\n")?;
        self.manifest.flush()?;
        self.manifest.get_ref().sync_all()?;
        // The folder, and the two above it that may have been made for it.
        for folder in self.folder.ancestors().take(3).filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
