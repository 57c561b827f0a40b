//! The memory of an input or output.

use std::sync::Arc;

use crate::context::Context;
use crate::cuda::{DeviceBuffer, PinnedBuffer};
use crate::error::Result;
use crate::tensor::{Direction, TensorInfo};

/// Bytes that are copied between host and GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// From the host to the GPU.
    pub to_device: u64,
    /// From the GPU to the host.
    pub to_host: u64,
}

impl Copied {
    /// What a run copies.
    pub(super) fn of(ports: &[Port]) -> Copied {
        let mut copied = Copied::default();
        for port in ports.iter().filter(|port| port.is_copied()) {
            let bytes = match port.info.direction {
                Direction::Input => &mut copied.to_device,
                Direction::Output => &mut copied.to_host,
            };
            *bytes += port.bytes as u64;
        }
        copied
    }
}

/// One input or output.
#[derive(Debug)]
pub(super) struct Port {
    pub info: TensorInfo,
    /// Size at the current shape, in bytes.
    pub bytes: usize,
    pub buffer: Option<Arc<DeviceBuffer>>,
    pub host: Option<PinnedBuffer>,
    /// Whether the host writes or reads it.
    pub on_host: bool,
}

impl Port {
    /// Without memory.
    pub fn new(info: &TensorInfo) -> Port {
        Port {
            info: info.clone(),
            bytes: 0,
            buffer: None,
            host: None,
            on_host: true,
        }
    }

    /// Whether a run copies it from or to the host.
    pub fn is_copied(&self) -> bool {
        let mapped = self
            .buffer
            .as_ref()
            .is_some_and(|buffer| buffer.is_mapped());
        self.host.is_some() && self.buffer.is_some() && !mapped
    }

    /// Allocates memory for the current shape, with `zero_copy` in one place for host and GPU; reuses memory
    /// that is large enough.
    pub fn allocate(&mut self, context: &Context, zero_copy: bool) -> Result<()> {
        let device = context.engine().device();
        let bytes = context.byte_count(&self.info)?;
        if self.info.direction == Direction::Input && !self.on_host {
            // No longer shared with the output of another executor.
            self.buffer = None;
            self.on_host = true;
        }
        let mapped = zero_copy && self.on_host;
        let fits =
            |buffer: &Arc<DeviceBuffer>| buffer.len() >= bytes && buffer.is_mapped() == mapped;
        if !self.buffer.as_ref().is_some_and(fits) {
            if mapped {
                let (host, buffer) = PinnedBuffer::mapped(device, bytes)?;
                (self.host, self.buffer) = (Some(host), Some(Arc::new(buffer)));
            } else {
                self.buffer = Some(Arc::new(DeviceBuffer::new(device, bytes)?));
                self.host = None;
            }
        }
        let enough = |host: &PinnedBuffer| host.as_slice().len() >= bytes;
        if self.on_host && !self.host.as_ref().is_some_and(enough) {
            self.host = Some(PinnedBuffer::new(device, bytes)?);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Binds its memory in the context.
    pub fn bind(&self, context: &mut Context) -> Result<()> {
        match &self.buffer {
            Some(buffer) => context.bind(&self.info.name, buffer),
            None => Ok(()),
        }
    }
}
