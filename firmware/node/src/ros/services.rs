//! Services of the node: the parameter services of every ROS 2 node, and a switch.
//!
//! | service | type |
//! |---|---|
//! | `~/enable` | `std_srvs/srv/SetBool`: processes images, or drops them |
//! | `~/list_parameters` and five more | `rcl_interfaces/srv`, for the parameter `rate_hz` |

use super::{
    Type,
    cdr::{CdrError, Reader, Writer},
};

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Whether images are processed.
    Enable,
    /// The names of all parameters.
    ListParameters,
    /// Values of parameters.
    GetParameters,
    /// Types of parameters.
    GetParameterTypes,
    /// Descriptions of parameters.
    DescribeParameters,
    /// Sets each parameter that can be set.
    SetParameters,
    /// Sets all parameters, or none.
    SetParametersAtomically,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 7] = [
        Self::Enable,
        Self::ListParameters,
        Self::GetParameters,
        Self::GetParameterTypes,
        Self::DescribeParameters,
        Self::SetParameters,
        Self::SetParametersAtomically,
    ];

    /// Its name, relative to the node.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::ListParameters => "list_parameters",
            Self::GetParameters => "get_parameters",
            Self::GetParameterTypes => "get_parameter_types",
            Self::DescribeParameters => "describe_parameters",
            Self::SetParameters => "set_parameters",
            Self::SetParametersAtomically => "set_parameters_atomically",
        }
    }

    /// Its type.
    pub const fn of(self) -> Type {
        let (name, hash) = match self {
            Self::Enable => (
                "std_srvs::srv::dds_::SetBool_",
                "RIHS01_abe9e4bb6b41b40e6789712c00ec8871923e089af3f667a79992a428cff2da0a",
            ),
            Self::ListParameters => (
                "rcl_interfaces::srv::dds_::ListParameters_",
                "RIHS01_3e6062bfbb27bfb8730d4cef2558221f51a11646d78e7bb30a1e83afac3aad9d",
            ),
            Self::GetParameters => (
                "rcl_interfaces::srv::dds_::GetParameters_",
                "RIHS01_bf9803d5c74cf989a5de3e0c2e99444599a627c7ff75f97b8c05b01003675cbc",
            ),
            Self::GetParameterTypes => (
                "rcl_interfaces::srv::dds_::GetParameterTypes_",
                "RIHS01_da199c878688b3e530bdfe3ca8f74cb9fa0c303101e980a9e8f260e25e1c80ca",
            ),
            Self::DescribeParameters => (
                "rcl_interfaces::srv::dds_::DescribeParameters_",
                "RIHS01_845b484d71eb0673dae682f2e3ba3c4851a65a3dcfb97bddd82c5b57e91e4cff",
            ),
            Self::SetParameters => (
                "rcl_interfaces::srv::dds_::SetParameters_",
                "RIHS01_56eed9a67e169f9cb6c1f987bc88f868c14a8fc9f743a263bc734c154015d7e0",
            ),
            Self::SetParametersAtomically => (
                "rcl_interfaces::srv::dds_::SetParametersAtomically_",
                "RIHS01_0e192ef259c07fc3c07a13191d27002222e65e00ccec653ca05e856f79285fcd",
            ),
        };
        Type { name, hash }
    }
}

/// The settings that services read and change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Whether images are processed.
    pub enabled: bool,
    /// Maximum frame rate; 0 is no limit.
    pub rate_hz: f64,
}

/// Name of the only parameter, its description and its range.
const RATE: &str = "rate_hz";
const DESCRIPTION: &str =
    "Maximum frame rate in Hz; 0 is no limit besides that of the configuration";
const MAX_RATE_HZ: f64 = 1000.0;

/// Maximum length of a request in bytes; longer ones are not answered.
pub const MAX_REQUEST: usize = 1 << 16;

const NOT_SET: u8 = 0;
const INTEGER: u8 = 2;
const DOUBLE: u8 = 3;

/// Writes the response to a request to `out`. Returns the new settings.
///
/// # Errors
/// If `request` is not a request to this service.
pub fn answer(
    service: Service,
    request: &[u8],
    mut settings: Settings,
    out: &mut Vec<u8>,
) -> Result<Settings, CdrError> {
    let mut reader = Reader::new(request)?;
    let mut cdr = Writer::new(out);
    match service {
        Service::Enable => {
            settings.enabled = reader.byte("data")? != 0;
            reader.end()?;
            cdr.put([1]);
            cdr.text(if settings.enabled {
                "running"
            } else {
                "stopped"
            });
        }
        Service::ListParameters => {
            let mut found = true;
            for i in 0..reader.number("prefixes")? {
                let prefix = reader.text("prefixes")?;
                found = i > 0 && found || prefix == RATE;
            }
            reader.wide("depth")?;
            reader.end()?;
            cdr.count(usize::from(found));
            if found {
                cdr.text(RATE);
            }
            // Prefixes.
            cdr.count(0);
        }
        Service::GetParameters => names(&mut reader, &mut cdr, |cdr, known| {
            cdr.put([if known { DOUBLE } else { NOT_SET }]);
            // The bool and the integer.
            cdr.put([0]);
            cdr.put(0i64.to_le_bytes());
            cdr.floats([if known { settings.rate_hz } else { 0.0 }]);
            cdr.text("");
            // Five arrays.
            (0..5).for_each(|_| cdr.count(0));
        })?,
        Service::GetParameterTypes => names(&mut reader, &mut cdr, |cdr, known| {
            cdr.put([if known { DOUBLE } else { NOT_SET }]);
        })?,
        Service::DescribeParameters => names(&mut reader, &mut cdr, |cdr, known| {
            cdr.text(if known { RATE } else { "" });
            cdr.put([if known { DOUBLE } else { NOT_SET }]);
            cdr.text(if known { DESCRIPTION } else { "" });
            // Additional constraints, read-only, dynamic typing.
            cdr.text("");
            cdr.put([0]);
            cdr.put([0]);
            cdr.count(usize::from(known));
            if known {
                cdr.floats([0.0, MAX_RATE_HZ, 0.0]);
            }
            // A range of integers.
            cdr.count(0);
        })?,
        Service::SetParameters => {
            let count = reader.number("parameters")?;
            cdr.count(count);
            for _ in 0..count {
                let result = parameter(&mut reader)?.map(|rate| settings.rate_hz = rate);
                write_result(&mut cdr, result);
            }
            reader.end()?;
        }
        Service::SetParametersAtomically => {
            let mut result = Ok(settings);
            for _ in 0..reader.number("parameters")? {
                let value = parameter(&mut reader)?;
                result = result.and_then(|settings| {
                    value.map(|rate_hz| Settings {
                        rate_hz,
                        ..settings
                    })
                });
            }
            reader.end()?;
            settings = result.unwrap_or(settings);
            write_result(&mut cdr, result.map(drop));
        }
    }
    Ok(settings)
}

/// Answers for each requested name; `known` says whether the parameter exists.
fn names(
    reader: &mut Reader<'_>,
    cdr: &mut Writer<'_>,
    write: impl Fn(&mut Writer<'_>, bool),
) -> Result<(), CdrError> {
    let count = reader.number("names")?;
    cdr.count(count);
    for _ in 0..count {
        let known = reader.text("names")? == RATE;
        write(cdr, known);
    }
    reader.end()
}

/// Reads the rate from a `rcl_interfaces/msg/Parameter`; the inner error is why it cannot be set.
fn parameter(reader: &mut Reader<'_>) -> Result<Result<f64, &'static str>, CdrError> {
    let name = reader.text("name")?;
    let kind = reader.byte("value.type")?;
    reader.byte("value.bool_value")?;
    let integer = i64::from_le_bytes(reader.wide("value.integer_value")?);
    let double = f64::from_le_bytes(reader.wide("value.double_value")?);
    reader.text("value.string_value")?;
    reader.bytes("value.byte_array_value")?;
    reader.bytes("value.bool_array_value")?;
    for field in ["value.integer_array_value", "value.double_array_value"] {
        for _ in 0..reader.number(field)? {
            reader.wide(field)?;
        }
    }
    for _ in 0..reader.number("value.string_array_value")? {
        reader.text("value.string_array_value")?;
    }
    let value = match kind {
        // `ros2 param set ... 5` sends an integer.
        INTEGER => integer as f64,
        DOUBLE => double,
        _ => f64::NAN,
    };
    Ok(if name != RATE {
        Err("there is no such parameter; there is rate_hz")
    } else if !(0.0..=MAX_RATE_HZ).contains(&value) {
        Err("rate_hz must be a number from 0 to 1000")
    } else {
        Ok(value)
    })
}

/// Writes a `rcl_interfaces/msg/SetParametersResult`.
fn write_result(cdr: &mut Writer<'_>, result: Result<(), &str>) {
    cdr.put([u8::from(result.is_ok())]);
    cdr.text(result.err().unwrap_or_default());
}

#[cfg(test)]
mod tests;
