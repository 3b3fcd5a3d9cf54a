//! Timing: the contestants take turns, so that whatever changes on the machine meanwhile hits all of them.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use crate::{
    Error, Result,
    subject::{Operation, Subject},
};

/// How long a sample should take; one run of the operation by each task may take longer.
const SAMPLE: Duration = Duration::from_millis(30);
/// How long all samples of one row should take.
const ROW: Duration = Duration::from_secs(9);
const MOST: usize = 31;
const FEWEST: usize = 7;

/// A subject whose type is hidden outside the timed loop, so that hiding it costs nothing within.
pub(crate) trait Contestant: Send + Sync {
    /// Whether it has the operation.
    fn can(&self, _: Operation) -> bool {
        true
    }

    /// How long it takes that many tasks to run the operation that often each.
    fn sample(&self, operation: Operation, tasks: usize, times: usize) -> BoxFuture<'_, Result<Duration>>;
}

impl<S: Subject> Contestant for S {
    fn sample(&self, operation: Operation, tasks: usize, times: usize) -> BoxFuture<'_, Result<Duration>> {
        Box::pin(async move {
            let begun = Instant::now();
            let work = |task: usize| {
                let subject = self.clone();
                async move {
                    for i in 0..times {
                        operation.run(&subject, task, i).await?;
                    }
                    Ok::<_, Error>(())
                }
            };
            let tasks: Vec<_> = (0..tasks).map(|task| tokio::spawn(work(task))).collect();
            for task in tasks {
                task.await??;
            }
            Ok(begun.elapsed())
        })
    }
}

/// The outcome for one contestant: nanoseconds of elapsed time per operation.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) library: &'static str,
    pub(crate) median: f64,
    /// The 10th and the 90th percentile.
    pub(crate) spread: (f64, f64),
    pub(crate) samples: usize,
}

/// One operation with so many tasks, by all contestants of a group.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) operation: Operation,
    pub(crate) tasks: usize,
    pub(crate) measured: Vec<Measured>,
}

pub(crate) async fn row(
    contestants: &[(&'static str, Box<dyn Contestant>)],
    operation: Operation,
    tasks: usize,
    quick: bool,
) -> Result<Row> {
    let contestants: Vec<_> = contestants.iter().filter(|(_, contestant)| contestant.can(operation)).collect();
    let mut times = Vec::new();
    let mut round = Duration::ZERO;
    for (library, contestant) in &contestants {
        let (n, took) =
            calibrate(contestant.as_ref(), operation, tasks).await.map_err(|e| format!("{library}: {e}"))?;
        times.push(n);
        round += took;
    }
    let rounds = ROW.div_duration_f64(round) as usize;
    let rounds = if quick { rounds.clamp(FEWEST, MOST) / 5 + 2 } else { rounds.clamp(FEWEST, MOST) };
    let mut samples = vec![Vec::with_capacity(rounds); contestants.len()];
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            // Nobody always comes after the same one.
            let i = (round + turn) % contestants.len();
            let took = contestants[i].1.sample(operation, tasks, times[i]).await?;
            samples[i].push(took.as_secs_f64() * 1e9 / (tasks * times[i] * operation.parts()) as f64);
        }
    }
    let measured = contestants.iter().zip(samples).map(|((library, _), samples)| summary(library, samples)).collect();
    Ok(Row { operation, tasks, measured })
}

/// How often each task runs the operation in a sample, and how long that takes. This is the warm-up too.
async fn calibrate(contestant: &dyn Contestant, operation: Operation, tasks: usize) -> Result<(usize, Duration)> {
    let mut times = 1;
    loop {
        let took = contestant.sample(operation, tasks, times).await?;
        let factor = SAMPLE.div_duration_f64(took);
        if factor < 1.5 {
            return Ok((times, took));
        }
        // The first runs are slow, so the first guess is too small; a tenfold step at most keeps it from being far too large.
        times = (times as f64 * factor.min(10.0)).ceil() as usize;
    }
}

fn summary(library: &'static str, mut samples: Vec<f64>) -> Measured {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
    Measured { library, median: at(0.5), spread: (at(0.1), at(0.9)), samples: samples.len() }
}
