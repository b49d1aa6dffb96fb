//! Removes what was kept for long enough: acknowledged segments after `archive_days`, rejects after `rejects_days`.
//!
//! Always true:
//! - an archived segment is removed only where the ledger has it. The age of a file says nothing of that: an archive that
//!   was brought back from a backup is old, and so is one whose segments a `replay --again` has just forgotten;
//! - only files of this pipeline are removed, and of a reject file that it shares only its lines;
//! - the reject file of a segment that is not acknowledged stays: a load beside this one may be writing it.

use super::Stages;
use crate::blocking::blocking;
use crate::config::{DatabaseUrl, Pipeline};
use crate::durable::{Place, remove_if_present};
use crate::error::Error;
use crate::load::{Loader, Readmitted, settle_kept_rejects};
use crate::segment::SegmentId;
use crate::spool::{Header, message_uuid, read_rejects};

impl Stages {
    /// Removes the files that this pipeline has kept for long enough. Connects only where an archived segment may go.
    pub async fn expire_files(&self, database: &DatabaseUrl, pipeline: &Pipeline) -> Result<(), Error> {
        self.expire_rejects(&pipeline.name).await?;
        let old = self.expired_segments(&pipeline.name).await?;
        if old.is_empty() {
            return Ok(());
        }
        let mut loader = Loader::connect_to_ask(database, pipeline).await?;
        self.expire_archive(&mut loader, &old).await
    }

    /// The same, and messages in the ledger that cannot be delivered any more.
    pub async fn expire(&self, database: &DatabaseUrl, pipeline: &Pipeline) -> Result<(), Error> {
        self.expire_rejects(&pipeline.name).await?;
        let old = self.expired_segments(&pipeline.name).await?;
        let mut loader = Loader::connect_to_ask(database, pipeline).await?;
        self.expire_archive(&mut loader, &old).await?;
        Ok(loader.prune().await?)
    }

    async fn expire_archive(&self, loader: &mut Loader, old: &[SegmentId]) -> Result<(), Error> {
        let known = loader.known(old).await?;
        known.keys().try_for_each(|&segment| remove_if_present(&self.staging.archive(segment)))?;
        let segments = old.len() - known.len();
        if segments > 0 {
            tracing::warn!(
                segments,
                "archived segments stay beyond archive_days, which the ledger does not have; `pgsluice replay` loads them"
            );
        }
        Ok(())
    }

    async fn expire_rejects(&self, pipeline: &str) -> Result<(), Error> {
        let (this, name, days) = (self.staging.clone(), pipeline.to_owned(), self.spool.rejects_days);
        blocking(move || {
            let expired = this.expired_rejects(days)?.into_iter();
            for (segment, place) in expired.filter(|(segment, _)| this.find_unacknowledged(*segment).is_none()) {
                let mut own = Readmitted::default();
                for line in read_rejects(&place)? {
                    let line = line?;
                    if line.is_of(&name) {
                        own.loaded.insert(message_uuid(&line.message_id));
                    }
                }
                settle_kept_rejects(&this, segment, &name, &own)?;
                let messages = own.loaded.len();
                if messages > 0 {
                    tracing::warn!(%segment, messages, "removed rejected messages that were kept for rejects_days");
                }
            }
            Ok(())
        })
        .await
    }

    async fn expired_segments(&self, pipeline: &str) -> Result<Vec<SegmentId>, Error> {
        let (staging, days, own) = (self.staging.clone(), self.spool.archive_days, pipeline.to_owned());
        let list = move || {
            let old = staging.expired_archive(days)?.into_iter();
            Ok(old.filter(|(_, place)| is_of(place, &own)).map(|(segment, _)| segment).collect())
        };
        blocking(list).await
    }
}

/// The segment is this pipeline's, as far as it says whose it is. What cannot be read stays.
fn is_of(place: &Place, pipeline: &str) -> bool {
    Header::of_file(place).is_ok_and(|header| header.is_none_or(|header| header.pipeline == pipeline))
}
