//! What is measured of one operation.

use std::{sync::Arc, time::Instant};

use metrics::{Label, counter, histogram};
use storage_core::{Error, ErrorKind};
use storage_layer::OperationName;

use crate::names;

/// An operation under way. Dropping it is its end: what has no outcome by then was cancelled.
#[derive(Debug)]
pub struct Measurement {
    name: OperationName,
    backend: Arc<str>,
    begun: Instant,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Success,
    Error(ErrorKind),
}

impl Measurement {
    pub(crate) fn begin(name: OperationName, backend: Arc<str>) -> Self {
        Self { name, backend, begun: Instant::now(), outcome: None }
    }

    pub(crate) fn read(&self, bytes: u64) {
        self.count(names::BYTES_READ, bytes);
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        self.count(names::BYTES_WRITTEN, bytes);
    }

    fn count(&self, name: &'static str, bytes: u64) {
        if bytes > 0 {
            counter!(name, self.labels()).increment(bytes);
        }
    }

    /// The call has returned a stream: the end is yet to come.
    pub(crate) fn goes_on(&mut self) {
        self.outcome = None;
    }

    pub(crate) fn succeeded(&mut self) {
        self.outcome.get_or_insert(Outcome::Success);
    }

    pub(crate) fn failed(&mut self, error: &Error) {
        self.outcome = Some(Outcome::Error(error.kind()));
    }

    fn labels(&self) -> Vec<Label> {
        vec![Label::from_static_parts("operation", self.name.as_str()), Label::new("backend", self.backend.clone())]
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        let mut labels = self.labels();
        histogram!(names::DURATION, labels.clone()).record(self.begun.elapsed().as_secs_f64());
        match self.outcome {
            Some(Outcome::Success) => counter!(names::SUCCESSES, labels).increment(1),
            Some(Outcome::Error(kind)) => {
                labels.push(Label::from_static_parts("kind", kind.code()));
                counter!(names::ERRORS, labels).increment(1);
            }
            None => counter!(names::CANCELLATIONS, labels).increment(1),
        }
    }
}
