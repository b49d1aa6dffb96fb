//! Work that blocks or computes runs here, away from the thread on which everything waits.

use std::panic::resume_unwind;

/// Runs `work` on a thread where it may block. A panic in it goes on in the caller. Its spans are of the caller's trace.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    #[cfg(feature = "otel")]
    let work = {
        let context = opentelemetry::Context::current();
        move || {
            let _entered = context.attach();
            work()
        }
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => resume_unwind(error.into_panic()),
    }
}
