//! Text and bytes of bounded length, borrowed from the frame.

use core::fmt;
use core::ops::Deref;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schema::{Fnv, Schema, varint_size};

/// A value is longer than its type allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes exceed the maximum of {max}: shorten the value")]
pub struct TooLong {
    /// Actual length, in bytes.
    pub len: usize,
    /// Maximum length, in bytes.
    pub max: usize,
}

macro_rules! bounded {
    ($(#[$meta:meta])* $name:ident, $inner:ty, $schema:literal, $write:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name<'a, const N: usize>(&'a $inner);

        impl<'a, const N: usize> $name<'a, N> {
            /// Wraps `value`.
            ///
            /// # Errors
            /// [`TooLong`] beyond `N` bytes.
            pub const fn new(value: &'a $inner) -> Result<Self, TooLong> {
                if value.len() > N {
                    return Err(TooLong { len: value.len(), max: N });
                }
                Ok($name(value))
            }

            /// The value, with the lifetime of the frame.
            #[must_use]
            pub const fn get(&self) -> &'a $inner {
                self.0
            }
        }

        impl<const N: usize> Deref for $name<'_, N> {
            type Target = $inner;

            fn deref(&self) -> &$inner {
                self.0
            }
        }

        impl<const N: usize> fmt::Debug for $name<'_, N> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.0, f)
            }
        }

        impl<const N: usize> Serialize for $name<'_, N> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.$write(self.0)
            }
        }

        impl<'de: 'a, 'a, const N: usize> Deserialize<'de> for $name<'a, N> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = <&'de $inner>::deserialize(deserializer)?;
                Self::new(value).map_err(D::Error::custom)
            }
        }

        impl<const N: usize> Schema for $name<'_, N> {
            const MAX_SIZE: usize = varint_size(N as u64) + N;
            const HASH: u64 = Fnv::new().name($schema).number(N as u64).finish();
        }
    };
}

bounded! {
    /// UTF-8 text of at most `N` bytes.
    Text, str, "text", serialize_str
}

bounded! {
    /// At most `N` bytes.
    Bytes, [u8], "bytes", serialize_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_longer_than_the_bound_are_rejected() {
        assert!(Text::<4>::new("road").is_ok());
        assert_eq!(Text::<3>::new("road"), Err(TooLong { len: 4, max: 3 }));
        let mut buffer = [0; 8];
        let written = postcard::to_slice(&Text::<4>::new("road").unwrap(), &mut buffer).unwrap();
        assert!(postcard::from_bytes::<Text<4>>(written).is_ok());
        assert!(postcard::from_bytes::<Text<3>>(written).is_err());
        assert!(postcard::from_bytes::<Bytes<3>>(written).is_err());
    }

    #[test]
    fn a_length_past_the_frame_or_invalid_utf8_is_rejected() {
        assert!(postcard::from_bytes::<Bytes<255>>(&[200, 1, 2]).is_err());
        assert!(postcard::from_bytes::<Text<8>>(&[2, 0xC3, 0x28]).is_err());
    }
}
