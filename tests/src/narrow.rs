//! The CPU with the upsampler's products in 16 and 8 bits.

use std::{path::Path, sync::Arc};

use loftup_bundle::{Bundle, Precision};
use loftup_runtime::{
    ExecutionOptions, Perceptor,
    backend::{
        Arithmetic, Backend, BackendError, CpuPrecision, Graph, Model, NarrowCpuBackend, Products,
    },
};

/// The backends of this CPU and the largest root mean square error of a frame, in standard deviations of the features.
pub fn backends() -> Vec<(Products, NarrowCpuBackend, f64)> {
    let all = [
        (Products::Int16, 0.01),
        (Products::Fp16, 0.02),
        (Products::Bf16, 0.06),
        (Products::Int8, 0.15),
    ];
    let available = all.into_iter().filter_map(|(products, limit)| {
        match NarrowCpuBackend::new(CpuPrecision::Products(products)) {
            Ok(backend) => Some((products, backend, limit)),
            Err(e) => {
                println!("skipped: {e}");
                None
            }
        }
    });
    available.collect()
}

/// A backend whose outputs are not compared with references before they are used.
pub struct Uncompared(pub NarrowCpuBackend);

impl Backend for Uncompared {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        self.0.load(graph)
    }

    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        None
    }
}

/// Opens a bundle with a backend.
///
/// # Panics
/// If it cannot be opened.
pub fn open(path: &Path, backend: Arc<dyn Backend>) -> Perceptor {
    let bundle = Bundle::open(path).unwrap();
    Perceptor::with_backend(bundle, backend, ExecutionOptions::default()).unwrap()
}

/// The root mean square of the error in standard deviations of the exact values.
///
/// # Panics
/// If the numbers of values differ.
pub fn relative_error(found: &[f32], exact: &[f32]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let n = exact.len() as f64;
    let wide = || exact.iter().map(|x| f64::from(*x));
    let mean = wide().sum::<f64>() / n;
    let deviation = (wide().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let squares = wide().zip(found).map(|(a, b)| (a - f64::from(*b)).powi(2));
    (squares.sum::<f64>() / n).sqrt() / deviation
}
