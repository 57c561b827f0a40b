//! The CUDA driver API, loaded at run time.
//!
//! A C API that NVIDIA has kept stable since CUDA 11.4 (JetPack 5); only functions that every
//! driver since then exports are used. Result codes stay plain numbers, since newer drivers may
//! return codes unknown here. The signatures are those of `cuda.h` in the toolkit.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use crate::error::{Error, Result};

/// A driver handle: context, stream, event or graph.
pub(crate) type Handle = *mut c_void;

/// An address on the GPU.
pub(crate) type DeviceAddress = u64;

/// `CUDA_ERROR_NOT_READY`: the stream or event has unfinished work.
pub(crate) const NOT_READY: u32 = 600;

macro_rules! driver {
    ($($method:ident $symbol:literal ($($argument:ident: $type:ty),*);)+) => {
        /// The functions of an opened libcuda.
        #[derive(Debug)]
        pub(crate) struct Driver { $($method: unsafe extern "C" fn($($type),*) -> u32,)+ }

        impl Driver {
            /// Loads every function.
            pub(crate) fn load(handle: &'static libloading::Library, path: &str) -> Result<Driver> {
                // SAFETY (of each lookup): the names and types are those of NVIDIA's `cuda.h`.
                $(let $method = unsafe {
                    // SAFETY: as above.
                    handle.get::<unsafe extern "C" fn($($type),*) -> u32>($symbol.as_bytes())
                }.map_err(|_| Error::Symbol {
                    library: path.into(),
                    name: $symbol.into(),
                    hint: "install NVIDIA's driver for this GPU, version 470 (CUDA 11.4) or newer",
                })?;)+
                Ok(Driver { $($method: *$method,)+ })
            }

            $(
                /// The driver function of the same name.
                ///
                /// # Safety
                /// As documented by NVIDIA: handles must be live, addresses valid.
                #[allow(dead_code)] // `error_name` is only called through its field.
                pub(crate) unsafe fn $method(&self, $($argument: $type),*) -> Result<()> {
                    // SAFETY: guaranteed by the caller.
                    let code = unsafe { (self.$method)($($argument),*) };
                    self.check($symbol, code)
                }
            )+
        }
    };
}

driver! {
    init "cuInit" (flags: c_uint);
    version "cuDriverGetVersion" (version: *mut c_int);
    error_name "cuGetErrorName" (code: u32, name: *mut *const c_char);
    device_count "cuDeviceGetCount" (count: *mut c_int);
    device "cuDeviceGet" (device: *mut c_int, ordinal: c_int);
    device_name "cuDeviceGetName" (name: *mut c_char, length: c_int, device: c_int);
    device_attribute "cuDeviceGetAttribute" (value: *mut c_int, attribute: c_int, device: c_int);
    context_retain "cuDevicePrimaryCtxRetain" (context: *mut Handle, device: c_int);
    context_release "cuDevicePrimaryCtxRelease_v2" (device: c_int);
    context_set "cuCtxSetCurrent" (context: Handle);
    memory_alloc "cuMemAlloc_v2" (address: *mut DeviceAddress, bytes: usize);
    memory_free "cuMemFree_v2" (address: DeviceAddress);
    host_alloc "cuMemHostAlloc" (address: *mut *mut c_void, bytes: usize, flags: c_uint);
    host_device_address "cuMemHostGetDevicePointer_v2" (device: *mut DeviceAddress, host: *mut c_void, flags: c_uint);
    host_free "cuMemFreeHost" (address: *mut c_void);
    upload "cuMemcpyHtoD_v2" (to: DeviceAddress, from: *const c_void, bytes: usize);
    download "cuMemcpyDtoH_v2" (to: *mut c_void, from: DeviceAddress, bytes: usize);
    upload_async "cuMemcpyHtoDAsync_v2" (to: DeviceAddress, from: *const c_void, bytes: usize, stream: Handle);
    download_async "cuMemcpyDtoHAsync_v2" (to: *mut c_void, from: DeviceAddress, bytes: usize, stream: Handle);
    stream_create "cuStreamCreate" (stream: *mut Handle, flags: c_uint);
    stream_destroy "cuStreamDestroy_v2" (stream: Handle);
    stream_synchronize "cuStreamSynchronize" (stream: Handle);
    stream_query "cuStreamQuery" (stream: Handle);
    capture_begin "cuStreamBeginCapture_v2" (stream: Handle, mode: c_uint);
    capture_end "cuStreamEndCapture" (stream: Handle, graph: *mut Handle);
    graph_instantiate "cuGraphInstantiateWithFlags" (executable: *mut Handle, graph: Handle, flags: c_ulonglong);
    graph_launch "cuGraphLaunch" (executable: Handle, stream: Handle);
    graph_executable_destroy "cuGraphExecDestroy" (executable: Handle);
    graph_destroy "cuGraphDestroy" (graph: Handle);
    event_create "cuEventCreate" (event: *mut Handle, flags: c_uint);
    event_record "cuEventRecord" (event: Handle, stream: Handle);
    event_query "cuEventQuery" (event: Handle);
    event_destroy "cuEventDestroy_v2" (event: Handle);
    event_elapsed "cuEventElapsedTime" (milliseconds: *mut f32, start: Handle, end: Handle);
}

impl Driver {
    fn check(&self, call: &'static str, code: u32) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        Err(Error::Cuda {
            call,
            code,
            name: self.name_of(code),
        })
    }

    fn name_of(&self, code: u32) -> String {
        let mut name = std::ptr::null();
        // SAFETY: writes a pointer to a static string, or null for an unknown code.
        let found = unsafe { (self.error_name)(code, &mut name) };
        // SAFETY: null, or the driver's static NUL-terminated string.
        let text = unsafe { crate::abi::copy_text(name) };
        text.filter(|_| found == 0)
            .unwrap_or_else(|| format!("CUDA error {code}"))
    }
}
