//! Backups of the data folder.

use std::path::PathBuf;

use poem::http::StatusCode;
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};

use super::{Tag, example};
use crate::answer::{Found, control_at};
use crate::auth::{Admin, Ask};
use crate::problem::{Problem, WriteFailure};

pub(crate) struct Backups;

/// Where a backup shall be made.
#[derive(Object, Clone, Debug)]
#[oai(example, deny_unknown_fields)]
pub(crate) struct MakeBackup {
    /// A folder on the machine of the server that is new or empty; an absolute path.
    to: String,
}

impl Example for MakeBackup {
    fn example() -> Self {
        Self { to: "/var/backups/underpass/2026-11-27".into() }
    }
}

/// A backup that was made.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct BackupMade {
    /// Where it is.
    to: String,
    /// A position that is in it; more may be.
    position: String,
}

impl Example for BackupMade {
    fn example() -> Self {
        Self { to: "/var/backups/underpass/2026-11-27".into(), position: example::POSITION.into() }
    }
}

#[OpenApi(tag = "Tag::System")]
impl Backups {
    /// Back up the data folder
    ///
    /// Keys and store, while the server runs; what was acknowledged before is in it. Only for who may read the data
    /// folder: through `control.sock` in it (`underpass store backup`). A log in etcd is backed up with etcd's own
    /// tools. Scope `admin`.
    #[oai(path = "/v1/backups", method = "post", operation_id = "make_backup")]
    async fn make(&self, ask: Ask<Admin>, body: Json<MakeBackup>) -> Result<Found<BackupMade>, WriteFailure> {
        let Some(backups) = &ask.state.backups else {
            let detail = "backups are made through the control socket in the data folder only";
            return Err(Problem::new(StatusCode::FORBIDDEN, "backup.elsewhere", detail)
                .hint("run `underpass store backup --data DIR` on the machine of the server")
                .into());
        };
        let to = PathBuf::from(&body.0.to);
        if !to.is_absolute() {
            return Err(Problem::invalid("to", "`to` must be an absolute path").into());
        }
        let position = control_at(ask.state.control.state().position);
        backups.make(&to).await?;
        Ok(Found::new(BackupMade { to: body.0.to, position: position.to_string() }, position))
    }
}
