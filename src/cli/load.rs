//! `pgsluice load`: chunks into Postgres.

use std::sync::Arc;

use super::end::End;
use super::session::{Session, runtime};
use super::{KeyFlags, SharedFlags};
use crate::error::Error;
use crate::exit_code::ExitCode;

pub(super) fn run(flags: &SharedFlags, keys: KeyFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags)?;
        session.take_inventory(&session.owner(None))?;
        let loaders = session.connect_loaders_with(session.config.load.connections, keys).await?;
        let segments = session.staging().staged_segments()?;
        if let stray @ [first, ..] = &session.staging().segments_of_stray_rows()?[..] {
            let segments = stray.len();
            tracing::warn!(segments, %first, "rows without their manifest are no chunk: copy all files of a segment in chunks/");
        }
        let end = Arc::clone(&session.stages).load_staged(segments, loaders).await;
        let title = format!("chunks → {}", session.config.pipeline.table);
        let end = end.and_then(|()| {
            let unfinished = !session.staging().staged_segments()?.is_empty();
            Ok(End::without_queue(session.stop.is_cancelled(), unfinished))
        });
        session.finish(&title, end)
    })
}
