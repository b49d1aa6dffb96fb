//! stub
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Flags {}
pub(super) fn run(_: &Flags) -> Result<crate::exit_code::ExitCode, crate::error::Error> { todo!() }
