//! Fault injection for tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use loftup_bundle::Precision;
use parking_lot::{Condvar, Mutex};

use super::{
    Arithmetic, Backend, BackendError, Graph, Health, Model, Plan, Session, ShapeProfile,
    TilingHint, graph::Signature,
};

const NAME: &str = "faulty";

/// A fault in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The run fails with an error.
    Error,
    /// The run succeeds, but one value of each output is NaN.
    Nan,
    /// The run succeeds, but one value of each output is infinite.
    Infinity,
    /// The run does not return until [`Faults::release`] is called or the time of [`Faults::limit_hangs`], by
    /// default a minute, has passed.
    Hang,
    /// The run takes this much longer.
    Slow(Duration),
}

impl Fault {
    /// Number of kinds of faults.
    const KINDS: usize = 5;

    fn kind(self) -> usize {
        match self {
            Self::Error => 0,
            Self::Nan => 1,
            Self::Infinity => 2,
            Self::Hang => 3,
            Self::Slow(_) => 4,
        }
    }
}

/// A schedule of faults, shared by everything compiled by one [`Faulty`]. Runs and builds are
/// numbered from 0 across all plans.
#[derive(Debug, Default)]
pub struct Faults {
    schedule: Mutex<Schedule>,
    runs: AtomicU64,
    builds: AtomicU64,
    /// Counts by kind, and of failed builds.
    injected: [AtomicU64; Fault::KINDS],
    failed_builds: AtomicU64,
    /// Number of calls that are hung now.
    hanging: AtomicU64,
    hang_limit: Mutex<Option<Duration>>,
    released: Mutex<bool>,
    release: Condvar,
}

#[derive(Debug, Default)]
struct Schedule {
    runs: Vec<(u64, u64, Fault)>,
    builds: Vec<u64>,
    random: Option<(u64, f64, Vec<Fault>)>,
}

impl Faults {
    /// No faults until some are added.
    pub fn none() -> Arc<Self> {
        Arc::default()
    }

    /// Injects `fault` into run `n`.
    pub fn at_run(&self, n: u64, fault: Fault) {
        self.during_runs(n, n, fault);
    }

    /// Injects `fault` into runs `first` to `last`.
    pub fn during_runs(&self, first: u64, last: u64, fault: Fault) {
        self.schedule.lock().runs.push((first, last, fault));
    }

    /// Makes build `n` fail.
    pub fn at_build(&self, n: u64) {
        self.schedule.lock().builds.push(n);
    }

    /// Injects one of `faults` into each run with this probability; the same seed gives the same
    /// faults.
    pub fn at_random(&self, seed: u64, probability: f64, faults: &[Fault]) {
        self.schedule.lock().random = Some((seed, probability, faults.to_vec()));
    }

    /// Removes all faults.
    pub fn clear(&self) {
        *self.schedule.lock() = Schedule::default();
    }

    /// Lets calls that hang return after this time.
    pub fn limit_hangs(&self, limit: Duration) {
        *self.hang_limit.lock() = Some(limit);
    }

    /// Releases all hung calls, and lets none hang from now on.
    pub fn release(&self) {
        *self.released.lock() = true;
        self.release.notify_all();
    }

    /// Number of runs so far.
    pub fn runs(&self) -> u64 {
        self.runs.load(SeqCst)
    }

    /// Number of builds so far.
    pub fn builds(&self) -> u64 {
        self.builds.load(SeqCst)
    }

    /// Number of faults injected so far.
    pub fn injected(&self) -> u64 {
        let runs: u64 = self.injected.iter().map(|n| n.load(SeqCst)).sum();
        runs + self.failed_builds.load(SeqCst)
    }

    /// Number of faults of this kind injected so far; slow runs count regardless of their delay.
    pub fn injected_as(&self, fault: Fault) -> u64 {
        self.injected[fault.kind()].load(SeqCst)
    }

    /// The fault of the next run, if any.
    fn next_run(&self) -> Option<Fault> {
        let n = self.runs.fetch_add(1, SeqCst);
        let schedule = self.schedule.lock();
        let planned = schedule
            .runs
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&n))
            .map(|(_, _, fault)| *fault);
        let fault = planned.or_else(|| {
            let (seed, probability, faults) = schedule.random.as_ref()?;
            let (draw, choice) = (scramble(seed ^ n), scramble(!seed ^ n));
            let unit = (draw >> 11) as f64 / (1u64 << 53) as f64;
            let choice = usize::try_from(choice % faults.len().max(1) as u64).ok()?;
            faults.get(choice).copied().filter(|_| unit < *probability)
        });
        if let Some(fault) = fault {
            self.injected[fault.kind()].fetch_add(1, SeqCst);
        }
        fault
    }

    fn hang(&self) {
        self.hanging.fetch_add(1, SeqCst);
        let limit = self.hang_limit.lock().unwrap_or(Duration::from_secs(60));
        let mut released = self.released.lock();
        self.release.wait_while_for(&mut released, |r| !*r, limit);
        self.hanging.fetch_sub(1, SeqCst);
    }
}

/// SplitMix64's output function (Steele, Lea and Flood, 2014).
fn scramble(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The error of a backend that could not be opened, for [`super::Fallback::new`].
pub fn unavailable(what: &str) -> BackendError {
    BackendError::Unavailable {
        backend: NAME,
        what: what.into(),
        absent: false,
    }
}

/// A backend with injected faults.
pub struct Faulty<B> {
    inner: B,
    faults: Arc<Faults>,
}

impl<B: Backend> Faulty<B> {
    /// Injects `faults` into `inner`.
    pub fn new(inner: B, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

impl<B: Backend> Backend for Faulty<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        Ok(Arc::new(FaultyModel {
            inner: self.inner.load(graph)?,
            signature: graph.signature(),
            faults: self.faults.clone(),
        }))
    }

    fn tiling_hint(&self) -> TilingHint {
        self.inner.tiling_hint()
    }

    fn fuses_heads(&self) -> bool {
        self.inner.fuses_heads()
    }

    fn precisions(&self) -> [Precision; 4] {
        self.inner.precisions()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn arithmetic(&self, precision: Precision) -> Option<Arithmetic> {
        self.inner.arithmetic(precision)
    }

    fn distrust(&self, error: BackendError) -> Result<(), BackendError> {
        self.inner.distrust(error)
    }
}

struct FaultyModel {
    inner: Arc<dyn Model>,
    signature: Signature,
    faults: Arc<Faults>,
}

impl Model for FaultyModel {
    fn compile(
        &self,
        shapes: &[Vec<usize>],
        profiles: &[ShapeProfile],
    ) -> Result<Box<dyn Plan>, BackendError> {
        let n = self.faults.builds.fetch_add(1, SeqCst);
        if self.faults.schedule.lock().builds.contains(&n) {
            self.faults.failed_builds.fetch_add(1, SeqCst);
            let what = format!("injected failure of build {n}");
            return Err(self.signature.rejected(NAME, what));
        }
        Ok(Box::new(FaultyPlan {
            inner: self.inner.compile(shapes, profiles)?,
            graph: self.signature.graph.clone(),
            outputs: self.signature.outputs.len(),
            faults: self.faults.clone(),
        }))
    }
}

struct FaultyPlan {
    inner: Box<dyn Plan>,
    graph: Arc<str>,
    outputs: usize,
    faults: Arc<Faults>,
}

// As with a real driver, objects cannot be freed while one of its calls is hung.
impl Drop for FaultyPlan {
    fn drop(&mut self) {
        if self.faults.hanging.load(SeqCst) > 0 {
            self.faults.hang();
        }
    }
}

impl Plan for FaultyPlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        self.inner.output_shape(index)
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(FaultySession {
            inner: self.inner.session()?,
            graph: self.graph.clone(),
            faults: self.faults.clone(),
            corrupted: vec![Vec::new(); self.outputs],
            corrupted_bytes: vec![Vec::new(); self.outputs],
            is_corrupted: false,
        }))
    }
}

struct FaultySession {
    inner: Box<dyn Session>,
    graph: Arc<str>,
    faults: Arc<Faults>,
    /// Copies of the outputs of a corrupted run.
    corrupted: Vec<Vec<f32>>,
    corrupted_bytes: Vec<Vec<u8>>,
    is_corrupted: bool,
}

impl FaultySession {
    /// Writes `value` to the middle of each output, or 255, which stands for it, if it has bytes.
    fn corrupt(&mut self, value: f32) {
        for (i, copy) in self.corrupted.iter_mut().enumerate() {
            copy.clear();
            copy.extend_from_slice(self.inner.output(i));
            let middle = copy.len() / 2;
            if let Some(place) = copy.get_mut(middle) {
                *place = value;
            }
        }
        for (i, copy) in self.corrupted_bytes.iter_mut().enumerate() {
            copy.clear();
            copy.extend_from_slice(self.inner.output_bytes(i));
            let middle = copy.len() / 2;
            if let Some(place) = copy.get_mut(middle) {
                *place = u8::MAX;
            }
        }
        self.is_corrupted = true;
    }
}

impl Session for FaultySession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        self.inner.set(input, values)
    }

    fn set_bytes(&mut self, input: usize, values: &[u8]) -> Result<(), BackendError> {
        self.inner.set_bytes(input, values)
    }

    fn run(&mut self) -> Result<(), BackendError> {
        self.is_corrupted = false;
        match self.faults.next_run() {
            None => self.inner.run(),
            Some(Fault::Error) => Err(BackendError::Run {
                backend: NAME,
                graph: self.graph.to_string(),
                what: "injected failure of this run".into(),
            }),
            Some(Fault::Hang) => {
                self.faults.hang();
                self.inner.run()
            }
            Some(Fault::Slow(time)) => {
                std::thread::sleep(time);
                self.inner.run()
            }
            Some(fault) => {
                self.inner.run()?;
                self.corrupt(match fault {
                    Fault::Nan => f32::NAN,
                    _ => f32::INFINITY,
                });
                Ok(())
            }
        }
    }

    fn output(&self, index: usize) -> &[f32] {
        if self.is_corrupted {
            return self.corrupted.get(index).map_or(&[], Vec::as_slice);
        }
        self.inner.output(index)
    }

    fn output_bytes(&self, index: usize) -> &[u8] {
        if self.is_corrupted {
            return self.corrupted_bytes.get(index).map_or(&[], Vec::as_slice);
        }
        self.inner.output_bytes(index)
    }
}
