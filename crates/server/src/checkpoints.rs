//! Signed checkpoints of both logs, written beside the log and compared with it at the next start.
//!
//! The key is this node's own and never leaves its data folder: who can write a shared store can't sign. The file
//! may be kept where the folder's thief can't write. What is gone with the process, a log in memory, has none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use underpass_domain::{Clock, LogName, Random};
use underpass_eventlog::{
    BookError, Checkpoint, CheckpointBook, CheckpointKey, CheckpointKeyError, CheckpointPublicKey, LogError,
    Mend, SignedCheckpoint, disagreement,
};
use underpass_store::Store;
use underpass_tasks::Tasks;

use crate::config::CheckpointConfig;
use crate::data::DataFolder;
use crate::error::StartError;

/// The file in the data folder, where the configuration names none.
pub(crate) const FILE: &str = "checkpoints.jsonl";

/// Lines in the file before it is thinned to some three quarters: 3 MB, and at one an hour for each log the first
/// half year with every line.
const LINES_MAX: usize = 8192;

/// How long a stop waits for its checkpoints.
const LAST_MAX: Duration = Duration::from_secs(5);

/// What is set aside gets a number behind its name; nobody does that so often.
const ASIDE_MAX: u32 = 1000;

/// Why no checkpoint was written. The next one is tried all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotNoted {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Key(#[from] CheckpointKeyError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error("the file can't be written")]
    Io(#[from] std::io::Error),
}

/// Writes checkpoints of one store into one file.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    key: CheckpointKey,
    file: PathBuf,
    interval: Duration,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// One at a time.
    writing: Mutex<()>,
}

impl Checkpoints {
    /// Takes up file and key, and compares each log with its newest checkpoint. Nothing is written but a key where
    /// there is none. With `anew`, a file that does not fit is set aside.
    pub(crate) async fn open(
        config: &CheckpointConfig,
        data: &DataFolder,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
        anew: bool,
    ) -> Result<Self, StartError> {
        let file = config.file.clone().unwrap_or_else(|| data.join(FILE));
        let key = data.checkpoint_key(random)?;
        let public = key.public_key();
        if let Some(why) = misfit(&file, &store, &public).await? {
            if !anew {
                return Err(StartError::Checkpoints { file, why });
            }
            let aside = set_aside(&file).await.map_err(|source| unusable(&file, source))?;
            tracing::warn!(why, aside = %aside.display(), "the checkpoints were set aside: new ones begin with the log as it is");
        }
        Ok(Self { key, file, interval: config.interval, store, clock, writing: Mutex::new(()) })
    }

    /// Writes the first ones: a file that can't be written is told at the start.
    pub(crate) async fn begin(&self) -> Result<(), StartError> {
        match self.note().await {
            Ok(()) => Ok(()),
            Err(NotNoted::Io(source)) => Err(unusable(&self.file, source)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no checkpoint was written");
                Ok(())
            }
        }
    }

    /// Writes them every so often, until told to stop.
    pub(crate) fn keep(self: &Arc<Self>, tasks: &Tasks) {
        let this = Arc::clone(self);
        tasks.spawn_essential("checkpoints", |stop: CancellationToken| async move {
            while stop.run_until_cancelled(tokio::time::sleep(this.interval)).await.is_some() {
                // What a stop cuts off is mended by the next one.
                stop.run_until_cancelled(this.note_or_say()).await;
            }
            Ok::<_, std::convert::Infallible>(())
        });
    }

    /// Writes the last ones of a clean stop; a store that is away is not waited for.
    pub(crate) async fn last(&self) {
        if tokio::time::timeout(LAST_MAX, self.note_or_say()).await.is_err() {
            tracing::warn!("no checkpoint was written at the stop: the store did not answer in time");
        }
    }

    /// Writes them now; a failure is said, and is nobody else's.
    async fn note_or_say(&self) {
        if let Err(error) = self.note().await {
            tracing::warn!(file = %self.file.display(), error = &error as &dyn std::error::Error, "no checkpoint was written");
        }
    }

    /// Appends where each log ends, unless the newest one of the file says so already.
    async fn note(&self) -> Result<(), NotNoted> {
        let _one = self.writing.lock().await;
        let mut book = read(&self.file).await?.unwrap_or_default();
        let mut new = Vec::new();
        for log in LogName::ALL {
            let now = Checkpoint::stored(&self.store, log, self.clock.now()).await?;
            let newest = book.of(log).last().map(|signed| signed.checkpoint);
            if newest.is_none_or(|newest| newest != Checkpoint { at: newest.at, ..now }) {
                new.push(self.key.sign(now)?);
            }
        }
        if new.is_empty() && book.mend == Mend::Nothing {
            return Ok(());
        }
        if book.checkpoints.len() + new.len() > LINES_MAX {
            book.checkpoints = book.thinned();
            match replace(&self.file, &book.checkpoints).await {
                Ok(()) => book.mend = Mend::Nothing,
                // Where a file may only be appended to, it grows.
                Err(error) => tracing::warn!(%error, "the file of checkpoints can't be thinned"),
            }
        }
        append(&self.file, book.mend, &new).await?;
        Ok(())
    }
}

/// What of the file does not fit the store, if anything does not.
async fn misfit(
    file: &Path,
    store: &Arc<dyn Store>,
    key: &CheckpointPublicKey,
) -> Result<Option<String>, StartError> {
    let book = match read(file).await {
        Ok(Some(book)) => book,
        Ok(None) => return Ok(None),
        Err(BookError::Read(source)) => return Err(unusable(file, source)),
        Err(error) => return Err(StartError::Book { file: file.to_owned(), source: error }),
    };
    for log in LogName::ALL {
        let Some(newest) = book.of(log).last().copied() else { continue };
        match disagreement(store, &newest, key).await {
            Ok(None) => {}
            Ok(Some(why)) => return Ok(Some(format!("the {log} log: {why}"))),
            Err(LogError::Unavailable { source, .. }) => return Err(StartError::StoreCall(source)),
            Err(LogError::Corrupt { why, .. }) => return Ok(Some(format!("the {log} log: {why}"))),
            // What is wrong with a log as a whole is said by whoever opens it, better than here.
            Err(_) => {}
        }
    }
    Ok(None)
}

fn unusable(file: &Path, source: std::io::Error) -> StartError {
    StartError::CheckpointFile { file: file.to_owned(), source }
}

/// The file's checkpoints; `None` where there is no file.
async fn read(file: &Path) -> Result<Option<CheckpointBook>, BookError> {
    match tokio::fs::File::open(file).await {
        Ok(opened) => CheckpointBook::read(BufReader::new(opened)).await.map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BookError::Read(error)),
    }
}

async fn append(file: &Path, mend: Mend, new: &[SignedCheckpoint]) -> std::io::Result<()> {
    let is_new = !tokio::fs::try_exists(file).await?;
    let mut opened = tokio::fs::OpenOptions::new().create(true).append(true).open(file).await?;
    match mend {
        Mend::Nothing => {}
        Mend::CutTo(bytes) => opened.set_len(bytes).await?,
        Mend::EndLine => opened.write_all(b"\n").await?,
    }
    for checkpoint in new {
        CheckpointBook::append(&mut opened, checkpoint).await?;
    }
    opened.sync_all().await?;
    if is_new { sync_folder(file).await } else { Ok(()) }
}

/// Writes the file anew, so that it is there as it was or as it is to be.
async fn replace(file: &Path, checkpoints: &[SignedCheckpoint]) -> std::io::Result<()> {
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    let mut text = String::new();
    for checkpoint in checkpoints {
        text.push_str(&checkpoint.to_line());
        text.push('\n');
    }
    let mut opened = tokio::fs::File::create(&draft).await?;
    opened.write_all(text.as_bytes()).await?;
    opened.sync_all().await?;
    tokio::fs::rename(&draft, file).await?;
    sync_folder(file).await
}

/// Gives the file a name of its own, `checkpoints.jsonl.1` and so on.
async fn set_aside(file: &Path) -> std::io::Result<PathBuf> {
    for number in 1..ASIDE_MAX {
        let mut aside = file.as_os_str().to_owned();
        aside.push(format!(".{number}"));
        let aside = PathBuf::from(aside);
        if !tokio::fs::try_exists(&aside).await? {
            tokio::fs::rename(file, &aside).await?;
            sync_folder(file).await?;
            return Ok(aside);
        }
    }
    Err(std::io::Error::other("there are too many files of checkpoints that were set aside"))
}

async fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tokio::fs::File::open(folder).await?.sync_all().await
}

#[cfg(test)]
mod tests {
    use underpass_domain::testing::SeededRandom;
    use underpass_domain::{Digest32, LogId, Position, Timestamp};

    use super::*;

    fn signed(position: u64) -> SignedCheckpoint {
        let key = CheckpointKey::generate(&SeededRandom::new(1)).unwrap();
        key.sign(Checkpoint {
            log: if position.is_multiple_of(2) { LogName::Control } else { LogName::Activity },
            log_id: LogId([1; 16]),
            epoch: 1,
            position: Position(position),
            hash: Digest32([7; 32]),
            at: Timestamp(position),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_torn_line_is_mended_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        append(&file, Mend::Nothing, &[signed(1), signed(2)]).await.unwrap();
        let whole = std::fs::read(&file).unwrap();
        for cut in [whole.len() - 1, whole.len() - 40] {
            std::fs::write(&file, &whole[..cut]).unwrap();
            let book = read(&file).await.unwrap().unwrap();
            append(&file, book.mend, &[signed(3)]).await.unwrap();
            let book = read(&file).await.unwrap().unwrap();
            assert_eq!(book.mend, Mend::Nothing);
            assert_eq!(book.checkpoints.last(), Some(&signed(3)), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_thinned_file_keeps_the_first_and_all_of_the_newer_half() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let all: Vec<_> = (0..100).map(signed).collect();
        append(&file, Mend::Nothing, &all).await.unwrap();
        let mut book = read(&file).await.unwrap().unwrap();
        for _ in 0..10 {
            book.checkpoints = book.thinned();
            replace(&file, &book.checkpoints).await.unwrap();
            book = read(&file).await.unwrap().unwrap();
            assert_eq!(book.checkpoints[..2], all[..2], "the first of each log");
            assert_eq!(book.checkpoints.last(), all.last());
        }
        assert!(book.checkpoints.len() < 75, "{}", book.checkpoints.len());
        assert!(book.checkpoints.is_sorted_by_key(|signed| signed.checkpoint.position));
    }

    #[tokio::test]
    async fn what_is_set_aside_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        for number in 1..=3_u64 {
            append(&file, Mend::Nothing, &[signed(number)]).await.unwrap();
            let aside = set_aside(&file).await.unwrap();
            assert_eq!(read(&aside).await.unwrap().unwrap().checkpoints, [signed(number)]);
            assert!(!file.exists());
        }
    }
}
