//! The span of one operation, and what is written into it at its end.

use std::time::Instant;

use storage_core::Error;
use storage_layer::{Operation, OperationName};
use tracing::{Span, field::Empty};

use crate::TraceLayer;

/// An operation under way. Dropping it is its end: what has no outcome by then was cancelled.
#[derive(Debug)]
pub struct OperationSpan(Option<Open>);

#[derive(Debug)]
struct Open {
    span: Span,
    name: OperationName,
    begun: Instant,
    bytes: u64,
    items: u64,
    outcome: Option<&'static str>,
}

impl OperationSpan {
    /// Opens the span. When nobody listens, it is nothing.
    pub(crate) fn begin(settings: TraceLayer, backend: &str, operation: &Operation<'_>) -> Self {
        let name = operation.name;
        let span = tracing::debug_span!(
            target: "storage",
            "storage",
            operation = name.as_str(),
            backend,
            key = Empty,
            transaction = Empty,
            bytes = Empty,
            items = Empty,
            outcome = Empty,
            kind = Empty,
            ambiguous = Empty,
            duration_ms = Empty,
        );
        if span.is_disabled() {
            return Self(None);
        }
        if let Some(key) = operation.key.filter(|_| settings.keys) {
            // As a literal with escapes, so that a key can neither begin a new line of a log nor colour it.
            span.record("key", tracing::field::debug(key));
        }
        if operation.in_transaction {
            span.record("transaction", true);
        }
        Self(Some(Open { span, name, begun: Instant::now(), bytes: 0, items: 0, outcome: None }))
    }

    /// The span to be entered while the backend is at work.
    pub(crate) fn span(&self) -> Span {
        self.0.as_ref().map_or_else(Span::none, |open| open.span.clone())
    }

    pub(crate) fn moved(&mut self, bytes: u64) {
        if let Some(open) = &mut self.0 {
            open.bytes += bytes;
        }
    }

    pub(crate) fn yielded(&mut self, bytes: u64) {
        if let Some(open) = &mut self.0 {
            open.bytes += bytes;
            open.items += 1;
        }
    }

    /// The call has returned a stream: the end is yet to come.
    pub(crate) fn goes_on(&mut self) {
        if let Some(open) = &mut self.0 {
            open.outcome = None;
        }
    }

    pub(crate) fn succeeded(&mut self) {
        if let Some(open) = &mut self.0 {
            open.outcome.get_or_insert("success");
        }
    }

    pub(crate) fn failed(&mut self, error: &Error) {
        if let Some(open) = &mut self.0 {
            open.outcome = Some("error");
            open.span.record("kind", error.code());
            if error.is_ambiguous() {
                open.span.record("ambiguous", true);
            }
        }
    }
}

impl Drop for OperationSpan {
    fn drop(&mut self) {
        let Some(open) = &self.0 else {
            return;
        };
        if matches!(open.name, OperationName::List | OperationName::Query | OperationName::Versions) {
            open.span.record("items", open.items);
        }
        if open.bytes > 0 || matches!(open.name, OperationName::Get | OperationName::Put) {
            open.span.record("bytes", open.bytes);
        }
        open.span.record("outcome", open.outcome.unwrap_or("cancelled"));
        open.span.record("duration_ms", open.begun.elapsed().as_secs_f64() * 1000.0);
    }
}
