//! The version of a TensorRT library, and the layout of its function tables.

use std::fmt;

use crate::error::{Error, Result};

/// The layout of the virtual function tables shared by a range of versions. One column of the slot
/// table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// TensorRT 8.5 and 8.6 (JetPack 5).
    V8,
    /// TensorRT 10.x (JetPack 6 and 7).
    V10,
    /// TensorRT 11.x.
    V11,
    /// TensorRT-RTX 1.3 and 1.4: the 10.x tables, except for the builder's configuration and the engine.
    Rtx1_4,
    /// TensorRT-RTX 1.5 to 1.7: the 11.x tables.
    Rtx1_5,
}

impl Layout {
    /// Every layout, in the order of the columns of the slot table.
    pub const ALL: [Layout; 5] = [
        Layout::V8,
        Layout::V10,
        Layout::V11,
        Layout::Rtx1_4,
        Layout::Rtx1_5,
    ];

    /// The column of this layout.
    pub(crate) const fn column(self) -> usize {
        match self {
            Layout::V8 => 0,
            Layout::V10 => 1,
            Layout::V11 => 2,
            Layout::Rtx1_4 => 3,
            Layout::Rtx1_5 => 4,
        }
    }

    /// Whether the dimensions in `Dims` are 32-bit. Such versions also pass `Dims` by value where
    /// later ones take a reference.
    pub(crate) const fn dims_are_32_bit(self) -> bool {
        matches!(self, Layout::V8)
    }

    /// Whether the library is TensorRT-RTX, which builds engines without a GPU.
    pub const fn is_rtx(self) -> bool {
        matches!(self, Layout::Rtx1_4 | Layout::Rtx1_5)
    }
}

/// NVIDIA's two products with this API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// `libnvinfer`: standard TensorRT, as on a Jetson.
    TensorRt,
    /// `libtensorrt_rtx`: TensorRT for RTX, for desktop GPUs.
    TensorRtRtx,
}

/// The version of an opened library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// TensorRT or TensorRT-RTX.
    pub product: Product,
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Patch level.
    pub patch: u32,
}

impl Version {
    /// Decodes what `getInferLibVersion` returns.
    ///
    /// Up to 9.x the number is `major * 1000 + minor * 100 + patch` (8503 is
    /// 8.5.3); since 10.0, and in TensorRT-RTX, it is
    /// `major * 10000 + minor * 100 + patch` (101601 is 10.16.1, 10701 is
    /// TensorRT-RTX 1.7.1). The ranges do not overlap.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a number outside those ranges.
    pub fn decode(number: i32) -> Result<Version> {
        let n = u32::try_from(number).map_err(|_| Error::Unsupported {
            version: format!("number {number}"),
        })?;
        let (product, unit) = match n {
            5_000..=9_999 => (Product::TensorRt, 1_000),
            10_000..=99_999 => (Product::TensorRtRtx, 10_000),
            100_000..=999_999 => (Product::TensorRt, 10_000),
            _ => {
                return Err(Error::Unsupported {
                    version: format!("number {number}"),
                });
            }
        };
        Ok(Version {
            product,
            major: n / unit,
            minor: n % unit / 100,
            patch: n % 100,
        })
    }

    /// The layout of the function tables of this version.
    ///
    /// NVIDIA keeps the tables of TensorRT compatible within a major version, so newer minor
    /// versions of 10 and 11 are accepted. TensorRT-RTX changed its tables between 1.4 and 1.5, so
    /// only verified versions are accepted.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: the tables of other versions are unknown, and a call through a wrong
    /// table would corrupt memory.
    pub fn layout(&self) -> Result<Layout> {
        match (self.product, self.major, self.minor) {
            (Product::TensorRt, 8, 5 | 6) => Ok(Layout::V8),
            (Product::TensorRt, 10, _) => Ok(Layout::V10),
            (Product::TensorRt, 11, _) => Ok(Layout::V11),
            (Product::TensorRtRtx, 1, 3 | 4) => Ok(Layout::Rtx1_4),
            (Product::TensorRtRtx, 1, 5..=7) => Ok(Layout::Rtx1_5),
            _ => Err(Error::Unsupported {
                version: self.to_string(),
            }),
        }
    }

    /// Whether the slot table was verified against the headers of exactly this minor version.
    pub fn is_checked(&self) -> bool {
        match (self.product, self.major) {
            (Product::TensorRt, 10) => self.minor <= 16,
            (Product::TensorRt, 11) => self.minor <= 4,
            _ => self.layout().is_ok(),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = match self.product {
            Product::TensorRt => "TensorRT",
            Product::TensorRtRtx => "TensorRT-RTX",
        };
        write!(f, "{product} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers_of_real_libraries_are_decoded() {
        let cases = [
            (8503, "TensorRT 8.5.3", Some(Layout::V8)),
            (8601, "TensorRT 8.6.1", Some(Layout::V8)),
            (100300, "TensorRT 10.3.0", Some(Layout::V10)),
            (101601, "TensorRT 10.16.1", Some(Layout::V10)),
            (110400, "TensorRT 11.4.0", Some(Layout::V11)),
            (10400, "TensorRT-RTX 1.4.0", Some(Layout::Rtx1_4)),
            (10701, "TensorRT-RTX 1.7.1", Some(Layout::Rtx1_5)),
            (7203, "TensorRT 7.2.3", None),
            (8403, "TensorRT 8.4.3", None),
            (9300, "TensorRT 9.3.0", None),
            (10200, "TensorRT-RTX 1.2.0", None),
            (10800, "TensorRT-RTX 1.8.0", None),
            (120000, "TensorRT 12.0.0", None),
        ];
        for (number, text, layout) in cases {
            let version = Version::decode(number).unwrap();
            assert_eq!(version.to_string(), text);
            assert_eq!(version.layout().ok(), layout, "{text}");
            if layout.is_none() {
                let message = version.layout().unwrap_err().to_string();
                assert!(message.contains(text), "{message}");
            }
        }
    }

    #[test]
    fn absurd_version_numbers_are_refused() {
        for number in [i32::MIN, -1, 0, 1, 999, 4_999, 1_000_000, i32::MAX] {
            assert!(
                matches!(Version::decode(number), Err(Error::Unsupported { .. })),
                "{number}"
            );
        }
    }

    #[test]
    fn columns_are_in_the_order_of_all() {
        for (position, layout) in Layout::ALL.iter().enumerate() {
            assert_eq!(layout.column(), position);
        }
    }
}
